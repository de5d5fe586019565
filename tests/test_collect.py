"""Collection: one dataset for any number of workers, kills included."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from data.formats.zarr_store import DemoStore, open_zarr
from envs.collect import collect, demonstrate
from envs.evaluate import run_episode
from envs.workers import EpisodeError
from tests.tiny_env import Action, TinyExpert, tiny_env


class IdleExpert(TinyExpert):
    def reset(self, seed: int) -> None:
        super().reset(3)


def assert_same_episodes(one: DemoStore, other: DemoStore) -> None:
    np.testing.assert_array_equal(one.seeds, other.seeds)
    np.testing.assert_array_equal(one.episode_ends, other.episode_ends)
    for key in (*one.spec.obs, "action", "valid"):
        np.testing.assert_array_equal(
            one.read(key, 0, one.num_steps), other.read(key, 0, other.num_steps)
        )


def files_of(path: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(path)): p.read_bytes()
        for p in path.rglob("*")
        if p.is_file() and p.name != ".lock"
    }


@pytest.mark.slow
def test_the_store_is_bit_identical_for_any_number_of_workers(tmp_path: Path) -> None:
    for workers in (1, 3):
        path = tmp_path / f"with{workers}"
        collect(tiny_env(), TinyExpert, path, 7, workers=workers, seed0=10, progress=False)
    assert files_of(tmp_path / "with1") == files_of(tmp_path / "with3")


def test_only_successes_are_kept_and_failures_are_named(tmp_path: Path) -> None:
    summary = collect(tiny_env(), TinyExpert, tmp_path / "d", 5, workers=2, progress=False)
    assert open_zarr(tmp_path / "d").seeds.tolist() == [0, 1, 2, 4, 5]
    assert summary.episodes == 5
    assert summary.failed_seeds == (3,)
    assert summary.failed == 1
    assert summary.sim_seconds > 0
    assert summary.realtime_factor == pytest.approx(summary.sim_seconds / summary.seconds)


def test_keep_all_keeps_failures_too(tmp_path: Path) -> None:
    summary = collect(tiny_env(), TinyExpert, tmp_path / "d", 5, keep="all", progress=False)
    assert open_zarr(tmp_path / "d").seeds.tolist() == [0, 1, 2, 3, 4]
    assert summary.failed_seeds == (3,)


@pytest.mark.slow
def test_resuming_gives_the_store_of_an_uninterrupted_run(tmp_path: Path) -> None:
    collect(tiny_env(), TinyExpert, tmp_path / "once", 6, progress=False)
    for episodes in (3, 6, 6):
        summary = collect(tiny_env(), TinyExpert, tmp_path / "parts", episodes, progress=False)
        assert summary.episodes == episodes
    assert_same_episodes(open_zarr(tmp_path / "once"), open_zarr(tmp_path / "parts"))


def test_resuming_with_other_settings_is_refused(tmp_path: Path) -> None:
    collect(tiny_env(), TinyExpert, tmp_path / "d", 1, progress=False)
    with pytest.raises(ValueError, match="seed0 0, now it is 100"):
        collect(tiny_env(), TinyExpert, tmp_path / "d", 2, seed0=100, progress=False)
    with pytest.raises(ValueError, match="raise_on"):
        collect(tiny_env(raise_on=99), TinyExpert, tmp_path / "d", 2, progress=False)


def test_the_clean_action_is_stored_while_the_noisy_one_is_executed() -> None:
    env = tiny_env()()
    demonstration = demonstrate(env, TinyExpert(), 1)
    assert demonstration.episode is not None
    moved = np.diff(demonstration.episode.obs["pose"][:, :2], axis=0)
    labels = demonstration.episode.action[:-1, :2]
    assert 0 < np.abs(moved - labels).max() < 3e-4
    assert demonstration.episode.valid.tolist() == [False] + [True] * (demonstration.ticks - 1)


def test_actions_and_observations_of_a_row_belong_to_the_same_tick() -> None:
    demonstration = demonstrate(tiny_env()(), TinyExpert(), 1)
    assert demonstration.episode is not None
    first = run_episode(tiny_env()(), _Replay(demonstration.episode.action), 1, record=True)
    assert first.trace is not None
    for key in ("rgb", "goal", "pose"):
        np.testing.assert_array_equal(
            first.trace[key][0], demonstration.episode.obs[key][0], strict=True
        )


class _Replay:
    def __init__(self, actions: Action) -> None:
        self._actions = actions

    def reset(self, seed: int) -> None:
        self._tick = 0

    def act(self, raw_obs: object, stamp: float) -> Action:
        action: Action = self._actions[min(self._tick, len(self._actions) - 1)]
        self._tick += 1
        return action

    def stats(self) -> dict[str, list[float]]:
        return {}


def test_a_failing_environment_names_the_seed_and_keeps_what_was_written(tmp_path: Path) -> None:
    with pytest.raises(EpisodeError, match=r"seed 2: .*on fire"):
        collect(tiny_env(raise_on=2), TinyExpert, tmp_path / "d", 5, progress=False)
    assert open_zarr(tmp_path / "d").seeds.tolist() == [0, 1]


def test_an_expert_that_never_succeeds_ends_the_collection(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"failed 50 times in a row.*timeout"):
        collect(tiny_env(), IdleExpert, tmp_path / "d", 1, progress=False)


KILLED = """
import sys
from envs.collect import collect
from tests.tiny_env import TinyExpert, tiny_env
if __name__ == "__main__":
    collect(tiny_env(), TinyExpert, sys.argv[1], 100_000, workers=2, progress=False)
"""


def children_of(pid: int) -> list[int]:
    listing = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True)
    return [int(word) for word in listing.stdout.split()]


def alive(pid: int) -> bool:
    state = Path(f"/proc/{pid}/stat")
    return state.exists() and state.read_text().rsplit(")", 1)[1].split()[0] != "Z"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="watches processes through /proc")
def test_a_killed_collection_leaves_a_whole_store_and_no_workers(tmp_path: Path) -> None:
    script, path = tmp_path / "killed.py", tmp_path / "d"
    script.write_text(KILLED)
    root = Path(__file__).parents[1]
    process = subprocess.Popen(
        [sys.executable, str(script), str(path)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if path.exists() and open_zarr(path).num_episodes >= 5:
            break
        time.sleep(0.1)
    workers = children_of(process.pid)
    assert workers
    process.send_signal(signal.SIGKILL)
    process.wait()
    killed = open_zarr(path)
    for i in range(killed.num_episodes):
        killed.episode(i)
    while time.monotonic() < deadline and any(map(alive, workers)):
        time.sleep(0.1)
    assert not any(map(alive, workers))
    more = killed.num_episodes + 2
    collect(tiny_env(), TinyExpert, path, more, progress=False)
    collect(tiny_env(), TinyExpert, tmp_path / "whole", more, progress=False)
    assert_same_episodes(open_zarr(path), open_zarr(tmp_path / "whole"))
