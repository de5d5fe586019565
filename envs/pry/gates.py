"""Is the prying task honest? Rules that do not feel must fail, the expert that feels must succeed.

Every episode is pried by the expert without its stop; a rule then says when it would have stopped,
and the log says whether that was after the release and within the tolerance. Each blind rule gets
the best threshold for these very episodes, which favours it.

    gate_blind   stop after a fixed time of lifting
    gate_pose    stop when the true cell has risen by a fixed height (better than any camera)
    gate_jump    stop one tick after the measured pose jumps by more than a threshold
    gate_expert  the scripted expert, on noisy force
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from data.results import Row, print_table, success_row, write_results
from data.rotation import apply_increment
from envs.base import EnvFactory
from envs.pry.env import RATE_HZ, PryEnv
from envs.pry.expert import Gains, PryExpert
from envs.pry.judge import Limits
from envs.workers import Executor, SeedPool, SeedWorkers

Array = NDArray[np.float64]
LOG_MS = 10
LONGEST_TICKS = 180
GATES = {"gate_blind": 0.30, "gate_pose": 0.35, "gate_jump": 0.20, "gate_expert": 0.97}


@dataclass(frozen=True)
class PryLog:
    """One pry without a stop, every 10 ms since lifting began."""

    travel: Array  # upward travel since release [m]
    released: NDArray[np.bool_]
    force: Array  # peak so far [N]
    lip_force: Array
    cell_rise: Array  # [m]
    measured_z: Array  # one value per tick [m]

    def stopped_at(self, index: int | None, limits: Limits) -> bool:
        """Would a stop at this row have been a success?"""
        if index is None or index >= len(self.travel):
            return False
        within = self.travel[index] <= limits.tolerance
        gentle = self.force[index] <= limits.force and self.lip_force[index] <= limits.lip_force
        return bool(self.released[index] and within and gentle)


@dataclass(frozen=True)
class PryOnce:
    """Job of a worker: seed -> log of a pry without a stop, and the expert's own outcome."""

    make_env: EnvFactory

    def __call__(self) -> Callable[[int], tuple[PryLog | None, str]]:
        """Make the environment once; the job then runs one seed."""
        env = self.make_env(cameras=()).unwrapped
        assert isinstance(env, PryEnv)
        return partial(_both, env)


def _both(env: PryEnv, seed: int) -> tuple[PryLog | None, str]:
    return pry_without_stop(env, seed), expert_outcome(env, seed)


def expert_outcome(env: PryEnv, seed: int) -> str:
    """Outcome of the expert as it demonstrates."""
    expert = PryExpert()
    expert.reset(seed)
    obs, info = env.reset(seed=seed)
    while "outcome" not in info:
        obs, _, _, _, info = env.step(expert.act(obs, info).to_execute)
    return str(info["outcome"])


def pry_without_stop(env: PryEnv, seed: int) -> PryLog | None:
    """Log of the expert's lifting if it never stopped; None if it never began to lift."""
    expert = PryExpert(
        mistake_rate=0.0, noise=0.0, gains=Gains(armed_load=np.inf, probe_ticks=10**9)
    )
    expert.reset(seed)
    obs, info = env.reset(seed=seed)
    sim = env.sim
    rows: list[tuple[float, bool, float, float, float]] = []
    measured: list[float] = []
    cell_z = 0.0
    for _ in range(LONGEST_TICKS):
        action = expert.act(obs, info).to_execute
        if expert.phase == "creep":
            cell_z = cell_z if measured else float(sim.cell_pose()[2])
            measured.append(float(obs["pose"][2]))
        sim.set_target(apply_increment(sim.target, action.astype(float)), 1 / RATE_HZ)
        for _ in range(round(1000 / RATE_HZ / LOG_MS)):
            sim.advance(LOG_MS)
            if measured:
                truth = sim.truth
                log = (
                    truth.travel_after_release,
                    truth.released,
                    truth.peak_force,
                    truth.peak_lip_force,
                )
                rows.append((*log, float(sim.cell_pose()[2]) - cell_z))
        obs, info = env.observe(), {"object_pose": sim.noisy_object_pose()}
        if sim.truth.travel_after_release > 0.004 or sim.truth.unstable:
            break
    if not rows:
        return None
    travel, released, force, lip, rise = (np.array(column) for column in zip(*rows, strict=True))
    return PryLog(travel, released.astype(bool), force, lip, rise, np.array(measured))


