"""`prise deploy`: a policy in real time, over ROS 2 or on a simulated robot in this process."""

from __future__ import annotations

import logging
from typing import Any


def run(config: dict[str, Any]) -> int:
    """Run what `robot` describes."""
    # Nothing of torch or rclpy before it is known to be needed: the simulated robot's node must
    # not load torch, and `robot=sim` works without ROS.
    if config["choices"]["robot"] == "sim":
        from deploy.commands import simulated_robot

        return simulated_robot.run(config)
    from deploy.ros2 import commands

    logging.getLogger("deploy").setLevel(logging.INFO)  # a node says when it is ready
    commands.run({**config, "env": _without_null(config["env"])})
    return 0


def _without_null(env: dict[str, Any]) -> dict[str, Any]:
    """The environment's own defaults instead of null."""
    return {**env, "kwargs": {k: v for k, v in env["kwargs"].items() if v is not None}}
