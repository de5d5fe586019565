"""The policy node: a controller in the real-time loop, on a robot behind topics."""

from __future__ import annotations

import json
import threading
from collections import Counter
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from numpy.typing import NDArray
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.context import Context
from rclpy.node import Node
from rclpy.qos import QoSProfile
from std_srvs.srv import SetBool, Trigger

from data.spec import DataSpec, Horizons
from deploy.controllers.base import Controller
from deploy.loop import LoopStats, RealTimeLoop
from deploy.ros2.robot import Ros2Robot
from deploy.ros2.settings import PolicyNodeSettings
from deploy.ros2.wire import Spinner
from deploy.safety import SafetyLayer
from deploy.seam import SeamSettings

NAME = "prise_policy"
POLL = 0.05  # [s] between looks at what the threads report
SHOWN_HOLDS = 3


@dataclass(frozen=True)
class RunStats:
    """One enabled stretch. A miss: a plan commanded later than a tick after its observation.

    `latency_s` is from an observation's stamp to that command, `update_s` the controller alone.
    """

    latency_s: list[float]
    update_s: list[float]
    nfe: list[int]
    misses: int
    superseded: int
    commands: int
    overruns: int
    holds: dict[str, int] = field(default_factory=dict)
    clamps: dict[str, int] = field(default_factory=dict)
    sensors: dict[str, int] = field(default_factory=dict)


