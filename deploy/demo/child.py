"""`python -m deploy.demo.child`: a command as a process that never outlives its parent."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from importlib import import_module
from pathlib import Path
from typing import Any

from deploy.commands.compose import compose


def main(arguments: list[str]) -> int:
    """Run `train` or `bench` with the arguments; a training goes on where it was stopped."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    threading.Thread(target=_end_with_parent, daemon=True).start()
    verb, *rest = arguments
    config: dict[str, Any] = compose(verb, rest)
    if verb == "train":
        from policy.checkpoint import checkpoint_exists

        config["resume"] = checkpoint_exists(Path(config["out"]) / "last")
    try:
        status: int = import_module(f"deploy.commands.{verb}").run(config)
    except (ValueError, OSError) as error:
        logging.getLogger(__name__).error("%s", error, exc_info=True)
        return 2
    return status


def _end_with_parent() -> None:
    """Standard input is a pipe from the parent: it ends when the parent is gone, however."""
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
