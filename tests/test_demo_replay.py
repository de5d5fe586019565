"""Episodes of the demo's evaluation are chosen to teach, and repeated exactly or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.demo.replay import Recorded, choose, replay
from envs.base import EnvFactory
from envs.evaluate import ending
from envs.pry.expert import PryExpert


def _recorded(obs: str, seed: int, outcome: str) -> Recorded:
    return Recorded(obs, "rti", seed, outcome == "success", outcome, {}, [])


def _arms(first: str, second: str) -> dict[tuple[str, str], list[Recorded]]:
    letters = {"s": "success", "o": "over_travel", "p": "premature_stop"}
    return {
        (obs, "rti"): [_recorded(obs, seed, letters[c]) for seed, c in enumerate(outcomes)]
        for obs, outcomes in (("vision_force", first), ("vision", second))
    }


@pytest.mark.parametrize(
    ("first", "second", "chosen"),
    [
        # The most frequent failure of the second arm where the first one succeeds.
        ("osss", "opoo", ["vision_force 2 success", "vision 2 over_travel", "vision_force 0"]),
        ("ss", "ss", ["vision_force 0 success"]),
        ("oo", "os", ["vision 1 success", "vision_force 0 over_travel", "vision_force 1"]),
        ("pp", "pp", ["vision_force 0 premature_stop", "vision_force 1"]),
    ],
)
def test_what_teaches_most_is_shown(first: str, second: str, chosen: list[str]) -> None:
    shown = [f"{e.obs} {e.seed} {e.outcome}" for _, e in choose(_arms(first, second))]
    assert len(shown) == len(chosen)
    assert all(s.startswith(c) for s, c in zip(shown, chosen, strict=True))


@pytest.mark.slow
def test_replay_repeats_the_episode_and_refuses_another_ending(tmp_path: Path) -> None:
    kwargs = {"image_size": 32, "cameras": ["wrist", "scene"], "split": "train"}
    env = {"id": "Prise/Pry-v0", "kwargs": kwargs}
    episode = _expert_episode(env, seed=7)
    replay(episode, env, tmp_path / "good")
    trace = json.loads((tmp_path / "good.json").read_text())
    events = trace["events"]
    assert events["contact"] < events["release"] < events["end"]
    assert events["end"] == len(episode.actions) / 10
    assert max(trace["force"]) == pytest.approx(episode.metrics["peak_force_n"], rel=0.2)
    assert (tmp_path / "good.mp4").stat().st_size > 1000
    other = Recorded(**{**vars(episode), "outcome": "over_travel"})
    with pytest.raises(ValueError, match="seed 7 ended with success"):
        replay(other, env, tmp_path / "other")
    assert not (tmp_path / "other.mp4").exists()


def _expert_episode(env: dict[str, Any], seed: int) -> Recorded:
    """Made without cameras, as they must not matter."""
    simulated = EnvFactory(env["id"], {**env["kwargs"], "cameras": []})()
    expert = PryExpert()
    obs, info = simulated.reset(seed=seed)
    expert.reset(seed)
    actions: list[list[float]] = []
    over = False
    while not over:
        action = np.asarray(expert.act(obs, info).to_execute, np.float32)
        actions.append(action.tolist())
        obs, _, terminated, truncated, info = simulated.step(action)
        over = terminated or truncated
    success, outcome, metrics = ending(simulated, info)
    return Recorded("vision_force", "rti", seed, success, outcome, metrics, actions)
