"""What a grid consists of: tasks, schemes, and the cells that its blocks name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from deploy.commands.compose import compose

# Under these names a controller's YAML holds what an axis sets.
AXIS_KEYS = {"exec_horizon": ("exec_horizon",), "nfe": ("nfe", "num_steps")}
BLOCK_KEYS = {"schemes", "tasks", "exec_horizon", "nfe", "delay"}


@dataclass(frozen=True)
class Task:
    """An environment, and the checkpoint that acts in it.

    Schemes that need a training of their own have their own, in `trained_for`. With `against`, the
    name of the same task undisturbed, the reaction to the disturbance counts.
    """

    name: str
    env: Mapping[str, Any]
    checkpoint: Path
    against: str | None = None
    trained_for: Mapping[str, Path] = field(default_factory=dict)

    def checkpoint_of(self, scheme: str) -> Path:
        """The policy that acts in a scheme."""
        return self.trained_for.get(scheme, self.checkpoint)


@dataclass(frozen=True)
class Cell:
    """One scheme at one point of the grid: its episodes are paired by seed with all others."""

    task: str
    scheme: str
    exec_horizon: int
    nfe: int
    delay: int
    controller: Mapping[str, Any] = field(compare=False, hash=False)

    @property
    def key(self) -> str:
        """Its name in files."""
        return f"{self.task}/{self.scheme}/exec{self.exec_horizon}/nfe{self.nfe}/delay{self.delay}"

    @property
    def context(self) -> dict[str, str | int]:
        """Its place in the grid, for the rows."""
        return {
            "task": self.task,
            "controller": self.scheme,
            "exec_horizon": self.exec_horizon,
            "nfe": self.nfe,
            "delay": self.delay,
        }


def tasks_of(grid: Mapping[str, Any]) -> dict[str, Task]:
    """The tasks by name, each with the config of its environment."""
    tasks = {}
    for name, raw in grid["tasks"].items():
        if raw.get("checkpoint") is None:
            raise ValueError(
                f"task {name!r} needs a policy; add grid.tasks.{name}.checkpoint=PATH, or leave "
                f"the task out with grid.only=[...]."
            )
        env = compose("eval", [f"env={raw['env']}", "checkpoint=none"])["env"]
        kwargs = {**env["kwargs"], **raw.get("kwargs", {})}
        others = raw.get("trained_for", {}).items()
        trained_for = {scheme: Path(path) for scheme, path in others if path is not None}
        tasks[name] = Task(
            name,
            {**env, "kwargs": kwargs},
            Path(raw["checkpoint"]),
            raw.get("against"),
            trained_for,
        )
    for task in tasks.values():
        if task.against is not None and task.against not in tasks:
            raise ValueError(f"task {task.name!r} is against {task.against!r}, not in the grid.")
    return tasks


def cells_of(grid: Mapping[str, Any]) -> list[Cell]:
    """Every cell that a block names, each once, in the order of the blocks."""
    only = grid.get("only") or list(grid["tasks"])
    configs = {name: _controller(raw) for name, raw in grid["schemes"].items()}
    cells: dict[Cell, None] = {}
    for block in grid["blocks"]:
        for cell in _block(block, configs, list(grid["tasks"])):
            if cell.task in only:
                cells[cell] = None
    return list(cells)


def _block(
    block: Mapping[str, Any], configs: Mapping[str, Mapping[str, Any]], tasks: Sequence[str]
) -> Iterator[Cell]:
    if unknown := sorted(set(block) - BLOCK_KEYS):
        raise ValueError(f"a block of the grid has {unknown}; known: {sorted(BLOCK_KEYS)}.")
    for scheme in block["schemes"]:
        if scheme not in configs:
            raise ValueError(f"scheme {scheme!r} is not in the grid; known: {sorted(configs)}.")
    axes = [block.get("tasks", tasks), block["schemes"]]
    axes += [block.get(axis, [None]) for axis in AXIS_KEYS]
    for task, scheme, exec_horizon, nfe, delay in product(*axes, block.get("delay", [0])):
        asked = {"exec_horizon": exec_horizon, "nfe": nfe}
        config = _with_axes(scheme, configs[scheme], asked)
        labels = {axis: _value(config, axis) for axis in AXIS_KEYS}
        yield Cell(task, scheme, labels["exec_horizon"], labels["nfe"], delay, config)


def _controller(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The config of `raw["controller"]`, with the scheme's own settings."""
    changes = {key: value for key, value in raw.items() if key != "controller"}
    overrides = [f"controller={raw['controller']}", "checkpoint=none"]
    config: dict[str, Any] = compose("eval", overrides)["controller"]
    if unknown := sorted(set(changes) - set(config)):
        raise ValueError(
            f"controller {raw['controller']!r} has no {unknown}; known: {sorted(config)}."
        )
    return {**config, **changes}


def _with_axes(
    scheme: str, config: Mapping[str, Any], asked: Mapping[str, int | None]
) -> dict[str, Any]:
    changed = dict(config)
    for axis, value in asked.items():
        if value is None:
            continue
        key = _key(config, axis)
        if key is None:
            raise ValueError(f"scheme {scheme!r} has no {axis}; give it a block without {axis}.")
        changed[key] = value
    return changed


def _key(config: Mapping[str, Any], axis: str) -> str | None:
    return next((key for key in AXIS_KEYS[axis] if key in config), None)


def _value(config: Mapping[str, Any], axis: str) -> int:
    """The label on an axis; 1 where the controller has none, 0 for a whole chunk."""
    key = _key(config, axis)
    if key is not None:
        return int(config[key] or 0)
    if axis == "nfe" and "planner" in config:
        return _value(config["planner"], axis)
    return len(config["steps"]) if axis == "nfe" and "steps" in config else 1
