"""DPM-Solver++ with two evaluations in memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Generator, Tensor

from policy.samplers.base import Evaluation
from policy.schedule import Schedule


@dataclass(frozen=True)
class DPMSolverPP2M:
    """Lu et al. (2022), DPM-Solver++(2M), algorithm 2: second order with one evaluation a step.

    x_n = sigma_n / sigma x + (alpha_n - sigma_n / sigma alpha) D,
    D = x0 + h / (2 h_previous) (x0 - x0_previous), h the step in log(alpha / sigma).
    First order (D = x0) without history and in the step to level 0, where h is infinite.
    """

    def step(
        self,
        x: Tensor,
        x0: Tensor,
        level: float,
        level_next: float,
        schedule: Schedule,
        history: Evaluation | None = None,
        generator: Generator | None = None,
    ) -> Tensor:
        """The iterate at `level_next`."""
        slope = x0
        if history is not None and level_next > 0:
            here = _log_snr(level, schedule)
            step = _log_snr(level_next, schedule) - here
            step_before = here - _log_snr(history.level, schedule)
            slope = x0 + step / (2 * step_before) * (x0 - history.x0)
        keep = schedule.sigma(level_next) / schedule.sigma(level)
        signal = schedule.alpha(level_next) - keep * schedule.alpha(level)
        return keep * x + signal * slope


def _log_snr(level: float, schedule: Schedule) -> float:
    alpha = schedule.alpha(level)
    # FlowSchedule has no signal at level 1: the step from there is infinitely long.
    return math.log(alpha / schedule.sigma(level)) if alpha > 0 else -math.inf
