"""Contexts, executor threads, quality of service and clocks: what every node here needs of ROS."""

from __future__ import annotations

import logging
import os
import random
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions

log = logging.getLogger(__name__)

# Best effort as is customary for sensors, but deep: one busy moment must not drop wrench samples.
SENSOR_QOS = QoSProfile(depth=50, reliability=ReliabilityPolicy.BEST_EFFORT)
COMMAND_QOS = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
LATCHED_QOS = QoSProfile(
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)

# UDP instead of shared memory: as fast for these messages, works where /dev/shm is tiny or
# read-only, and leaves no segments behind when a process is killed.
LOCAL_WIRE = {
    "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
    "FASTDDS_BUILTIN_TRANSPORTS": "UDPv4",
}
DOMAINS = 101  # higher ones reach into Linux' ephemeral ports
CLOCK_READINGS = 10


def free_domain_id() -> int:
    """A domain that no participant on this machine uses now."""
    candidates = random.SystemRandom().sample(range(1, DOMAINS), DOMAINS - 1)
    for domain_id in candidates:
        # DDS ports: 7400 + 250 d is multicast discovery, + 10 the first participant.
        if all(_is_free(7400 + 250 * domain_id + offset) for offset in (0, 10)):
            return domain_id
    raise RuntimeError("every ROS domain is in use on this machine; stop other ROS processes.")


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for the participants made inside: all that the middleware reads."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def ros_context(domain_id: int | None = None) -> Iterator[Context]:
    """A ROS context that leaves signals alone; `domain_id` None is $ROS_DOMAIN_ID or 0."""
    context = Context()
    rclpy.init(context=context, domain_id=domain_id, signal_handler_options=SignalHandlerOptions.NO)
    try:
        yield context
    finally:
        with suppress(RuntimeError):  # raised where something else has shut it down already
            rclpy.shutdown(context=context)


def take_realtime_priority(priority: int) -> None:
    """Run this thread, and those it starts, before all ordinary processes; 0 leaves it as it is.

    Fixed priorities (SCHED_RR) and not `nice`, which counts only within one terminal session where
    the kernel groups processes by session.
    """
    if priority == 0:
        return
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(priority))
    except PermissionError:
        log.warning(
            "real-time priority %d is not permitted (root, CAP_SYS_NICE or an rtprio limit): "
            "other work on this machine can make the node late.",
            priority,
        )


class Spinner:
    """Runs a node's callbacks in a thread of its own, one at a time.

    rclpy's experimental EventsExecutor costs a third of the CPU, but waits for ever as soon as
    another thread publishes, creates an entity or calls a service at the wrong moment.
    """

    def __init__(self, node: Node) -> None:
        self._executor = SingleThreadedExecutor(context=node.context)
        self._executor.add_node(node)
        pool = ThreadPoolExecutor(1, thread_name_prefix=f"{node.get_name()}-ros")
        self._spinning: Future[None] = pool.submit(self._executor.spin)
        pool.shutdown(wait=False)

    def check(self) -> None:
        """Raise what a callback raised; a node must not go on without its callbacks."""
        if self._spinning.done():
            self._spinning.result()
            raise RuntimeError("the ROS executor has ended; was its context shut down?")

    def stop(self, timeout: float = 5.0) -> None:
        """Stop running callbacks; returns when the running one has ended or after `timeout` s."""
        self._executor.shutdown(timeout_sec=timeout)
        wait([self._spinning], timeout)


class StampClock:
    """Header stamps (wall clock, can be slewed or jump) against `time.monotonic`, which cannot.

    `calibrate` now and then; between calibrations the offset is constant, so that the distances
    of stamps are exact.
    """

    def __init__(self, wall_ns: Callable[[], int] = time.time_ns) -> None:
        self._wall_ns = wall_ns
        self.calibrate()

    def calibrate(self) -> None:
        """Take the offset from the reading that was interrupted least."""
        best = None
        for _ in range(CLOCK_READINGS):
            before = time.monotonic_ns()
            wall = self._wall_ns()
            after = time.monotonic_ns()
            if best is None or after - before < best[0]:
                best = (after - before, wall - (before + after) // 2)
        assert best is not None
        self._offset_ns = best[1]

    def monotonic(self, wall_ns: int) -> float:
        """Stamp [s] on the monotonic clock of a wall-clock stamp [ns]."""
        return (wall_ns - self._offset_ns) * 1e-9

    def wall_ns(self, monotonic: float) -> int:
        """Inverse of `monotonic`."""
        return round(monotonic * 1e9) + self._offset_ns