def blind_rule(logs: list[PryLog | None], limits: Limits) -> NDArray[np.bool_]:
    """Stop after the best fixed time."""
    return _best([partial(_always, index=i) for i in range(2, 1200, 2)], logs, limits)


def pose_rule(logs: list[PryLog | None], limits: Limits) -> NDArray[np.bool_]:
    """Stop at the best fixed rise of the true cell."""
    heights = np.arange(0.1e-3, 12e-3, 0.1e-3)
    return _best([partial(_risen, height=float(h)) for h in heights], logs, limits)


def jump_rule(logs: list[PryLog | None], limits: Limits) -> NDArray[np.bool_]:
    """Stop at the tick that first sees the measured pose jump by the best threshold."""
    per_tick = round(1000 / RATE_HZ / LOG_MS)

    def rule(log: PryLog, threshold: float) -> int | None:
        tick = _first(np.diff(log.measured_z) > threshold)
        return None if tick is None else (tick + 1) * per_tick

    thresholds = np.arange(0.3e-3, 2.0e-3, 0.025e-3)
    return _best([partial(rule, threshold=float(t)) for t in thresholds], logs, limits)


def _always(log: PryLog, index: int) -> int:
    return index


def _risen(log: PryLog, height: float) -> int | None:
    return _first(log.cell_rise > height)


def _first(mask: NDArray[np.bool_]) -> int | None:
    return int(np.argmax(mask)) if mask.any() else None


def _best(
    rules: list[Callable[[PryLog], int | None]], logs: list[PryLog | None], limits: Limits
) -> NDArray[np.bool_]:
    scores = [
        np.array([log is not None and log.stopped_at(rule(log), limits) for log in logs])
        for rule in rules
    ]
    return max(scores, key=lambda successes: int(successes.sum()))


def measure(
    make_env: EnvFactory,
    seeds: list[int],
    workers: int = 2,
    progress: bool = True,
    executor: Executor = SeedWorkers,
) -> list[Row]:
    """The four gate rows; each row's context says the bar and whether it holds."""
    results = {}
    pool: SeedPool[tuple[PryLog | None, str]] = executor(PryOnce(make_env), workers)
    with pool, tqdm(total=len(seeds), desc="gates", unit="episode", disable=not progress) as bar:
        for seed, result in pool.run(iter(seeds)):
            results[seed] = result
            bar.update()
    logs = [results[seed][0] for seed in seeds]
    limits = Limits(tolerance=make_env.kwargs.get("tolerance", Limits.tolerance))
    outcomes = {
        "gate_blind": blind_rule(logs, limits),
        "gate_pose": pose_rule(logs, limits),
        "gate_jump": jump_rule(logs, limits),
        "gate_expert": np.array([results[seed][1] == "success" for seed in seeds]),
    }
    rows = []
    for name, successes in outcomes.items():
        rate, bar_at = float(np.mean(successes)), GATES[name]
        holds = rate >= bar_at if name == "gate_expert" else rate <= bar_at
        context: dict[str, str | int | float | bool | None] = {
            "task": "pry",
            "tolerance_mm": 1e3 * limits.tolerance,
            "bar": bar_at,
            "holds": holds,
        }
        rows.append(success_row(name, successes, context=context))
    return rows


def run(
    make_env: EnvFactory,
    out: Path,
    episodes: int = 200,
    seed0: int = 0,
    workers: int = 2,
    executor: Executor = SeedWorkers,
) -> list[Row]:
    """`prise bench gates`: measure, print, write results.json."""
    seeds = list(range(seed0, seed0 + episodes))
    rows = measure(make_env, seeds, workers, executor=executor)
    write_results(Path(out) / "results.json", "bench gates", rows, seeds)
    print_table(rows)
    return rows
