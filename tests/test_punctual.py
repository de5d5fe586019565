"""Updates with a deadline, on a small real policy whose network is held up by the test."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from data.spec import Obs
from deploy.controllers.cold import ColdController
from deploy.controllers.rti import RTIController
from envs.history import ObsHistory
from policy.backends.onnxruntime import OnnxRuntime
from policy.diffusion_policy import DiffusionPolicy
from policy.export import export_policy, load_for_acting
from tests.tiny_env import tiny_env
from tests.tiny_policy import TINY_HORIZONS, save_tiny_checkpoint, tiny_policy

DT = 0.1
AMPLE = 60_000.0  # [ms]


@pytest.fixture(scope="module")
def obs() -> Obs:
    history = ObsHistory(tiny_policy().spec, TINY_HORIZONS)
    history.push(tiny_env()().reset(seed=0)[0])
    return history.windowed()


class Gate:
    """Lets the encoder through when it is open."""

    def __init__(self, policy: DiffusionPolicy, patch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.open.set()
        encode = policy.encode

        def gated(*args: Any) -> Any:
            assert self.open.wait(30), "the test forgot to open the gate"
            return encode(*args)

        patch.setattr(policy, "encode", gated)


@pytest.fixture
def policy() -> DiffusionPolicy:
    return tiny_policy()


@pytest.fixture
def gate(policy: DiffusionPolicy, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate(policy, monkeypatch)
    yield gate
    gate.open.set()


@pytest.mark.parametrize("kind", [ColdController, RTIController])
def test_with_ample_time_a_deadline_changes_nothing(
    policy: DiffusionPolicy, obs: Obs, kind: type[ColdController] | type[RTIController]
) -> None:
    free, timed = kind(policy), kind(policy, deadline_ms=AMPLE)
    for tick in range(10):
        one, two = free.update(obs, tick * DT), timed.update(obs, tick * DT)
        np.testing.assert_array_equal(one.actions, two.actions)
        assert one.t0 == two.t0
        assert free.last_nfe == timed.last_nfe


def ready(controller: RTIController | ColdController) -> None:
    """Wait until the solve under way has ended."""
    punctual = controller._punctual
    assert punctual is not None
    assert punctual._solving is not None
    punctual._solving.exception(timeout=30)


def test_the_old_chunk_goes_on_and_the_new_one_counts_from_its_observation(
    policy: DiffusionPolicy, obs: Obs, gate: Gate
) -> None:
    controller = RTIController(policy, cold_steps=2, deadline_ms=AMPLE)
    first = controller.update(obs, 0.0)
    controller._punctual._budget.deadline = 1e-3  # type: ignore[union-attr]
    gate.open.clear()
    assert controller.update(obs, DT) is first
    assert controller.last_nfe == 0
    assert controller.update(obs, 2 * DT) is first
    gate.open.set()
    ready(controller)
    controller._punctual._budget.deadline = AMPLE  # type: ignore[union-attr]
    gate.open.clear()
    threading.Timer(0.2, gate.open.set).start()
    newest = controller.update(obs, 3 * DT)
    # It takes the chunk of 0.1 s, begins the next one at once, and has time enough to wait for it.
    assert newest.t0 == 3 * DT
    assert controller.last_nfe == 2


def test_before_the_first_plan_the_tool_stands_still(
    policy: DiffusionPolicy, obs: Obs, gate: Gate
) -> None:
    gate.open.clear()
    controller = RTIController(policy, deadline_ms=1.0)
    np.testing.assert_array_equal(controller.update(obs, 0.0).actions[0], policy.spec.action.still)
    gate.open.set()
    ready(controller)
    assert controller.update(obs, DT).t0 == 0.0 or controller.last_nfe > 1


def test_reset_forgets_the_solve_under_way_and_the_seed_decides_the_noise(
    policy: DiffusionPolicy, obs: Obs
) -> None:
    controller = RTIController(policy, deadline_ms=1e-3)
    controller.update(obs, 0.0)
    controller.reset(3)
    controller._punctual._budget.deadline = AMPLE  # type: ignore[union-attr]
    plain = RTIController(policy)
    plain.reset(3)
    np.testing.assert_array_equal(controller.update(obs, DT).actions, plain.update(obs, DT).actions)


def test_a_cold_controller_plans_only_when_its_chunk_is_used_up(
    policy: DiffusionPolicy, obs: Obs
) -> None:
    controller = ColdController(policy, num_steps=2, exec_horizon=3, deadline_ms=AMPLE)
    nfe = []
    for tick in range(7):
        controller.update(obs, tick * DT)
        nfe.append(controller.last_nfe)
    assert nfe == [2, 0, 0, 2, 0, 0, 2]


def test_an_error_in_the_background_surfaces_in_the_update(
    policy: DiffusionPolicy, obs: Obs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any) -> Any:
        raise ArithmeticError("the network has diverged")

    monkeypatch.setattr(policy, "encode", broken)
    with pytest.raises(ArithmeticError, match="diverged"):
        RTIController(policy, deadline_ms=AMPLE).update(obs, 0.0)


@pytest.mark.parametrize("deadline", [0.0, -1.0, "soon", True])
def test_a_deadline_that_is_none_is_refused(policy: DiffusionPolicy, deadline: Any) -> None:
    with pytest.raises(ValueError, match="deadline_ms"):
        RTIController(policy, deadline_ms=deadline)


@pytest.mark.apart
def test_exported_networks_keep_deadlines_too(tmp_path: Any, obs: Obs) -> None:
    checkpoint = save_tiny_checkpoint(tmp_path / "last")
    export_policy(checkpoint, OnnxRuntime())
    policy = load_for_acting(checkpoint, OnnxRuntime(), 1)
    free, timed = RTIController(policy), RTIController(policy, deadline_ms=AMPLE)
    for tick in range(4):
        one = free.update(obs, tick * DT).actions.copy()
        np.testing.assert_array_equal(one, timed.update(obs, tick * DT).actions)
