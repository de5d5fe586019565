"""Episodes of an evaluation made again, action by action, to be drawn and explained.

The environment is deterministic by its seed, so the actions say everything; a repetition that ends
differently is an error, not a picture.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.spec import Obs
from deploy.report.run_files import EPISODES, INDEX, write_json
from deploy.report.video import compose_frame, write_video
from envs.base import EnvFactory, data_spec
from envs.evaluate import ending

DRAWN = 256  # [pixels] of a camera in the video
CONTACT_FORCE = 2.0  # [N] above what the sensor says before contact
STILL_SAMPLES = 20  # at the start, nothing is touched yet
LAST_FRAMES = 8  # the end is held for a moment


@dataclass(frozen=True)
class Recorded:
    """An episode as the evaluation kept it: of which arm, and every action."""

    obs: str
    controller: str
    seed: int
    success: bool
    outcome: str
    metrics: Mapping[str, float]
    actions: Sequence[Sequence[float]]


def choose(arms: Mapping[tuple[str, str], Sequence[Recorded]]) -> list[tuple[str, Recorded]]:
    """What teaches most, by name: a seed on which the first arm succeeds and another fails.

    Where there is none, a success and a failure of any arm; then a failure of the first arm.
    """
    first, *others = arms.values()
    shown: list[tuple[str, Recorded]] = []
    for other in others:
        if pair := _pair(first, other):
            shown = [("success", pair[0]), ("failure", pair[1])]
            break
    everything = [episode for arm in (first, *others) for episode in arm]
    if not shown:
        for name, wanted in (("success", True), ("failure", False)):
            found = [episode for episode in everything if episode.success is wanted]
            shown += [(name, found[0])] if found else []
    failed = [e for e in first if not e.success and all(e is not other for _, other in shown)]
    return shown + ([("also_failed", failed[0])] if failed else [])


def _pair(first: Sequence[Recorded], other: Sequence[Recorded]) -> tuple[Recorded, Recorded] | None:
    """The first success against the other's most frequent kind of failure."""
    by_seed = {episode.seed: episode for episode in other}
    pairs = [
        (episode, by_seed[episode.seed])
        for episode in first
        if episode.success and episode.seed in by_seed and not by_seed[episode.seed].success
    ]
    if not pairs:
        return None
    common = Counter(failed.outcome for _, failed in pairs).most_common(1)[0][0]
    return next(pair for pair in pairs if pair[1].outcome == common)


def show(
    shown: Sequence[tuple[str, Recorded]], env: Mapping[str, Any], run: Path, wire: str
) -> None:
    """Write video and trace of each episode into `run`/episodes, and their index last."""
    folder = run / EPISODES
    folder.mkdir(parents=True, exist_ok=True)
    # Drawing happens in a process of its own, which never loads torch.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:
        for name, episode in shown:
            apart.submit(replay, episode, dict(env), folder / name).result()
    index = [
        {
            "name": name,
            "obs": e.obs,
            "controller": e.controller,
            "wire": wire,
            "seed": e.seed,
            "success": e.success,
            "outcome": e.outcome,
            "metrics": dict(e.metrics),
        }
        for name, e in shown
    ]
    write_json(folder / INDEX, index)


def replay(episode: Recorded, env: Mapping[str, Any], path: Path) -> None:
    """Write `path`.mp4 and `path`.json; ValueError if the episode does not end as it did."""
    large, small = (_run(episode, env, size) for size in (DRAWN, env["kwargs"]["image_size"]))
    trace = _trace(large)
    images = [key for key in large.obs[0] if large.obs[0][key].dtype == np.uint8]
    if images:
        order = sorted(images, key=lambda key: "scene" not in key)
        write_video(path.with_suffix(".mp4"), _frames(large, small, order, trace), large.rate_hz)
    write_json(path.with_suffix(".json"), trace)


@dataclass(frozen=True)
class _Replayed:
    obs: list[Obs]  # T + 1
    released: list[bool]  # after each tick
    rate_hz: float
    wrench_hz: float


def _run(episode: Recorded, env: Mapping[str, Any], image_size: int) -> _Replayed:
    kwargs = {**env["kwargs"], "image_size": image_size}
    simulated = EnvFactory(env["id"], kwargs)()
    spec = data_spec(simulated)
    obs, info = simulated.reset(seed=episode.seed)
    seen, released = [obs], []
    for action in episode.actions:
        obs, _, _, _, info = simulated.step(np.asarray(action, np.float32))
        seen.append(obs)
        simulation: Any = simulated.unwrapped
        released.append(bool(simulation.sim.truth.released))
    _, outcome, metrics = ending(simulated, info)
    simulated.close()
    if outcome != episode.outcome or not _same(metrics, episode.metrics):
        raise ValueError(
            f"seed {episode.seed} ended with {outcome} {metrics} when repeated, but with "
            f"{episode.outcome} {dict(episode.metrics)} in the evaluation; evaluate again on this "
            "machine with this version."
        )
    return _Replayed(seen, released, spec.rate_hz, spec.obs["wrench"].rate_hz)


def _same(a: Mapping[str, float], b: Mapping[str, float]) -> bool:
    return a.keys() == b.keys() and all(math.isclose(a[k], b[k], abs_tol=1e-9) for k in a)


def _trace(episode: _Replayed) -> dict[str, Any]:
    """Force at the sensor's rate, height at the policy's, and the moments that matter [s]."""
    wrench = np.concatenate([obs["wrench"] for obs in episode.obs])  # (samples, 6)
    per_tick = len(episode.obs[0]["wrench"])
    force_t = (np.arange(len(wrench)) - per_tick + 1) / episode.wrench_hz
    force = np.linalg.norm(wrench[:, :3], axis=1)
    ticks = np.arange(len(episode.obs)) / episode.rate_hz
    height = np.array([obs["pose"][2] for obs in episode.obs])
    events = {}
    touched = force > np.median(force[:STILL_SAMPLES]) + CONTACT_FORCE
    if touched.any():
        events["contact"] = float(force_t[np.argmax(touched)])
    if any(episode.released):
        events["release"] = (episode.released.index(True) + 1) / episode.rate_hz
    events["end"] = float(ticks[-1])
    return {
        "force_t": _rounded(force_t, 3),
        "force": _rounded(force, 3),
        "fz": _rounded(wrench[:, 2], 3),
        "t": _rounded(ticks, 3),
        "height_mm": _rounded(1000 * height, 3),
        "events": events,
    }


def _rounded(values: NDArray[Any], digits: int) -> list[float]:
    return [round(float(value), digits) for value in values]


def _frames(
    large: _Replayed, small: _Replayed, keys: Sequence[str], trace: Mapping[str, Any]
) -> list[NDArray[np.uint8]]:
    frames = []
    last = len(large.obs) - 1
    per_tick = len(large.obs[0]["wrench"])
    for tick, (drawn, seen) in enumerate(zip(large.obs, small.obs, strict=True)):
        force = trace["force"][(tick + 1) * per_tick - 1]
        text = f"{tick / large.rate_hz:4.1f} s    |F| {force:4.1f} N"
        if (released := trace["events"].get("release")) and tick / large.rate_hz >= released:
            text += "    released"
        frames.append(
            compose_frame([drawn[k] for k in keys], [seen[k] for k in keys], text, tick / last)
        )
    return frames + [frames[-1]] * LAST_FRAMES
