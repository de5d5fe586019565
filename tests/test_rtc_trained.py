"""Training-time real-time chunking: chunks go on from what is executed while they are made."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from data.spec import Obs
from deploy.agent import LockstepAgent
from deploy.chunk import ActionChunk
from deploy.controllers.rtc_trained import TrainedRTCController
from deploy.controllers.rti import RTIController
from envs.history import ObsHistory
from policy.backends.base import ExportedDenoiser
from policy.diffusion_policy import DiffusionPolicy
from policy.level_plan import PrefixLevels, RisingLevels
from tests.gaussian_policy import MEMORY, OBS, SPREAD, gaussian_policy
from tests.tiny_env import tiny_env
from tests.tiny_policy import TINY_HORIZONS, tiny_policy

DT, TP = 0.1, TINY_HORIZONS.pred


@pytest.fixture(scope="module")
def policy() -> DiffusionPolicy:
    policy = tiny_policy()
    policy.levels = PrefixLevels(4)
    return policy


@pytest.fixture(scope="module")
def obs(policy: DiffusionPolicy) -> Obs:
    history = ObsHistory(policy.spec, TINY_HORIZONS)
    history.push(tiny_env()().reset(seed=0)[0])
    return history.windowed()


def run(
    controller: TrainedRTCController, obs: Obs, ticks: int, delay: float, seed: int = 0
) -> list[ActionChunk]:
    controller.reset(seed)
    return [controller.update(obs, tick * DT, delay) for tick in range(ticks)]


@pytest.mark.parametrize("start_level", [1.0, 0.8])
@pytest.mark.parametrize("delay", [1, 2, 4])
def test_a_chunk_begins_with_what_is_executed_until_it_comes_into_force(
    policy: DiffusionPolicy, obs: Obs, delay: int, start_level: float
) -> None:
    controller = TrainedRTCController(policy, nfe=2, start_level=start_level)
    chunks = run(controller, obs, 12, delay * DT)
    for tick in range(delay, 12):  # before, no chunk was in force
        executed = [chunks[tick + i - delay].actions[delay] for i in range(delay)]
        np.testing.assert_allclose(chunks[tick].actions[:delay], executed, atol=1e-5)
    assert not np.allclose(chunks[0].actions[:delay], chunks[1].actions[:delay], atol=1e-5)


def test_the_agent_executes_what_the_prefix_says(policy: DiffusionPolicy) -> None:
    controller = TrainedRTCController(policy, nfe=2)
    agent = LockstepAgent(controller, policy.spec, policy.horizons, delay=3)
    env = tiny_env()()
    raw, _ = env.reset(seed=0)
    chunks: list[ActionChunk] = []
    executed: list[NDArray[np.float32]] = []
    for tick in range(10):
        executed.append(agent.act(raw, tick * DT))
        assert controller._chunk is not None
        chunks.append(controller._chunk)
    for tick in range(3, 7):
        np.testing.assert_allclose(
            chunks[tick].actions[:3], np.array(executed[tick : tick + 3]), atol=1e-5
        )


def test_a_delay_between_ticks_is_rounded_up(policy: DiffusionPolicy, obs: Obs) -> None:
    controller = TrainedRTCController(policy)
    chunks = [controller.update(obs, tick * DT, 0.0) for tick in range(2)]
    chunks.append(controller.update(obs, 2 * DT, 1.2 * DT))
    np.testing.assert_allclose(chunks[2].actions[:2], chunks[1].actions[1:3], atol=1e-5)
    assert not np.allclose(chunks[2].actions[2], chunks[1].actions[3], atol=1e-5)


def test_without_a_delay_it_is_real_time_iteration(policy: DiffusionPolicy, obs: Obs) -> None:
    ours = TrainedRTCController(policy, nfe=2, start_level=0.6, cold_steps=5)
    rti = RTIController(policy, nfe=2, start_level=0.6, cold_steps=5)
    rti.reset(3)
    chunks = run(ours, obs, 3, 0.0, seed=3)
    for tick, chunk in enumerate(chunks):
        wanted = rti.update(obs, tick * DT).actions
        np.testing.assert_allclose(chunk.actions, wanted, atol=1e-5)


def test_a_delay_beyond_the_trained_one_keeps_the_trained_prefix_and_warns(
    policy: DiffusionPolicy, obs: Obs, caplog: pytest.LogCaptureFixture
) -> None:
    controller = TrainedRTCController(policy, nfe=2)
    with caplog.at_level(logging.WARNING):
        chunks = run(controller, obs, 12, 6 * DT)
    executed = [chunks[4 + i].actions[6] for i in range(6)]  # at ticks 10 to 15
    np.testing.assert_allclose(chunks[10].actions[:4], executed[:4], atol=1e-5)
    assert not np.allclose(chunks[10].actions[4], executed[4], atol=1e-5)
    assert "6 ticks is beyond the 4 that the policy was trained for" in caplog.text


def test_it_plans_every_exec_horizon_and_is_cold_after_its_plan_has_run_out(
    policy: DiffusionPolicy, obs: Obs
) -> None:
    controller = TrainedRTCController(policy, nfe=2, cold_steps=5, exec_horizon=3)
    nfe = []
    for tick in (0, 1, 2, 3, 6, 6 + TP):
        controller.update(obs, tick * DT)
        nfe.append(controller.last_nfe)
    assert nfe == [5, 0, 0, 2, 2, 5]


def test_reset_forgets_everything_and_the_seed_decides_the_noise(
    policy: DiffusionPolicy, obs: Obs
) -> None:
    controller = TrainedRTCController(policy, nfe=2)
    first, again, other = (run(controller, obs, 6, 2 * DT, seed) for seed in (1, 1, 2))
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.actions, two.actions)
    assert not np.array_equal(first[-1].actions, other[-1].actions)


def test_gaussian_plans_made_late_join_as_those_made_in_time() -> None:
    # Two ticks late, each plan goes on from what was executed: the joint between the last action
    # of the old plan and the first of the new one must look like any other pair of actions.
    policy = gaussian_policy(levels=PrefixLevels(4))
    controller = TrainedRTCController(policy, nfe=20, cold_steps=20, exec_horizon=2)
    controller.reset(0)
    joints, free = [], []
    last = None
    for tick in range(0, 400, 2):
        chunk = controller.update(OBS, tick * DT, 2 * DT)
        if last is not None and tick > 2:
            joints.append((last.actions[3, 0], chunk.actions[2, 0]))
        free.append(chunk.actions[2:4, 0])
        last = chunk
    step = np.diff(joints, axis=1)
    expected = SPREAD * np.sqrt(2 * (1 - MEMORY))
    assert step.std() == pytest.approx(expected, rel=0.25)
    assert np.std(free) == pytest.approx(SPREAD, rel=0.35)
    # Without the prefix the joint is between strangers.
    assert step.std() < 0.6 * SPREAD * np.sqrt(2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"exec_horizon": 9}, r"exec_horizon 9 must be in 1..8, the actions the policy predicts"),
        ({"exec_horizon": 0}, r"exec_horizon 0 must be in 1..8"),
        ({"nfe": 0}, "0 steps from level 1.0"),
        ({"start_level": 1.2}, r"level 1.2 wanted; the level must be in \(0, 1\]"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_once(
    policy: DiffusionPolicy, options: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        TrainedRTCController(policy, **options)  # type: ignore[arg-type]  # wrong on purpose


def test_a_policy_that_was_trained_otherwise_is_refused() -> None:
    with pytest.raises(ValueError, match=r"trained with levels=prefix, .* with levels=constant"):
        TrainedRTCController(tiny_policy())
    with pytest.raises(ValueError, match=r"trained with levels=prefix, .* with levels=rising"):
        TrainedRTCController(gaussian_policy(levels=RisingLevels()))


def test_an_exported_policy_is_refused() -> None:
    policy = gaussian_policy(levels=PrefixLevels())

    def graph(*inputs: torch.Tensor) -> torch.Tensor:
        raise AssertionError("never run")

    policy.denoiser = ExportedDenoiser(graph, graph)
    with pytest.raises(ValueError, match="use backend=eager"):
        TrainedRTCController(policy)
