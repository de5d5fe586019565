"""Rows of `results.json`, sorted into the arms that the report compares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from data.results import Row

OBS = {
    "vision_force": "vision + force",
    "vision": "vision only",
    "force": "force only",
    "state": "state",
}
CONTROLLERS = {
    "rti": "real-time iteration",
    "cold_ddim": "cold DDIM",
    "cold_ddpm": "cold DDPM",
}
WIRES = {
    "lockstep": "lock-step",
    "ros2": "ROS 2",
    "realtime": "real time, in process",
    "bench": "bench, alone",
}


@dataclass(frozen=True)
class Arm:
    """One way to run the task: what is observed, which controller, over which wire."""

    obs: str
    controller: str
    wire: str

    @property
    def title(self) -> str:
        """In words."""
        return f"{OBS.get(self.obs, self.obs)} · {self.way}"

    @property
    def way(self) -> str:
        """Controller and wire in words."""
        controller = CONTROLLERS.get(self.controller, self.controller)
        return " · ".join(part for part in (controller, WIRES.get(self.wire, self.wire)) if part)


def arm_of(row: Row) -> Arm:
    """The arm that a row is about."""
    return Arm(*(str(row.context.get(key) or "") for key in ("obs", "controller", "wire")))


def named(rows: Sequence[Row], name: str) -> list[Row]:
    """Rows called `name`, in their order."""
    return [row for row in rows if row.name == name]


def by_arm(rows: Sequence[Row], name: str) -> dict[Arm, list[Row]]:
    """Rows called `name` of each arm."""
    arms: dict[Arm, list[Row]] = {}
    for row in named(rows, name):
        arms.setdefault(arm_of(row), []).append(row)
    return arms


def percentiles(rows: Sequence[Row], name: str) -> dict[Arm, dict[int, float]]:
    """Percentile -> value of each arm, for rows such as `tick_ms`."""
    return {
        arm: {int(str(row.context["percentile"])): row.value for row in of_arm}
        for arm, of_arm in by_arm([r for r in rows if "percentile" in r.context], name).items()
    }
