"""A ROS node that runs episodes: resets and enables the other two, and hears the verdict."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

from rclpy.client import Client
from rclpy.context import Context
from rclpy.node import Node
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger

from deploy.ros2.process import Child
from deploy.ros2.wire import LATCHED_QOS, Spinner, ros_context

POLL = 0.02  # [s]
CALL_TIMEOUT = 30.0


class WireError(RuntimeError):
    """A node does not answer, or refuses."""


class Referee:
    """Calls services with a timeout; while it waits, a dead child process is noticed at once."""

    def __init__(self, context: Context, children: Sequence[Child] = ()) -> None:
        self._node = Node("prise_referee", context=context)
        self._children = list(children)
        self._reports: dict[int, dict[str, Any]] = {}  # seed -> report
        self._node.create_subscription(String, "/episode", self._on_episode, LATCHED_QOS)
        self._reset_sim: Client[Any, Any] = self._node.create_client(Trigger, "/prise_sim/reset")
        self._reset_policy: Client[Any, Any] = self._node.create_client(
            Trigger, "/prise_policy/reset"
        )
        self._enable: Client[Any, Any] = self._node.create_client(SetBool, "/prise_policy/enable")
        self._spinner = Spinner(self._node)

    @classmethod
    @contextmanager
    def open(cls, domain_id: int, children: Sequence[Child] = ()) -> Iterator[Self]:
        """A referee in a context of its own."""
        with ros_context(domain_id) as context:
            referee = cls(context, children)
            try:
                yield referee
            finally:
                referee.close()

    def close(self) -> None:
        """Leave the wire."""
        self._spinner.stop()
        self._node.destroy_node()

    def wait_until_ready(self, timeout: float) -> None:
        """Wait until all services are there [s]."""
        for client in (self._reset_sim, self._reset_policy, self._enable):
            self._wait(client.service_is_ready, timeout, f"service {client.srv_name}")

    def reset(self, seed: int) -> None:
        """Start episode `seed` on the robot, then in the policy node."""
        answer = self._call(self._reset_sim, Trigger.Request())
        if not answer.success or json.loads(answer.message)["seed"] != seed:
            raise WireError(f"the robot did not reset to seed {seed}: {answer.message}")
        self._call(self._reset_policy, Trigger.Request())

    def enable(self, timeout: float) -> None:
        """Let the policy move; the node refuses until all its sensors have come."""
        deadline = time.monotonic() + timeout
        while not (answer := self._call(self._enable, SetBool.Request(data=True))).success:
            if time.monotonic() > deadline:
                raise WireError(f"the policy node refuses: {answer.message}")
            time.sleep(POLL)

    def disable(self) -> dict[str, Any]:
        """Stop the policy; its `RunStats`."""
        answer = self._call(self._enable, SetBool.Request(data=False))
        stats: dict[str, Any] = json.loads(answer.message)
        return stats

    def verdict(self, seed: int, timeout: float) -> dict[str, Any]:
        """Wait for the robot's report of episode `seed` [s]."""
        self._wait(lambda: seed in self._reports, timeout, f"the end of episode {seed}")
        return self._reports[seed]

    def _on_episode(self, msg: String) -> None:
        report = json.loads(msg.data)
        self._reports[report["seed"]] = report

    def _call(self, client: Client[Any, Any], request: Any) -> Any:
        answered = threading.Event()
        future = client.call_async(request)
        future.add_done_callback(lambda _: answered.set())
        self._wait(answered.is_set, CALL_TIMEOUT, f"an answer of {client.srv_name}")
        return future.result()

    def _wait(self, condition: Callable[[], bool], timeout: float, what: str) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            for child in self._children:
                child.check()
            self._spinner.check()
            if time.monotonic() > deadline:
                tails = "\n".join(f"{child.name}: {child.tail()}" for child in self._children)
                raise WireError(f"{what} did not come within {timeout:.0f} s.\n{tails}")
            time.sleep(POLL)
