"""The simulated robot as a ROS 2 node: physics in real time, sensors out, commanded poses in."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped, WrenchStamped
from numpy.typing import NDArray
from rclpy.context import Context
from rclpy.node import Node
from sensor_msgs.msg import Image
from std_msgs.msg import String
from std_srvs.srv import Trigger

from data.spec import SpecError
from deploy.ros2.messages import image_to_msg, msg_to_pose, pose_to_msg, to_time, wrench_to_msg
from deploy.ros2.settings import SimNodeSettings
from deploy.ros2.sim_task import SimulatedTask, Verdict
from deploy.ros2.wire import COMMAND_QOS, LATCHED_QOS, SENSOR_QOS, Spinner, StampClock

NAME = "prise_sim"
SLICE_MS = 10  # physics between two looks at the clock and the commands; the wrench's interval
RESET_TIMEOUT = 20.0  # [s]
GIVE_UP = 0.5  # [s] behind real time; further back, time is lost for good instead of caught up


@dataclass(frozen=True)
class EpisodeReport:
    """What `/episode` says of an episode that has ended; lag is how late physics was."""

    episode: int
    seed: int
    success: bool
    outcome: str
    metrics: dict[str, float]
    lag_ms_p50: float
    lag_ms_p99: float
    lag_ms_max: float
    lost_s: float


class SimNode(Node):
    """`~/reset` (Trigger) starts the next of `seeds`; its first command starts the judge.

        10 ms slice:  newest command -> physics -> /wrench, /pose
        every tenth:  judge the tick, render, publish both images with one stamp

    Stamps are the instants that the physics has reached, so whatever it lags behind counts as age.
    After the episode's end the robot holds and commands are ignored until the next reset. All
    simulation and rendering happens in the thread that calls `run`; callbacks only leave notes.
    """

    def __init__(
        self,
        task: SimulatedTask,
        seeds: Sequence[int],
        settings: SimNodeSettings,
        context: Context | None = None,
    ) -> None:
        super().__init__(NAME, context=context)
        self._task, self._seeds, self._settings = task, list(seeds), settings
        self._tick_slices = round(1000 / task.spec.rate_hz / SLICE_MS)
        self._stamps = StampClock(lambda: int(self.get_clock().now().nanoseconds))
        topics = settings.topics
        self._images = {
            key: self.create_publisher(Image, topics.images[key], SENSOR_QOS)
            for key in self._keys("image")
        }
        self._wrenches = [
            self.create_publisher(WrenchStamped, topics.wrenches[key], SENSOR_QOS)
            for key in self._keys("wrench")
        ]
        self._poses = [
            self.create_publisher(PoseStamped, topics.poses[key], SENSOR_QOS)
            for key in self._keys("state")
        ]
        self._episodes = self.create_publisher(String, "/episode", LATCHED_QOS)
        self.create_subscription(PoseStamped, topics.command, self._on_command, COMMAND_QOS)
        self.create_service(Trigger, "~/reset", self._on_reset)
        self._command: NDArray[np.float64] | None = None  # newest that has not been applied
        self._reset_wanted, self._reset_done = threading.Event(), threading.Event()
        self._episode = -1
        self._commanded = self._judging = self._ended = False
        self._lags: list[float] = []
        self._lost = 0.0

    def _keys(self, modality: str) -> list[str]:
        return [key for key, spec in self._task.spec.obs.items() if spec.modality == modality]

    def run(self, stop: threading.Event) -> None:
        """Simulate in real time until `stop` is set."""
        spinner = Spinner(self)
        due, slices = time.monotonic(), 0
        try:
            while not stop.is_set():
                spinner.check()
                if self._reset_wanted.is_set():
                    self._start_episode()
                    due, slices = time.monotonic(), 0
                due += SLICE_MS / 1000
                slices += 1
                time.sleep(max(0.0, due - time.monotonic()))
                self._slice(due, ends_tick=slices % self._tick_slices == 0)
                due += self._note_lag(time.monotonic() - due)
        finally:
            spinner.stop()
            self.destroy_node()

    def _start_episode(self) -> None:
        self._episode += 1
        self._task.reset(self._seeds[self._episode])
        self._command = None
        self._commanded = self._judging = self._ended = False
        self._lags, self._lost = [], 0.0
        self._stamps.calibrate()
        self._reset_wanted.clear()
        self._reset_done.set()

    def _slice(self, due: float, ends_tick: bool) -> None:
        command, self._command = self._command, None
        if command is not None and not self._ended:
            self._task.set_target(command, 1 / self._settings.command_rate_hz)
            self._commanded = True
        self._task.advance(SLICE_MS)
        stamp = to_time(self._stamps.wall_ns(due))
        for sample in self._task.pull_wrench():
            for wrench in self._wrenches:
                wrench.publish(wrench_to_msg(sample, stamp, self._settings.tool_frame))
        pose = pose_to_msg(self._task.measured_pose(), stamp, self._settings.world_frame)
        for publisher in self._poses:
            publisher.publish(pose)
        if ends_tick:
            self._judge()
            for key, image in self._task.images().items():
                self._images[key].publish(image_to_msg(image, stamp, key))

    def _judge(self) -> None:
        """The judge counts from the first whole tick with commands on."""
        verdict = self._task.end_tick() if self._judging else None
        if verdict is not None:
            self._judging, self._ended = False, True
            self._report(verdict)
        elif self._commanded and self._episode >= 0 and not self._ended:
            self._judging = True
            self._task.begin_tick()

    def _note_lag(self, lag: float) -> float:
        """Note how late the slice was done [s]; how much of that to write off."""
        self._lags.append(max(0.0, lag))
        lost = lag if lag > GIVE_UP else 0.0
        self._lost += lost
        return lost

    def _report(self, verdict: Verdict) -> None:
        p50, p99, worst = np.percentile(1000 * np.array(self._lags), [50, 99, 100])
        report = EpisodeReport(
            episode=self._episode,
            seed=self._seeds[self._episode],
            success=verdict.success,
            outcome=verdict.outcome,
            metrics=dict(verdict.metrics),
            lag_ms_p50=float(p50),
            lag_ms_p99=float(p99),
            lag_ms_max=float(worst),
            lost_s=self._lost,
        )
        self._episodes.publish(String(data=json.dumps(asdict(report))))

    def _on_command(self, msg: PoseStamped) -> None:
        try:
            self._command = msg_to_pose(msg)
        except SpecError as error:
            self.get_logger().error(f"command ignored: {error}")

    def _on_reset(self, _: Any, response: Any) -> Any:
        following = self._episode + 1
        if following >= len(self._seeds):
            response.success = False
            response.message = f"all {len(self._seeds)} episodes are done; start the node anew."
            return response
        self._reset_done.clear()
        self._reset_wanted.set()
        response.success = self._reset_done.wait(RESET_TIMEOUT)
        response.message = json.dumps({"episode": following, "seed": self._seeds[following]})
        if not response.success:
            response.message = f"the simulation did not reset within {RESET_TIMEOUT} s"
        return response
