"""`prise deploy robot=ros2` and `robot=sim_ros2`; also `python -m deploy.ros2.commands FILE`."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data.build import build
from deploy.garbage import freeze_garbage_collector
from deploy.placement import pinned
from deploy.ros2.settings import PolicyNodeSettings, SimNodeSettings
from deploy.ros2.wire import ros_context, take_realtime_priority

log = logging.getLogger(__name__)
BAD_INPUT = 2


def run(config: Mapping[str, Any]) -> int:
    """Run the node that `config["robot"]` describes, until Ctrl-C or SIGTERM; exit status 0."""
    robot = build(config["robot"])
    if isinstance(robot, PolicyNodeSettings):
        _run_policy_node(config, robot)
    elif isinstance(robot, SimNodeSettings):
        _run_sim_node(config, robot)
    else:
        raise ValueError(f"robot {config['robot']} is no ROS 2 node; use robot=ros2 or sim_ros2.")
    return 0


def run_policy_node(config: Mapping[str, Any]) -> None:
    """Run the policy node: keys `checkpoint`, `controller`, `robot`."""
    _run_policy_node(config, _settings(config, PolicyNodeSettings))


def run_sim_node(config: Mapping[str, Any]) -> None:
    """Run the simulated robot: keys `env`, `episodes`, `seed0`, `robot`."""
    _run_sim_node(config, _settings(config, SimNodeSettings))


def _settings(config: Mapping[str, Any], kind: type[Any]) -> Any:
    settings = build(config["robot"])
    if not isinstance(settings, kind):
        raise ValueError(f"robot must be a {kind.__name__}, got {config['robot']}.")
    return settings


def _run_policy_node(config: Mapping[str, Any], settings: PolicyNodeSettings) -> None:
    # Imported here: the simulated robot's process must never load torch, see envs/rendering.py.
    from deploy.agent import AgentFactory
    from deploy.ros2.node import PolicyNode
    from deploy.seam import SeamSettings
    from policy.checkpoint import open_checkpoint

    if config.get("checkpoint") is None:
        raise ValueError("robot=ros2 needs a policy; give checkpoint=PATH.")
    checkpoint = Path(config["checkpoint"])
    # The agent comes warmed up; its controller is all that is needed here.
    make_agent = AgentFactory(
        checkpoint, config["controller"], settings.torch_threads, backend=config.get("backend", {})
    )
    with pinned(settings.pin.plan):
        agent = make_agent()
    take_realtime_priority(settings.realtime_priority)
    with ros_context() as context, stop_signals() as stop:
        node = PolicyNode(
            agent.controller,
            open_checkpoint(checkpoint).horizons,
            settings,
            context,
            str(checkpoint),
            SeamSettings(**config.get("seam", {})),
        )
        freeze_garbage_collector()
        log.info("policy node is ready; nothing moves before ~/enable is called")
        node.run(stop)


def _run_sim_node(config: Mapping[str, Any], settings: SimNodeSettings) -> None:
    from deploy.ros2.sim_node import SimNode
    from deploy.ros2.sim_task import PryTask

    episodes, seed0 = int(config.get("episodes", 10)), int(config.get("seed0", 0))
    if episodes < 1:
        raise ValueError(f"episodes must be at least 1, got {episodes}.")
    task = PryTask(build(config["env"]))
    take_realtime_priority(settings.realtime_priority)
    with ros_context() as context, stop_signals() as stop:
        node = SimNode(task, range(seed0, seed0 + episodes), settings, context)
        freeze_garbage_collector()
        log.info("simulated robot is ready; ~/reset starts seed %d", seed0)
        node.run(stop)


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set; a second Ctrl-C interrupts as usual."""
    stop = threading.Event()

    def on_signal(number: int, _: object) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    before = {
        number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main(arguments: list[str]) -> int:
    """Run the node of a JSON config; with `--with-parent` end when standard input does."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    if "--with-parent" in arguments:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    config_path = Path(next(a for a in arguments if not a.startswith("--")))
    try:
        return run(json.loads(config_path.read_text()))
    except (ValueError, FileNotFoundError) as error:
        sys.stderr.write(f"error: {error}\n")
        return BAD_INPUT


def _end_with_parent() -> None:
    """Standard input is a pipe from the parent: its end means that the parent is gone, however."""
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
