"""The store of demonstrations: what goes in comes out, and damage is named."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from data.formats import layout
from data.formats.zarr_store import DatasetError, Episode, ZarrWriter, open_zarr
from data.inspect_dataset import inspect
from data.spec import DataSpec, SpecError
from tests.tiny_store import STORE_SPEC, assert_same_episode, random_episode, write_store

LENGTHS = (5, 1, 40, 33)


def test_episodes_come_back_as_they_went_in(tmp_path: Path) -> None:
    store = write_store(tmp_path / "d", LENGTHS)
    assert store.spec == STORE_SPEC
    assert store.spec.task == "tiny"
    assert store.provenance == {"command": "test"}
    assert (store.num_episodes, store.num_steps) == (4, 79)
    assert store.episode_ends.tolist() == [5, 6, 46, 79]
    assert store.seeds.tolist() == [0, 1, 2, 3]
    for index, length in enumerate(LENGTHS):
        assert_same_episode(store.episode(index), random_episode(length, index))


def test_rows_are_read_across_chunks(tmp_path: Path) -> None:
    store = write_store(tmp_path / "d", LENGTHS)
    whole = np.concatenate([random_episode(n, i).obs["rgb"] for i, n in enumerate(LENGTHS)])
    np.testing.assert_array_equal(store.read("rgb", 30, 70), whole[30:70])


def test_resume_appends_and_keeps_what_was_there(tmp_path: Path) -> None:
    write_store(tmp_path / "d", LENGTHS)
    with ZarrWriter(tmp_path / "d", STORE_SPEC, {"command": "again"}, resume=True) as writer:
        assert (writer.num_episodes, writer.num_steps, writer.seeds) == (4, 79, (0, 1, 2, 3))
        writer.append(random_episode(9, 4))
    store = open_zarr(tmp_path / "d")
    assert store.provenance == {"command": "test"}
    for index, length in enumerate((*LENGTHS, 9)):
        assert_same_episode(store.episode(index), random_episode(length, index))


def test_resume_creates_what_is_not_there(tmp_path: Path) -> None:
    with ZarrWriter(tmp_path / "new" / "d", STORE_SPEC, {}, resume=True) as writer:
        assert writer.num_episodes == 0
    assert open_zarr(tmp_path / "new" / "d").num_episodes == 0


def test_an_existing_store_is_not_overwritten(tmp_path: Path) -> None:
    write_store(tmp_path / "d", [3])
    with pytest.raises(DatasetError, match="exists"):
        ZarrWriter(tmp_path / "d", STORE_SPEC, {})


def test_resume_refuses_another_spec(tmp_path: Path) -> None:
    write_store(tmp_path / "d", [3])
    with pytest.raises(DatasetError, match="another spec"):
        ZarrWriter(tmp_path / "d", replace(STORE_SPEC, rate_hz=5.0), {}, resume=True)
    ZarrWriter(tmp_path / "d", STORE_SPEC, {}, resume=True).close()


def test_a_store_has_one_writer_at_a_time(tmp_path: Path) -> None:
    with (
        ZarrWriter(tmp_path / "d", STORE_SPEC, {}),
        pytest.raises(DatasetError, match="has a writer already"),
    ):
        ZarrWriter(tmp_path / "d", STORE_SPEC, {}, resume=True)
    ZarrWriter(tmp_path / "d", STORE_SPEC, {}, resume=True).close()


def test_a_closed_writer_writes_no_more(tmp_path: Path) -> None:
    with ZarrWriter(tmp_path / "d", STORE_SPEC, {}) as writer:
        pass
    with pytest.raises(DatasetError, match="closed"):
        writer.append(random_episode(3, 0))


def test_a_reader_sees_what_was_committed_when_it_opened(tmp_path: Path) -> None:
    with ZarrWriter(tmp_path / "d", STORE_SPEC, {}) as writer:
        writer.append(random_episode(5, 0))
        store = open_zarr(tmp_path / "d")
        writer.append(random_episode(7, 1))
        assert store.num_episodes == 1
        assert_same_episode(store.episode(0), random_episode(5, 0))
    assert open_zarr(tmp_path / "d").num_episodes == 2


@pytest.mark.parametrize(
    "stop_before", ["data/pose", "data/valid", "meta/seed", "meta/episode_ends"]
)
def test_an_append_that_dies_half_way_leaves_whole_episodes_and_can_be_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_before: str
) -> None:
    write = ZarrWriter._write

    def die(self: ZarrWriter, name: str, start: int, rows: Any) -> None:
        if name == stop_before:
            self._arrays[name].resize((start + len(rows), *self._arrays[name].shape[1:]))
            raise KeyboardInterrupt
        write(self, name, start, rows)

    with ZarrWriter(tmp_path / "d", STORE_SPEC, {}) as writer:
        writer.append(random_episode(40, 0))
        with monkeypatch.context() as patch:
            patch.setattr(ZarrWriter, "_write", die)
            with pytest.raises(KeyboardInterrupt):
                writer.append(random_episode(50, 1))
    assert open_zarr(tmp_path / "d").num_episodes == 1
    with ZarrWriter(tmp_path / "d", STORE_SPEC, {}, resume=True) as writer:
        writer.append(random_episode(3, 2))  # shorter than the rest of the dead one
    store = open_zarr(tmp_path / "d")
    assert store.seeds.tolist() == [0, 2]
    assert_same_episode(store.episode(0), random_episode(40, 0))
    assert_same_episode(store.episode(1), random_episode(3, 2))


def with_obs(key: str, value: Any) -> Episode:
    episode = random_episode(3, 0)
    return replace(episode, obs={**episode.obs, key: value})


@pytest.mark.parametrize(
    ("episode", "message"),
    [
        (with_obs("rgb", np.zeros((3, 4, 6, 3), np.float32)), "'rgb' came as float32"),
        (with_obs("pose", np.zeros((2, 3), np.float32)), r"'pose' came as float32 \(2, 3\)"),
        (with_obs("pose", np.full((3, 3), np.nan, np.float32)), "'pose' holds NaN"),
        (with_obs("depth", np.zeros(3)), "depth"),
        (replace(random_episode(3, 0), valid=np.ones(3, np.int64)), "'valid' came as int64"),
        (random_episode(0, 0), "no steps"),
    ],
)
def test_an_episode_that_does_not_fit_is_refused_whole(
    tmp_path: Path, episode: Episode, message: str
) -> None:
    with ZarrWriter(tmp_path / "d", STORE_SPEC, {}) as writer:
        with pytest.raises(DatasetError, match=message):
            writer.append(episode)
        assert writer.num_steps == 0
        assert open_zarr(tmp_path / "d").num_steps == 0


def test_observations_cannot_take_the_names_of_the_store(tmp_path: Path) -> None:
    spec = DataSpec({"action": STORE_SPEC.obs["pose"]}, STORE_SPEC.action, 10.0)
    with pytest.raises(SpecError, match="action"):
        ZarrWriter(tmp_path / "d", spec, {})


def rewrite(path: Path, key: str, value: Any) -> None:
    content = json.loads((path / "zarr.json").read_text())
    content["attributes"][key] = value
    (path / "zarr.json").write_text(json.dumps(content))


def empty_folder(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


def plain_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("x")


def foreign(path: Path) -> None:
    shutil.rmtree(path)
    zarr.open_group(path, mode="w", zarr_format=3)


def shorten(path: Path) -> None:
    array = zarr.open_group(path, mode="r+")["data/pose"]
    assert isinstance(array, zarr.Array)
    array.resize((7, 3))


def exchange(path: Path) -> None:
    shutil.rmtree(path / "data/pose")
    shutil.copytree(path / "data/rgb", path / "data/pose")


def corrupt(path: Path, byte: int) -> None:
    content = bytearray(path.read_bytes())
    content[byte] ^= 0xFF
    path.write_bytes(content)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (shutil.rmtree, "does not exist; collect"),
    "an empty folder": (empty_folder, "no Prise demonstrations"),
    "a file": (plain_file, "no Prise demonstrations"),
    "other zarr": (foreign, "format is None"),
    "newer schema": (lambda p: rewrite(p, "schema_version", 99), "schema version 99.*update"),
    "no schema": (lambda p: rewrite(p, "schema_version", None), "schema version None"),
    "no spec": (lambda p: rewrite(p, "spec", {}), "spec is damaged"),
    "broken root": (lambda p: (p / "zarr.json").write_text("{"), "no Prise demonstrations"),
    "missing key": (lambda p: shutil.rmtree(p / "data/pose"), "data/pose is missing"),
    "broken array": (lambda p: (p / "data/pose/zarr.json").write_text("{"), "data/pose"),
    "short array": (shorten, r"data/pose has 7 rows, meta/episode_ends says 79: it is truncated"),
    "wrong shape": (exchange, "data/pose holds rows uint8"),
    "lost chunk": (lambda p: (p / "data/rgb/c.1.0.0.0").unlink(), r"c\.1\.0\.0\.0 is missing"),
    "lost commit": (lambda p: corrupt(p / "meta/episode_ends/c.0", 20), "episode_ends: rows .*dam"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named_in_one_line_when_opening(tmp_path: Path, damage: str) -> None:
    write_store(tmp_path / "d", LENGTHS)
    harm, message = DAMAGES[damage]
    harm(tmp_path / "d")
    with pytest.raises(DatasetError, match=message) as caught:
        open_zarr(tmp_path / "d")
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "d") in str(caught.value)


@pytest.mark.parametrize("byte", [0, 30, -30, -1])
def test_a_flipped_byte_in_a_chunk_is_found_when_it_is_read(tmp_path: Path, byte: int) -> None:
    write_store(tmp_path / "d", LENGTHS)
    corrupt(tmp_path / "d/data/rgb/c.1.0.0.0", byte)
    store = open_zarr(tmp_path / "d")
    store.read("rgb", 0, 32)
    with pytest.raises(DatasetError, match="data/rgb: rows 32:64 are damaged") as caught:
        store.read("rgb", 32, 64)
    assert "\n" not in str(caught.value)


def test_a_truncated_chunk_is_found_when_it_is_read(tmp_path: Path) -> None:
    store = write_store(tmp_path / "d", LENGTHS)
    chunk = tmp_path / "d/data/rgb/c.0.0.0.0"
    chunk.write_bytes(chunk.read_bytes()[:50])
    with pytest.raises(DatasetError, match="damaged"):
        store.read("rgb", 0, 1)


def test_chunks_of_zeros_are_stored_so_that_a_lost_file_is_a_lost_file(tmp_path: Path) -> None:
    episode = random_episode(40, 0)
    black = replace(episode, obs={**episode.obs, "rgb": np.zeros_like(episode.obs["rgb"])})
    with ZarrWriter(tmp_path / "d", STORE_SPEC, {}) as writer:
        writer.append(black)
    assert_same_episode(open_zarr(tmp_path / "d").episode(0), black)


def test_an_image_chunk_holds_whole_frames(tmp_path: Path) -> None:
    store = write_store(tmp_path / "d", LENGTHS)
    assert store.chunk_rows("rgb") == layout.FRAMES_PER_CHUNK
    names = {p.name for p in (tmp_path / "d/data/rgb").iterdir()}
    assert names == {"zarr.json", "c.0.0.0.0", "c.1.0.0.0", "c.2.0.0.0"}


def test_asking_for_what_is_not_there_is_an_error(tmp_path: Path) -> None:
    store = write_store(tmp_path / "d", LENGTHS)
    with pytest.raises(DatasetError, match="no key 'depth'"):
        store.read("depth", 0, 1)
    with pytest.raises(IndexError, match="0:80"):
        store.read("rgb", 0, 80)
    with pytest.raises(IndexError, match="episode 4"):
        store.episode(4)


def test_a_store_can_be_sent_to_another_process(tmp_path: Path) -> None:
    store = pickle.loads(pickle.dumps(write_store(tmp_path / "d", LENGTHS)))  # noqa: S301  spawn
    assert_same_episode(store.episode(2), random_episode(40, 2))


def test_inspect_tells_counts_rates_values_and_provenance(tmp_path: Path) -> None:
    write_store(tmp_path / "d", LENGTHS)
    text = "\n".join(inspect(tmp_path / "d"))
    for part in ("4 episodes, 79 steps at 10 Hz", "wrench", "50 Hz", "dx, dy", "command: test"):
        assert part in text
    rgb = np.concatenate([random_episode(n, i).obs["rgb"] for i, n in enumerate(LENGTHS)])
    assert "min " + " ".join(str(v) for v in rgb.min(axis=(0, 1, 2))) in text


def test_inspect_finds_damage_in_any_chunk_and_reads_an_empty_store(tmp_path: Path) -> None:
    write_store(tmp_path / "d", LENGTHS)
    corrupt(tmp_path / "d/data/rgb/c.2.0.0.0", 30)
    with pytest.raises(DatasetError, match="data/rgb"):
        inspect(tmp_path / "d")
    write_store(tmp_path / "empty", [])
    assert any("empty" in line for line in inspect(tmp_path / "empty"))
