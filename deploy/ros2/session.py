"""Episodes over the wire: a policy node and a simulated robot as processes, and this referee."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from deploy.ros2.process import Child
from deploy.ros2.referee import Referee, WireError
from deploy.ros2.wire import LOCAL_WIRE, environment, free_domain_id

START_TIMEOUT = 120.0  # [s]; importing torch on a busy machine takes a while
EPISODE_TIMEOUT = 60.0
ENABLE_TIMEOUT = 5.0


@dataclass(frozen=True)
class WireEpisode:
    """One episode: the robot's report and the policy node's `RunStats`."""

    seed: int
    success: bool
    outcome: str
    metrics: dict[str, float]
    lag_ms_max: float
    latency_s: list[float]
    update_s: list[float]
    nfe: list[int]
    deadline_misses: int
    holds: dict[str, int] = field(default_factory=dict)
    sensors: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class SessionResult:
    """All episodes of a session, and the folder with its logs and JSON."""

    episodes: list[WireEpisode]
    out: Path
    minutes: float

    @property
    def successes(self) -> list[bool]:
        """Outcome of each episode."""
        return [episode.success for episode in self.episodes]

    @property
    def deadline_misses(self) -> int:
        """Plans that reached the robot later than a tick after their observation."""
        return sum(episode.deadline_misses for episode in self.episodes)

    def latency_ms(self, percentile: float) -> float:
        """Observation stamp to command published [ms]."""
        latency = np.concatenate([episode.latency_s for episode in self.episodes])
        return float(1000 * np.percentile(latency, percentile)) if latency.size else float("nan")


@dataclass(frozen=True)
class SessionConfig:
    """What to run: plain dicts as they stand in `configs/`; None is the default of the robot."""

    checkpoint: Path
    controller: Mapping[str, Any]
    env: Mapping[str, Any]
    policy_robot: Mapping[str, Any]
    sim_robot: Mapping[str, Any]
    episodes: int = 10
    seed0: int = 0


def run_session(config: SessionConfig, out: Path, progress: bool = True) -> SessionResult:
    """Run the episodes and write `session.json`, both configs and both logs into `out`.

    Raises ProcessDiedError with the end of its log if a node dies, WireError if one does not
    answer. Both processes are stopped on every way out.
    """
    if config.episodes < 1:
        raise ValueError(f"episodes must be at least 1, got {config.episodes}.")
    out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    domain_id = free_domain_id()
    variables = {**LOCAL_WIRE, "ROS_DOMAIN_ID": str(domain_id), "ROS_LOG_DIR": str(out / "ros")}
    with ExitStack() as stack:
        children = []
        for name, node_config in node_configs(config).items():
            child = start_node(name, node_config, out, variables)
            stack.callback(child.stop)
            children.append(child)
        stack.enter_context(environment(variables))
        referee = stack.enter_context(Referee.open(domain_id, children))
        referee.wait_until_ready(START_TIMEOUT)
        bar = tqdm(range(config.episodes), desc="ROS 2", unit="episode", disable=not progress)
        episodes = [_episode(referee, config.seed0 + index) for index in bar]
    result = SessionResult(episodes, out, (time.monotonic() - started) / 60)
    _write(result)
    return result


def node_configs(config: SessionConfig) -> dict[str, dict[str, Any]]:
    """The config of each of the two processes, by name."""
    return {
        "sim_node": {
            "robot": dict(config.sim_robot),
            "env": dict(config.env),
            "episodes": config.episodes,
            "seed0": config.seed0,
        },
        "policy_node": {
            "robot": dict(config.policy_robot),
            "checkpoint": str(config.checkpoint),
            "controller": dict(config.controller),
        },
    }


def start_node(name: str, config: dict[str, Any], out: Path, variables: Mapping[str, str]) -> Child:
    """A node's process; its config and log are `out/NAME.json` and `out/NAME.log`."""
    path = out / f"{name}.json"
    path.write_text(json.dumps(config, indent=1))
    arguments = ["deploy.ros2.commands", str(path), "--with-parent"]
    return Child(name, arguments, out / f"{name}.log", variables)


def _episode(referee: Referee, seed: int) -> WireEpisode:
    """Reset both, enable, wait for the robot's verdict, disable."""
    referee.reset(seed)
    referee.enable(ENABLE_TIMEOUT)
    report = referee.verdict(seed, EPISODE_TIMEOUT)
    stats = referee.disable()
    return WireEpisode(
        seed=seed,
        success=report["success"],
        outcome=report["outcome"],
        metrics=report["metrics"],
        lag_ms_max=report["lag_ms_max"],
        latency_s=stats["latency_s"],
        update_s=stats["update_s"],
        nfe=stats["nfe"],
        deadline_misses=stats["misses"] + stats["superseded"],
        holds=stats["holds"],
        sensors=stats["sensors"],
    )


def _write(result: SessionResult) -> None:
    content = {
        "minutes": result.minutes,
        "deadline_misses": result.deadline_misses,
        "episodes": [asdict(episode) for episode in result.episodes],
    }
    beside = result.out / ".session.json.new"
    beside.write_text(json.dumps(content, indent=1))
    beside.replace(result.out / "session.json")


__all__ = ["SessionConfig", "SessionResult", "WireEpisode", "WireError", "run_session"]