class PolicyNode(Node):
    """`~/enable` (SetBool) starts and stops, `~/reset` (Trigger) begins an episode.

        disabled --enable true--> running --enable false--> holding, answer: `RunStats` as JSON
            ^------------------------ reset ----------------------------------'

    Nothing is published on the command topic before the first `enable`. The executor's thread runs
    callbacks, the loop's two threads plan and command, `run` keeps the main thread.
    """

    def __init__(
        self,
        controller: Controller,
        horizons: Horizons,
        settings: PolicyNodeSettings,
        context: Context | None = None,
        info: str = "",
        seam: SeamSettings | None = None,
    ) -> None:
        super().__init__(NAME, context=context)
        self._settings, self._horizons, self._seam = settings, horizons, seam
        self._spec: DataSpec = controller.spec
        self._declare(settings, info)
        self._robot = Ros2Robot(self, self._spec, settings)
        self._controller = controller
        self._safety = SafetyLayer(self._spec, settings.safety)
        self._robot.on_wrench = self._watch_wrench
        if not settings.topics.wrenches:
            self.get_logger().warning("no wrench topic: force and torque are not limited")
        self._loop: RealTimeLoop | None = None
        self._runs = 0
        self._diagnostics = self.create_publisher(
            DiagnosticArray, "/diagnostics", QoSProfile(depth=10)
        )
        self.create_service(SetBool, "~/enable", self._on_enable)
        self.create_service(Trigger, "~/reset", self._on_reset)
        self.create_timer(1.0, self._every_second)

    def run(self, stop: threading.Event) -> None:
        """Serve until `stop` is set; raises what a callback or a thread of the loop ended with."""
        spinner = Spinner(self)
        try:
            while not stop.wait(POLL):
                spinner.check()
                if self._robot.error is not None:
                    raise self._robot.error
                loop = self._loop
                if loop is not None and not loop.running:
                    loop.join()
        finally:
            spinner.stop()
            self._stop_loop()
            self._robot.close()
            self.destroy_node()

    def _on_enable(self, request: Any, response: Any) -> Any:
        reason = self._enable() if request.data else None
        response.success = reason is None
        if request.data:
            response.message = reason or "enabled"
        else:
            stats = self._stop_loop()
            response.message = "disabled" if stats is None else json.dumps(asdict(stats))
        return response

    def _on_reset(self, _: Any, response: Any) -> Any:
        # History, controller and commanded pose are cleared by the next `_enable`.
        self._stop_loop()
        self._safety.reset()
        self._robot.clear()
        response.success, response.message = True, "ready for an episode; call ~/enable"
        return response

    def _enable(self) -> str | None:
        """Start the loop; the reason in words if that must not be."""
        if self._loop is not None:
            latched = self._safety.latched
            state = "running already" if latched is None else f"latched by {latched}"
            return f"not enabled: {state}; call ~/reset for another episode"
        if (stale := self._robot.stale()) is not None:
            return f"not enabled: {stale}"
        if not self._robot.is_connected():
            return f"not enabled: nobody listens to {self._settings.topics.command}"
        if self._safety.latched is not None:
            return f"not enabled: latched by {self._safety.latched}; find the cause, call ~/reset"
        self._robot.clear()
        self._safety.reset()
        loop = RealTimeLoop(
            self._robot,
            self._controller,
            self._safety,
            self._horizons,
            command_rate_hz=self._settings.command_rate_hz,
            pin=self._settings.pin,
            seam=self._seam,
        )
        self._safety.enable(True)
        loop.start(seed=self._runs)
        self._runs += 1
        self._loop = loop
        return None

    def _watch_wrench(self, wrench: NDArray[Any]) -> None:
        """Every sample as it comes: a peak between two observations counts as well."""
        if self._safety.enabled:
            self._safety.sense_wrench(wrench)

    def _stop_loop(self) -> RunStats | None:
        """Stop the loop, hold, say what it did; None if it was not running."""
        loop, self._loop = self._loop, None
        if loop is None:
            return None
        self._safety.enabled = False  # at once; the planner may still be busy
        return self._run_stats(loop.stop())

    def _run_stats(self, loop: LoopStats) -> RunStats:
        latency = loop.reaction_s
        tick = 1 / self._spec.rate_hz
        return RunStats(
            latency_s=latency,
            update_s=loop.latency_s,
            nfe=loop.nfe,
            misses=sum(seconds > tick for seconds in latency),
            superseded=loop.superseded,
            commands=loop.commands,
            overruns=loop.overruns,
            holds={**loop.holds, **self._robot.holds},
            clamps=loop.clamps,
            sensors=self._robot.counts(),
        )

    def _every_second(self) -> None:
        self._robot.calibrate_clock()
        running, stale = self._loop is not None, self._robot.stale()
        status = DiagnosticStatus(name=f"{NAME}: loop", hardware_id="prise")
        status.level = DiagnosticStatus.STALE if stale else DiagnosticStatus.OK
        state = "running" if running else "disabled"
        status.message = f"{state}; {stale}" if stale else state
        if running and self._safety.latched is not None:
            status.level = DiagnosticStatus.ERROR
            status.message = f"latched: {self._safety.latched}"
        holds = Counter(dict(self._safety.holds))  # a copy: the command thread adds reasons
        values = {**self._robot.counts(), **dict(holds.most_common(SHOWN_HOLDS))}
        status.values = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)

    def _declare(self, settings: PolicyNodeSettings, info: str) -> None:
        """Show the settings as read-only parameters: `ros2 param list` tells what is running."""
        read_only = ParameterDescriptor(read_only=True)
        self.declare_parameter("checkpoint", info, read_only)
        for name, value in _flat(settings).items():
            self.declare_parameter(name, value, read_only)


def _flat(settings: Any, prefix: str = "") -> dict[str, str | int | float]:
    """Dotted names of every number and string in nested dataclasses and mappings."""
    names = [f.name for f in fields(settings)] if is_dataclass(settings) else list(settings)
    flat: dict[str, str | int | float] = {}
    for name in names:
        value = getattr(settings, name) if is_dataclass(settings) else settings[name]
        if isinstance(value, str | int | float):
            flat[prefix + name] = value
        elif value is not None and (is_dataclass(value) or hasattr(value, "items")):
            flat |= _flat(value, f"{prefix}{name}.")
        elif value is not None:
            flat[prefix + name] = str(tuple(value))
    return flat
