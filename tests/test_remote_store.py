"""Stores at URLs: the same rows as on disk, no credentials shown, every failure in one line."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader

import prise
from data.dataset import WindowDataset, already_collated
from data.formats.folder import folder_at, is_url
from data.formats.zarr_store import DatasetError, ZarrWriter, open_zarr
from data.inspect_dataset import inspect
from data.spec import Horizons
from policy.config import TrainConfig
from policy.train import train
from tests.s3_server import BUCKET, CREDENTIALS, s3_server, upload
from tests.tiny_store import STORE_SPEC, assert_same_episode, random_episode, write_store
from tests.tiny_training import CONFIG, HORIZONS, policy_config, write_demos

LENGTHS = (5, 1, 40, 33)
WINDOWS = Horizons(obs=2, pred=4, window=12)
SECRET = CREDENTIALS["AWS_SECRET_ACCESS_KEY"]


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[str]:
    """A store in the memory of this process."""
    write_store(tmp_path / "d", LENGTHS)
    fs = fsspec.filesystem("memory")
    fs.put(str(tmp_path / "d"), f"/{tmp_path.name}", recursive=True)
    yield f"memory://{tmp_path.name}"
    fs.rm(f"/{tmp_path.name}", recursive=True)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    pytest.importorskip("s3fs", reason="`./run setup` installs it")
    with s3_server() as url:
        yield url


@pytest.fixture
def options(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    return {"endpoint_url": endpoint}


def test_episodes_are_the_same_at_a_url(memory: str) -> None:
    store = open_zarr(memory)
    for index, length in enumerate(LENGTHS):
        assert_same_episode(store.episode(index), random_episode(length, index))
    with pytest.raises(DatasetError, match="no folder of this machine"):
        _ = store.path


def test_windows_are_the_same_at_a_url_whatever_the_cache(memory: str, tmp_path: Path) -> None:
    for cache_bytes in (2**30, 76_000):
        here = WindowDataset(open_zarr(tmp_path / "d"), WINDOWS, cache_bytes=cache_bytes)
        there = WindowDataset(open_zarr(memory), WINDOWS, cache_bytes=cache_bytes)
        assert list(here.sampler(3)) == list(there.sampler(3))
        for indices in BatchSampler(here.sampler(3), 16, drop_last=False):
            one, other = here.__getitems__(indices), there.__getitems__(indices)
            for key in one["obs"]:
                assert torch.equal(one["obs"][key], other["obs"][key])
            assert torch.equal(one["action"], other["action"])


def test_a_file_url_is_a_local_path(tmp_path: Path) -> None:
    with ZarrWriter(f"file://{tmp_path}/d", STORE_SPEC, {}) as writer:
        writer.append(random_episode(3, 0))
    assert open_zarr(f"file://{tmp_path}/d").path == tmp_path / "d"
    assert not is_url(f"file://{tmp_path}")
    assert not is_url(tmp_path)


def test_a_chunk_that_is_missing_at_a_url_is_never_read_as_zeros(memory: str) -> None:
    store = open_zarr(memory)
    fsspec.filesystem("memory").rm(f"{memory}/data/rgb/c.1.0.0.0")
    with pytest.raises(DatasetError, match="data/rgb: rows 32:64: a file is missing"):
        store.read("rgb", 32, 64)
    with pytest.raises(DatasetError, match=r"c\.1\.0\.0\.0 is missing"):
        open_zarr(memory)


def test_a_chunk_that_is_damaged_at_a_url_is_called_damaged(memory: str) -> None:
    fs = fsspec.filesystem("memory")
    fs.pipe_file(f"{memory}/data/rgb/c.0.0.0.0", fs.cat_file(f"{memory}/data/rgb/c.0.0.0.0")[:-9])
    with pytest.raises(DatasetError, match="rows 0:1 are damaged") as caught:
        open_zarr(memory).read("rgb", 0, 1)
    assert "\n" not in str(caught.value)


def test_a_failed_read_among_many_leaves_no_chunk_that_claims_to_be_there(memory: str) -> None:
    fs = fsspec.filesystem("memory")
    dataset = WindowDataset(open_zarr(memory), WINDOWS, ["rgb"])
    good = fs.cat_file(f"{memory}/data/rgb/c.1.0.0.0")
    fs.rm(f"{memory}/data/rgb/c.1.0.0.0")
    with pytest.raises(DatasetError, match="missing"):
        dataset.__getitems__(range(79))
    fs.pipe_file(f"{memory}/data/rgb/c.1.0.0.0", good)
    rows = dataset.__getitems__(range(79))["obs"]["rgb"][:, -1].numpy()
    whole = np.concatenate([random_episode(n, i).obs["rgb"] for i, n in enumerate(LENGTHS)])
    np.testing.assert_array_equal(rows, whole)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("memory://nothing", "memory://nothing does not exist: no zarr.json there"),
        ("nosuch://x", "Protocol not known"),
        ("gs://bucket/x", "needs a package: Please install gcsfs"),
    ],
)
def test_a_url_with_nothing_behind_it_is_one_line(url: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message) as caught:
        open_zarr(url)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options", [{"secret": SECRET}, {"client_kwargs": {"aws_secret_access_key": SECRET}}]
)
def test_credentials_are_refused_in_a_config_and_never_shown(options: dict[str, Any]) -> None:
    with pytest.raises(DatasetError, match="environment") as caught:
        open_zarr("s3://bucket/x", options)
    assert SECRET not in str(caught.value)
    folder = folder_at(f"ftp://user:{SECRET}@host/x?sig={SECRET}")
    assert str(folder) == "ftp://host/x"
    assert SECRET not in repr(folder)


def test_options_of_a_local_path_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="are for URLs"):
        open_zarr(tmp_path, {"anon": True})


def test_collecting_into_a_url_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert prise.main(["collect", "dataset.path=s3://bucket/x.zarr", "workers=1"]) == 2
    told = capsys.readouterr().err.strip()
    assert "written to a folder of this machine" in told
    assert "\n" not in told


@pytest.mark.slow
def test_s3_gives_the_same_episodes_here_and_in_loader_processes(
    endpoint: str, options: dict[str, Any], tmp_path: Path
) -> None:
    store = write_store(tmp_path / "d", LENGTHS)
    url = upload(tmp_path / "d", endpoint, "sets/one.zarr")
    remote = open_zarr(url, options)
    for index, length in enumerate(LENGTHS):
        assert_same_episode(remote.episode(index), random_episode(length, index))
    assert any("4 episodes, 79 steps" in line for line in inspect(url, options))
    assert SECRET.encode() not in pickle.dumps(remote)
    here, there = WindowDataset(store, WINDOWS), WindowDataset(remote, WINDOWS)
    batches = list(BatchSampler(here.sampler(0), 16, drop_last=True))
    loader = DataLoader(
        there,
        batch_sampler=batches,
        collate_fn=already_collated,
        num_workers=1,
        multiprocessing_context="spawn",
    )
    for indices, batch in zip(batches, loader, strict=True):
        assert torch.equal(batch["obs"]["rgb"], here.__getitems__(indices)["obs"]["rgb"])


@pytest.mark.slow
def test_a_run_resumed_from_s3_goes_on_to_the_bits_of_one_from_disk(
    endpoint: str, options: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    demos = write_demos(tmp_path / "d")
    url = upload(demos, endpoint, "sets/train.zarr")
    config = TrainConfig(**{**vars(CONFIG), "steps": 6})
    train(config, policy_config(), HORIZONS, demos, tmp_path / "disk")
    words = [url, str(tmp_path / "s3"), endpoint]
    for resume in ("", "resume"):
        subprocess.run(
            [sys.executable, "-c", _RUN, *words, resume],
            check=True,
            cwd=Path(__file__).parents[1],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
    for name in ("weights.safetensors", "spec.json"):
        one, other = (tmp_path / run / "last" / name for run in ("disk", "s3"))
        assert one.read_bytes() == other.read_bytes()
    kept = [file for file in (tmp_path / "s3").rglob("*") if file.is_file()]
    assert not [file for file in kept if SECRET.encode() in file.read_bytes()]
    assert SECRET not in caplog.text


_RUN = """
import sys
from dataclasses import replace
from data.mixture import open_mixture
from policy.train import train
from tests.tiny_training import CONFIG, HORIZONS, policy_config, stopped
url, run, endpoint, resume = sys.argv[1:]
data = open_mixture({"path": url, "storage_options": {"endpoint_url": endpoint}})
config = replace(CONFIG, steps=6)
config = config if resume else stopped(config, after=3)
summary = train(config, policy_config(), HORIZONS, data, run, resume=bool(resume))
assert summary.step == (6 if resume else 3)
"""


def told(capsys: pytest.CaptureFixture[str], url: str, endpoint: str) -> str:
    """The one line of `prise inspect`, which ends with 2."""
    capsys.readouterr()
    assert prise.main(["inspect", url, f"storage_options={{endpoint_url: '{endpoint}'}}"]) == 2
    line = capsys.readouterr().err.strip()
    assert "\n" not in line
    assert SECRET not in line
    return line


@pytest.mark.slow
def test_what_s3_refuses_is_one_line_and_exit_status_2(
    endpoint: str,
    options: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert "bucket does not exist" in told(capsys, "s3://none/x", endpoint)
    assert "does not exist: no zarr.json" in told(capsys, f"s3://{BUCKET}/none", endpoint)
    with s3_server(INITIAL_NO_AUTH_ACTION_COUNT="1") as strict:
        assert "access is refused" in told(capsys, f"s3://{BUCKET}/x", strict)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}"
        assert "check the network" in told(capsys, f"s3://{BUCKET}/x", nobody)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    assert "access is refused (NoCredentialsError" in told(capsys, f"s3://{BUCKET}/x", endpoint)


@pytest.mark.slow
def test_a_missing_extra_is_named_with_the_command_that_installs_it() -> None:
    without = "import sys; sys.modules['s3fs'] = None; import prise; "
    command = f"{without} sys.exit(prise.main(['inspect', 's3://bucket/x']))"
    words = [sys.executable, "-c", command]
    done = subprocess.run(words, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.returncode == 2
    assert "pip install -e '.[s3]'" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
