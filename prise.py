"""The front door: the `prise` command, and what a user of the library needs first."""

from __future__ import annotations

import importlib
import logging
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # torch takes seconds to import, and most of the command does without.
    from deploy.controllers.base import Controller
    from policy.diffusion_policy import DiffusionPolicy

__all__ = ["load_policy", "main", "make_controller"]

OUR_PACKAGES = ("data", "envs", "policy", "deploy")
BAD_INPUT = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells have it
# Verb -> module with `run(config) -> exit status`.
VERBS = {
    "demo": "deploy.demo",
    "collect": "deploy.commands.collect",
    "train": "deploy.commands.train",
    "eval": "deploy.commands.evaluate",
    "bench": "deploy.commands.bench",
    "deploy": "deploy.commands.deploy",
    "calibrate": "deploy.commands.calibrate",
    "export": "deploy.commands.export",
    "predictor": "deploy.commands.distill_prior",
    "inspect": "deploy.commands.inspect",
    "report": "deploy.report.page",
}
# Package -> extra, where `./run setup` leaves it out.
EXTRAS = {"metaworld": "metaworld", "ray": "ray", "s3fs": "s3"}
MULTIRUN = {"-m", "--multirun"}
# What a first argument that is no override sets; a path may hold a "=".
OVERRIDE = re.compile(r"[+~]*\w[\w.@]*=")
POSITIONAL = {"bench": "what", "inspect": "path", "report": "run"}


def load_policy(path: str | Path, device: str = "cpu") -> DiffusionPolicy:
    """The policy of the checkpoint folder `path`, in eval mode."""
    from policy.checkpoint import load_policy as load

    return load(path, device)


def make_controller(policy: DiffusionPolicy, name: str = "rti", **settings: Any) -> Controller:
    """The controller `configs/controller/NAME.yaml` for `policy`; `settings` override the file."""
    import yaml

    from data.build import build
    from deploy.commands.usage import CONFIGS

    path = CONFIGS / "controller" / f"{name}.yaml"
    if not path.is_file():
        known = sorted(p.stem for p in path.parent.glob("*.yaml"))
        raise ValueError(f"controller {name!r} is unknown; known: {', '.join(known)}.")
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    controller: Controller = build({**config, **settings}, policy=policy)
    return controller


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `prise VERB ...` and return its exit status: 0, or 2 with one line for bad input."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    verb, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if verb in ("--help", "-h", "help"):
        from deploy.commands.usage import verbs_text

        print(verbs_text(list(VERBS)))
        return 0
    if verb not in VERBS:
        return _fail("prise", f"unknown verb {verb!r}; known: {', '.join(VERBS)}.")
    if {"--help", "-h"} & set(rest):
        from deploy.commands.usage import verb_text

        print(verb_text(verb))
        return 0
    return _guarded(verb, rest)


def _guarded(verb: str, arguments: Sequence[str]) -> int:
    """Run the verb; what a user can put right becomes one line, anything else stays a traceback."""
    who = f"prise {verb}"
    try:
        return _run(verb, arguments)
    except KeyboardInterrupt:
        _fail(who, "interrupted.")
        return INTERRUPTED
    except (ValueError, OSError, RuntimeError, ModuleNotFoundError) as error:
        if os.environ.get("PRISE_DEBUG") == "1" or not _is_bad_input(error):
            raise
        return _fail(who, f"{error}{_hint(error)}")


def _run(verb: str, arguments: Sequence[str]) -> int:
    from deploy.commands.compose import compose

    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    if MULTIRUN & set(arguments):
        from deploy.commands.sweep import sweep

        return sweep(verb, [word for word in arguments if word not in MULTIRUN])
    config = compose(verb, _with_positional(verb, arguments))
    status: int = importlib.import_module(VERBS[verb]).run(config)
    return status


def _with_positional(verb: str, arguments: Sequence[str]) -> list[str]:
    if verb not in POSITIONAL or not arguments or OVERRIDE.match(arguments[0]):
        return list(arguments)
    value = arguments[0].replace("'", "\\'")
    return [f"{POSITIONAL[verb]}='{value}'", *arguments[1:]]


def _is_bad_input(error: BaseException) -> bool:
    """True for wrong values, missing files and packages, also where a worker process met them."""
    if isinstance(error, RuntimeError):
        return error.__cause__ is not None and _is_bad_input(error.__cause__)
    if isinstance(error, ModuleNotFoundError):
        return error.name is not None and error.name.split(".")[0] not in OUR_PACKAGES
    return isinstance(error, (ValueError, OSError))


def _hint(error: BaseException) -> str:
    if not isinstance(error, ModuleNotFoundError):
        return ""
    package = (error.name or "").split(".")[0]
    if package in EXTRAS:
        return f"; `.venv/bin/pip install -e '.[{EXTRAS[package]}]'` installs it."
    return "; `./run setup` installs it."


def _fail(who: str, message: str) -> int:
    print(f"{who}: error: {' '.join(message.split())}", file=sys.stderr)
    return BAD_INPUT


if __name__ == "__main__":
    sys.exit(main())
