"""Ticks of an exported policy: what eager torch does, in memory that is made once."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray

from data.build import build
from data.spec import Obs
from deploy.commands.usage import CONFIGS
from deploy.controllers.rti import WARM_STARTS, RTIController
from envs.history import ObsHistory
from policy.diffusion_policy import DiffusionPolicy
from policy.export import export_policy, load_for_acting
from tests.tiny_env import tiny_env
from tests.tiny_policy import TINY_HORIZONS, save_tiny_checkpoint

pytestmark = pytest.mark.apart

DT = 0.1
TICKS = 200
SMALL = 16_000  # [bytes] what Python's own objects of a tick may take at a time
ENGINES = ["onnxruntime", "openvino"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_checkpoint(tmp_path_factory.mktemp("refine") / "last")


@pytest.fixture(scope="module", params=ENGINES)
def policy(request: pytest.FixtureRequest, checkpoint: Path) -> DiffusionPolicy:
    if find_spec(request.param) is None:
        pytest.skip(f"needs the extra with {request.param}")
    backend = build(yaml.safe_load((CONFIGS / f"backend/{request.param}.yaml").read_text()))
    export_policy(checkpoint, backend)
    return load_for_acting(checkpoint, backend)


@pytest.fixture(scope="module")
def observed(policy: DiffusionPolicy) -> list[Obs]:
    env, history = tiny_env()(), ObsHistory(policy.spec, TINY_HORIZONS)
    made = []
    for seed in range(10):
        history.push(env.reset(seed=seed)[0])
        made.append(history.windowed())
    return made


def ticks(controller: RTIController, observed: list[Obs], count: int) -> list[NDArray[np.float64]]:
    return [
        controller.update(observed[tick % len(observed)], tick * DT).actions
        for tick in range(count)
    ]


@pytest.mark.parametrize("warm_start", sorted(WARM_STARTS))
def test_ticks_are_those_of_eager_torch(
    checkpoint: Path, policy: DiffusionPolicy, observed: list[Obs], warm_start: str
) -> None:
    chunks = []
    for acting in (load_for_acting(checkpoint), policy):
        controller = RTIController(acting, start_level=0.5, warm_start=warm_start, cold_steps=2)
        controller.reset(seed=3)
        chunks.append(ticks(controller, observed, 30))
        assert controller.last_nfe == 1
    np.testing.assert_allclose(chunks[0], chunks[1], atol=1e-5)


def test_time_between_ticks_shifts_the_plan_as_in_eager_torch(
    checkpoint: Path, policy: DiffusionPolicy, observed: list[Obs]
) -> None:
    chunks = []
    for acting in (load_for_acting(checkpoint), policy):
        controller = RTIController(acting, cold_steps=2)
        stamps = [0.0, 0.13, 0.2, 0.45, 0.45 + TINY_HORIZONS.pred * DT]
        chunks.append([controller.update(observed[0], stamp).actions for stamp in stamps])
        assert controller.last_nfe == 2  # the last plan had run out
    np.testing.assert_allclose(chunks[0], chunks[1], atol=1e-5)


def test_a_chunk_stays_as_it_was_after_the_next_tick(
    policy: DiffusionPolicy, observed: list[Obs]
) -> None:
    controller = RTIController(policy, cold_steps=2)
    ticks(controller, observed, 2)
    chunk = controller.update(observed[3], 2 * DT)
    kept = chunk.actions.copy()
    controller.update(observed[7], 3 * DT)
    np.testing.assert_array_equal(chunk.actions, kept)


def test_ticks_do_not_allocate_python_memory(policy: DiffusionPolicy, observed: list[Obs]) -> None:
    controller = RTIController(policy, cold_steps=2)
    gc.collect()
    tracemalloc.start()
    try:
        for tick in range(2 * TICKS):
            if tick == TICKS:  # numpy and Python keep some freed blocks by then
                before = tracemalloc.get_traced_memory()[0]
                tracemalloc.reset_peak()
            controller.update(observed[tick % len(observed)], tick * DT)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 1000  # no growth: less than five bytes a tick
    assert peak - before < SMALL


def test_ticks_do_not_allocate_tensors(policy: DiffusionPolicy, observed: list[Obs]) -> None:
    controller = RTIController(policy, cold_steps=2)
    ticks(controller, observed, 5)
    assert allocations(lambda: torch.ones(3) + 1) > 0  # the counter counts

    def tick() -> None:
        for number, obs in enumerate(observed, start=5):
            controller.update(obs, number * DT)

    assert allocations(tick) == 0


def allocations(work: Callable[[], object]) -> int:
    """Blocks that torch's CPU allocator gave while `work` ran."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        work()
    events = profile.profiler.kineto_results.events()
    return sum(e.name() == "[memory]" and e.nbytes() > 0 for e in events)
