"""The names of the tasks, known without Meta-World itself, which is an optional extra."""

from __future__ import annotations

import difflib

VERSION = "-v3"
TASKS = (
    "assembly",
    "basketball",
    "bin-picking",
    "box-close",
    "button-press",
    "button-press-topdown",
    "button-press-topdown-wall",
    "button-press-wall",
    "coffee-button",
    "coffee-pull",
    "coffee-push",
    "dial-turn",
    "disassemble",
    "door-close",
    "door-lock",
    "door-open",
    "door-unlock",
    "drawer-close",
    "drawer-open",
    "faucet-close",
    "faucet-open",
    "hammer",
    "hand-insert",
    "handle-press",
    "handle-press-side",
    "handle-pull",
    "handle-pull-side",
    "lever-pull",
    "peg-insert-side",
    "peg-unplug-side",
    "pick-out-of-hole",
    "pick-place",
    "pick-place-wall",
    "plate-slide",
    "plate-slide-back",
    "plate-slide-back-side",
    "plate-slide-side",
    "push",
    "push-back",
    "push-wall",
    "reach",
    "reach-wall",
    "shelf-place",
    "soccer",
    "stick-pull",
    "stick-push",
    "sweep",
    "sweep-into",
    "window-close",
    "window-open",
)


def task_named(name: str) -> str:
    """The task called `name`, with or without its version; ValueError names what is near."""
    task = name.removesuffix(VERSION)
    if task not in TASKS:
        near = difflib.get_close_matches(task, TASKS, n=3, cutoff=0.5)
        near = near or [known for known in TASKS if task and task in known]
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(TASKS)}."
        raise ValueError(f"Meta-World has no task {name!r}; {hint}")
    return task
