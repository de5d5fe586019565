"""Seeds on a real local Ray cluster: the results of local processes, whatever dies in between."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import pytest

from data.formats.zarr_store import open_zarr
from data.spec import Obs
from envs.base import EnvFactory, Info
from envs.collect import collect
from envs.evaluate import evaluate
from envs.workers import EpisodeError, Executor
from tests.test_collect import files_of
from tests.test_evaluate import uneven
from tests.tiny_env import Action, TinyAgent, TinyEnv, TinyExpert, tiny_env

ray = pytest.importorskip("ray", reason="ray is not installed; the extra `ray` brings it")
from envs.ray_workers import RayWorkers  # noqa: E402 (needs ray)

ROOT = Path(__file__).parents[1]
pytestmark = [pytest.mark.slow, pytest.mark.apart]
RAY: Executor = RayWorkers


class FragileEnv(TinyEnv):
    """Kills its process in the middle of the episode of `seed`, unless `marker` exists already."""

    def __init__(self, seed: int, marker: str) -> None:
        super().__init__()
        self._seed, self._marker = seed, Path(marker)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Obs, Info]:
        self._episode, self._steps = seed, 0
        return super().reset(seed=seed, options=options)

    def step(self, action: Action) -> tuple[Obs, float, bool, bool, Info]:
        self._steps += 1
        if self._episode == self._seed and self._steps == 3 and not self._marker.exists():
            self._marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(action)


gymnasium.register(id="Fragile-v0", entry_point="tests.test_ray_workers:FragileEnv")


def fragile_env(seed: int, marker: Path) -> EnvFactory:
    return EnvFactory("tests.test_ray_workers:Fragile-v0", {"seed": seed, "marker": str(marker)})


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """One for all tests: it takes seconds to start."""
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def test_evaluation_gives_the_results_of_local_processes() -> None:
    seeds = [9, 2, 4, 7, 1, 0]
    local = evaluate(tiny_env(), TinyAgent, seeds, workers=2, progress=False)
    assert evaluate(tiny_env(), TinyAgent, seeds, 2, progress=False, executor=RAY) == local


def test_collection_gives_the_store_of_local_processes_to_the_bit(tmp_path: Path) -> None:
    for name, options in (("local", {}), ("ray", {"workers": 2, "executor": RAY})):
        collect(tiny_env(), TinyExpert, tmp_path / name, 7, progress=False, **options)  # type: ignore[arg-type]  # a dict of mixed values
    assert files_of(tmp_path / "ray") == files_of(tmp_path / "local")


def test_a_process_killed_in_mid_episode_loses_nothing(tmp_path: Path) -> None:
    env = fragile_env(4, tmp_path / "marker")
    collect(env, TinyExpert, tmp_path / "ray", 8, 2, progress=False, executor=RAY)
    assert (tmp_path / "marker").exists()  # it was killed; from now on it is not
    collect(env, TinyExpert, tmp_path / "local", 8, progress=False)
    assert files_of(tmp_path / "ray") == files_of(tmp_path / "local")


def test_workers_killed_from_outside_lose_nothing() -> None:
    with RayWorkers(slow_square, 2) as pool:
        results = []
        for index, (seed, result) in enumerate(pool.run(iter(range(12)), ahead=4)):
            results.append((seed, result[0]))
            if index in (3, 6):
                os.kill(result[1], signal.SIGKILL)
    assert results == [(seed, seed**2) for seed in range(12)]


def slow_square() -> Callable[[int], tuple[int, int]]:
    def job(seed: int) -> tuple[int, int]:
        time.sleep(0.05)
        return seed**2, os.getpid()

    return job


def test_a_seed_that_always_kills_its_process_is_named() -> None:
    workers: Executor = lambda setup, n: RayWorkers(setup, n, retries=1)  # noqa: E731 (typed)
    with pytest.raises(EpisodeError, match="seed 3: the worker died 2 times"):
        evaluate(tiny_env(die_on=3), TinyAgent, range(6), 2, progress=False, executor=workers)


def test_an_error_in_an_episode_names_its_seed_and_keeps_its_cause() -> None:
    with pytest.raises(EpisodeError, match=r"seed 3: .*RuntimeError: .*on fire") as caught:
        evaluate(tiny_env(raise_on=3), TinyAgent, range(6), 2, progress=False, executor=RAY)
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_results_in_order_do_not_run_further_ahead_than_allowed() -> None:
    taken: list[int] = []

    def seeds() -> Iterator[int]:
        for seed in range(8):
            taken.append(seed)
            yield seed

    with RayWorkers(uneven, 2) as pool:
        results = []
        for seed, square in pool.run(seeds(), ahead=3):
            results.append((seed, square))
            assert len(taken) - len(results) <= 3
    assert results == [(seed, seed**2) for seed in range(8)]


def test_more_workers_than_cores_use_the_cores_there_are() -> None:
    seeds = list(range(5))
    results = evaluate(tiny_env(), TinyAgent, seeds, workers=4, progress=False, executor=RAY)
    assert [result.seed for result in results] == seeds


def collect_words(path: Path, episodes: int, workers: int) -> list[str]:
    words = ["collect", f"episodes={episodes}", f"workers={workers}", f"dataset.path={path}"]
    return [*words, "executor=ray", "env.kwargs.cameras=[]", "env.kwargs.image_size=1"]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def test_the_command_works_on_a_cluster_that_is_there_already(tmp_path: Path) -> None:
    port = free_port()
    start = ["ray.scripts.scripts", "start", "--head", "--block", f"--port={port}", "--num-cpus=2"]
    command = [sys.executable, "-m", *start, "--include-dashboard=false"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT) as head:
        try:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline and not answers(port):
                time.sleep(0.5)
            words = [*collect_words(tmp_path / "d", 3, 2), f"executor.address=127.0.0.1:{port}"]
            subprocess.run([sys.executable, "-m", "prise", *words], cwd=ROOT, check=True)
            assert head.poll() is None  # a cluster of others outlives us
        finally:
            head.terminate()
    assert open_zarr(tmp_path / "d").num_episodes == 3


def answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_an_address_where_nobody_answers_is_told_at_once(tmp_path: Path) -> None:
    port = free_port()
    words = [*collect_words(tmp_path / "d", 3, 2), f"executor.address=127.0.0.1:{port}"]
    command = [sys.executable, "-m", "prise", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"prise collect: error: no Ray cluster answers at 127.0.0.1:{port}")


def test_a_long_collection_ends_with_ctrl_c_and_leaves_nobody(tmp_path: Path) -> None:
    path = tmp_path / "d"
    process = subprocess.Popen(
        [sys.executable, "-m", "prise", *collect_words(path, 100_000, 1)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (path.exists() and open_zarr(path).num_episodes):
        time.sleep(0.2)
    session = of_session(process.pid)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to everybody
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert told.splitlines()[-1] == "prise collect: error: interrupted."
    assert len(session) > 1
    while time.monotonic() < deadline and of_session(process.pid):
        time.sleep(0.2)
    assert not of_session(process.pid)


def of_session(session: int) -> list[str]:
    listing = subprocess.run(["ps", "-o", "pid=", "-s", str(session)], capture_output=True)
    return listing.stdout.decode().split()
