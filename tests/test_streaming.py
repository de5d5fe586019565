"""Streaming: what the buffer keeps, what it costs, and that what comes out is what was learnt."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from data.spec import Obs
from deploy.agent import LockstepAgent
from deploy.chunk import ActionChunk
from deploy.controllers.streaming import Buffer, StreamingController
from envs.history import ObsHistory
from policy.diffusion_policy import DiffusionPolicy
from policy.level_plan import PrefixLevels, RisingLevels
from policy.schedule import CosineSchedule
from tests.gaussian_policy import MEMORY, OBS, SPREAD, gaussian_policy
from tests.tiny_env import tiny_env
from tests.tiny_policy import TINY_HORIZONS, tiny_policy

DT, TP = 0.1, TINY_HORIZONS.pred


@pytest.fixture(scope="module")
def policy() -> DiffusionPolicy:
    policy = tiny_policy()
    policy.levels = RisingLevels(2, max_delay=4)
    return policy


@pytest.fixture(scope="module")
def obs(policy: DiffusionPolicy) -> Obs:
    history = ObsHistory(policy.spec, TINY_HORIZONS)
    history.push(tiny_env()().reset(seed=0)[0])
    return history.windowed()


def levels_of(controller: StreamingController) -> list[float]:
    assert controller._buffer is not None
    return list(controller._buffer.levels)


def test_a_tick_rolls_by_a_block_and_makes_the_first_one_clean(
    policy: DiffusionPolicy, obs: Obs
) -> None:
    controller = StreamingController(policy, nfe=3, exec_horizon=2)
    nfe = []
    for tick in range(0, 8, 2):
        controller.update(obs, tick * DT)
        nfe.append(controller.last_nfe)
        assert levels_of(controller) == [0, 0, 0.25, 0.25, 0.5, 0.5, 0.75, 0.75]
    assert nfe == [12, 3, 3, 3]  # from noise alone all four blocks are on their way


def test_the_buffer_is_kept_but_for_what_time_has_taken(policy: DiffusionPolicy, obs: Obs) -> None:
    controller = StreamingController(policy)
    controller.update(obs, 0.0)
    before = controller._buffer
    assert before is not None
    rolled = controller._rolled_to(2 * DT)
    assert torch.equal(rolled.x[:, :-2], before.x[:, 2:])
    assert rolled.levels == (0.25, 0.25, 0.5, 0.5, 0.75, 0.75, 1.0, 1.0)


@pytest.mark.parametrize(("ticks", "nfe"), [(1, 1), (2, 1), (3, 2), (4, 2), (7, 4), (8, 4)])
def test_evaluations_follow_the_time_that_has_passed(
    policy: DiffusionPolicy, obs: Obs, ticks: int, nfe: int
) -> None:
    controller = StreamingController(policy)
    controller.update(obs, 5.0)
    chunk = controller.update(obs, 5.0 + ticks * DT)
    assert controller.last_nfe == nfe
    assert chunk.t0 == 5.0 + ticks * DT
    assert levels_of(controller) == [0, 0, 0.25, 0.25, 0.5, 0.5, 0.75, 0.75]


def test_between_plans_the_last_one_goes_on_at_no_cost(policy: DiffusionPolicy, obs: Obs) -> None:
    controller = StreamingController(policy, exec_horizon=2)
    first = controller.update(obs, 0.0)
    assert controller.update(obs, DT) is first
    assert controller.last_nfe == 0
    assert controller.update(obs, 2 * DT) is not first


@pytest.mark.parametrize("delay", [1, 2, 3, 4])
@pytest.mark.parametrize("exec_horizon", [1, 2])
def test_with_a_delay_every_executed_action_is_clean_and_then_kept(
    policy: DiffusionPolicy, obs: Obs, delay: int, exec_horizon: int
) -> None:
    controller = StreamingController(policy, exec_horizon=exec_horizon)
    agent = LockstepAgent(controller, policy.spec, policy.horizons, delay)
    raw, _ = tiny_env()().reset(seed=0)
    chunks: list[ActionChunk] = []
    levels: list[list[float]] = []
    executed: list[NDArray[np.float32]] = []
    for tick in range(16):
        executed.append(agent.act(raw, tick * DT))
        assert controller._chunk is not None
        chunks.append(controller._chunk)
        levels.append(levels_of(controller))
    for tick in range(2 * delay, 12, exec_horizon):
        if chunks[tick].t0 != pytest.approx(tick * DT):
            continue  # no plan was made at this tick
        assert set(levels[tick][: delay + exec_horizon]) == {0.0}
        kept = chunks[tick].actions[: delay + exec_horizon]
        np.testing.assert_allclose(
            kept, np.array(executed[tick : tick + delay + exec_horizon]), atol=1e-5
        )


def test_a_steady_delay_costs_no_more_evaluations(policy: DiffusionPolicy, obs: Obs) -> None:
    controller = StreamingController(policy)
    nfe = []
    for tick in range(12):
        controller.update(obs, tick * DT, 4 * DT)
        nfe.append(controller.last_nfe)
    assert nfe[6:] == [1] * 6


def test_a_changing_delay_leaves_levels_that_were_trained(
    policy: DiffusionPolicy, obs: Obs
) -> None:
    controller = StreamingController(policy)
    for tick, delay in enumerate([0, 4, 1, 3, 0, 2, 4, 4, 0]):
        chunk = controller.update(obs, tick * DT, delay * DT)
        assert np.isfinite(chunk.actions).all()
        assert levels_of(controller)[:2] == [0, 0]
        assert np.diff(levels_of(controller)).min() >= 0


def test_reset_empties_the_buffer_and_the_seed_decides_the_noise(
    policy: DiffusionPolicy, obs: Obs
) -> None:
    controller = StreamingController(policy)

    def run(seed: int) -> NDArray[np.float64]:
        controller.reset(seed)
        chunks = [controller.update(obs, tick * DT, DT).actions for tick in range(5)]
        return np.stack(chunks)

    first, again, other = run(1), run(1), run(2)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first[-1], other[-1])
    controller.reset()
    controller.update(obs, 0.0)
    assert controller.last_nfe == 4


def streamed(delay: int, nfe: int, exec_horizon: int, ticks: int = 1200) -> NDArray[np.float64]:
    """Actions executed by a stream of Gaussian chunks."""
    policy = gaussian_policy(levels=RisingLevels(2, max_delay=4))
    controller = StreamingController(policy, nfe=nfe, exec_horizon=exec_horizon)
    agent = LockstepAgent(controller, policy.spec, policy.horizons, delay)
    raw = {"pose": OBS["pose"][0]}
    return np.array([agent.act(raw, tick * DT)[0] for tick in range(ticks)])[20:]


def correlation(pairs: NDArray[np.float64]) -> float:
    return float(np.corrcoef(pairs[:, 0], pairs[:, 1])[0, 1])


@pytest.mark.slow
@pytest.mark.parametrize(("delay", "exec_horizon"), [(0, 2), (2, 2), (0, 1), (4, 1)])
def test_a_stream_of_gaussian_chunks_is_distributed_as_cold_ones(
    delay: int, exec_horizon: int
) -> None:
    actions = streamed(delay, nfe=8, exec_horizon=exec_horizon)
    assert actions.mean() == pytest.approx(0, abs=0.15)
    assert actions.std() == pytest.approx(SPREAD, rel=0.15)


@pytest.mark.slow
def test_actions_of_a_block_belong_together() -> None:
    blocks = streamed(0, nfe=8, exec_horizon=2).reshape(-1, 2)
    assert correlation(blocks) == pytest.approx(MEMORY, abs=0.1)


@pytest.mark.slow
def test_frozen_actions_hold_the_stream_together() -> None:
    # What is clean and not yet executed tells the rest where to go on, exactly.
    blocks = streamed(2, nfe=8, exec_horizon=2)[1:-1].reshape(-1, 2)  # across the boundary
    assert correlation(blocks) == pytest.approx(MEMORY, abs=0.1)
    without = streamed(0, nfe=8, exec_horizon=2)[1:-1].reshape(-1, 2)
    assert 0.2 < correlation(without) < correlation(blocks)


def test_raising_a_buffer_touches_only_what_must_rise() -> None:
    x = torch.randn(1, 4, 1, generator=torch.Generator().manual_seed(0))
    buffer = Buffer(x, x, (0.0, 0.25, 0.25, 0.5))
    generator = torch.Generator().manual_seed(1)
    raised = buffer.raised((0.25, 0.25, 0.5, 0.5), CosineSchedule(), generator)
    assert torch.equal(raised.x[:, [1, 3]], x[:, [1, 3]])
    assert not torch.equal(raised.x[:, [0, 2]], x[:, [0, 2]])
    assert raised.levels == (0.25, 0.25, 0.5, 0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"exec_horizon": 3}, r"exec_horizon 3 must be in 1..2, the actions of a block"),
        ({"nfe": 26}, r"nfe 26 must be in 1..25: 4 blocks share 100 levels"),
        ({"nfe": 0}, r"nfe 0 must be in 1..25"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_once(
    policy: DiffusionPolicy, options: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        StreamingController(policy, **options)  # type: ignore[arg-type]  # of ints, all of them


def test_a_policy_that_was_trained_otherwise_is_refused() -> None:
    with pytest.raises(ValueError, match=r"trained with levels=rising, .* with levels=constant"):
        StreamingController(tiny_policy())
    with pytest.raises(ValueError, match=r"trained with levels=rising, .* with levels=prefix"):
        StreamingController(gaussian_policy(levels=PrefixLevels()))
