"""Settings that must be in place before any test imports numpy, torch, mujoco, rclpy or ray."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets

import pytest

# One process a core under pytest-xdist: more threads would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MUJOCO_GL", "osmesa")
# ROS nodes of a test see neither the network nor another worker's nodes (domains 1 to 100).
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
# Clusters of a test are closed to everybody else, leave no token at home and report to nobody.
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

# One process runs tests that train and tests that render. OSMesa's LLVM and Triton's get along only
# if Triton's is loaded first; the other way round the process crashes in the first optimizer step.
with contextlib.suppress(ModuleNotFoundError):
    importlib.import_module("triton._C.libtriton")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is marked `ros` where rclpy is not installed."""
    if importlib.util.find_spec("rclpy") is not None:
        return
    skip = pytest.mark.skip(reason="rclpy is not installed; `./run setup` installs it")
    for item in items:
        if "ros" in item.keywords:
            item.add_marker(skip)
