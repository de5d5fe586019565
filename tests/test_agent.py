"""The lock-step agent: which chunk is used when, and the same in every process."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from data.spec import DataSpec, Horizons, Obs, SpecError
from deploy.agent import AgentFactory, LockstepAgent
from deploy.chunk import ActionChunk
from deploy.controllers.base import NO_COST
from deploy.robot_io import STAND_STILL
from envs.evaluate import evaluate, run_episode
from tests.tiny_env import TINY_SPEC, tiny_env
from tests.tiny_policy import save_tiny_checkpoint

DT = 0.1
HORIZONS = Horizons(obs=2, pred=8, window=16)
RTI = {"_target_": "deploy.controllers.rti.RTIController", "cold_steps": 3}
COLD = {
    "_target_": "deploy.controllers.cold.ColdController",
    "num_steps": 2,
    "exec_horizon": 4,
}


class StampingController:
    """Its actions say which tick they are for (dx) and which tick's observation they saw (dy)."""

    spec: DataSpec = TINY_SPEC

    def __init__(self) -> None:
        self.reset()

    def reset(self, seed: int = 0) -> None:
        self.last_nfe, self.last_seconds = 1, dict(NO_COST)
        self._updates = 0

    def update(self, obs: Obs, stamp: float, delay: float = 0.0) -> ActionChunk:
        actions = np.tile(STAND_STILL, (8, 1))
        actions[:, 0] = round(stamp / DT) + np.arange(8)
        actions[:, 1] = self._updates
        self._updates += 1
        return ActionChunk(actions, stamp, DT)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "best")


@pytest.mark.parametrize("delay", [0, 1, 3])
def test_a_chunk_is_used_delay_ticks_after_its_observation_and_in_absolute_time(
    delay: int,
) -> None:
    agent = LockstepAgent(StampingController(), TINY_SPEC, HORIZONS, delay)
    obs = tiny_env()().reset(seed=0)[0]
    for tick in range(20):
        action = agent.act(obs, tick * DT)
        if tick < delay:
            np.testing.assert_array_equal(action, STAND_STILL)
        else:
            assert action[0] == tick
            assert action[1] == tick - delay


def test_reset_forgets_chunks_that_are_still_coming() -> None:
    agent = LockstepAgent(StampingController(), TINY_SPEC, HORIZONS, delay=2)
    obs = tiny_env()().reset(seed=0)[0]
    for tick in range(5):
        agent.act(obs, tick * DT)
    agent.reset(1)
    np.testing.assert_array_equal(agent.act(obs, 0.0), STAND_STILL)
    assert len(agent.stats()["nfe"]) == 1


def test_a_bad_observation_is_refused_with_its_key() -> None:
    agent = LockstepAgent(StampingController(), TINY_SPEC, HORIZONS)
    obs = tiny_env()().reset(seed=0)[0]
    with pytest.raises(SpecError, match="'goal' holds NaN"):
        agent.act({**obs, "goal": np.full(2, np.nan, np.float32)}, 0.0)
    with pytest.raises(SpecError, match="'rgb' came as"):
        agent.act({**obs, "rgb": np.zeros((4, 4, 3), np.uint8)}, 0.0)


def test_a_negative_delay_is_refused() -> None:
    with pytest.raises(ValueError, match="delay"):
        LockstepAgent(StampingController(), TINY_SPEC, HORIZONS, delay=-1)


@pytest.mark.parametrize(("config", "nfe"), [(RTI, [3, 1, 1, 1, 1]), (COLD, [2, 0, 0, 0, 2])])
def test_stats_have_one_entry_a_tick_without_warm_ups(
    checkpoint: Path, config: dict[str, object], nfe: list[int]
) -> None:
    agent = AgentFactory(checkpoint, config)()
    result = run_episode(tiny_env()(), agent, 0)
    stats = result.agent_stats
    assert {len(values) for values in stats.values()} == {result.ticks}
    assert stats["nfe"][:5] == nfe
    assert stats["is_plan"] == [float(n > 0) for n in stats["nfe"]]
    for whole, encode, solve in zip(
        stats["tick_s"], stats["encode_s"], stats["solve_s"], strict=True
    ):
        assert whole >= encode + solve >= 0


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0, 2])
def test_an_episode_is_the_same_in_this_process_and_in_a_worker(
    checkpoint: Path, delay: int
) -> None:
    factory = AgentFactory(checkpoint, RTI, delay=delay)
    here = run_episode(tiny_env()(), factory(), 4, record=True)
    (there,) = evaluate(tiny_env(), factory, [4], progress=False, record=1)
    assert here.trace is not None
    assert there.trace is not None
    np.testing.assert_allclose(here.trace["action"], there.trace["action"], atol=1e-6)
    assert here.outcome == there.outcome


def test_episodes_do_not_depend_on_those_before_them(checkpoint: Path) -> None:
    agent, env = AgentFactory(checkpoint, RTI)(), tiny_env()()
    first = run_episode(env, agent, 7, record=True)
    run_episode(env, agent, 8)
    again = run_episode(env, agent, 7, record=True)
    assert first.trace is not None
    assert again.trace is not None
    np.testing.assert_array_equal(first.trace["action"], again.trace["action"])


def test_a_factory_survives_pickling(checkpoint: Path) -> None:
    factory = AgentFactory(checkpoint, RTI, delay=1)
    # multiprocessing sends it this way; nothing is ever read from a file like this.
    assert pickle.loads(pickle.dumps(factory)) == factory  # noqa: S301
