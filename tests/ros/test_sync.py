from __future__ import annotations

import numpy as np
import pytest

from deploy.ros2.settings import SensorLimits
from deploy.ros2.sync import ObservationBuffer
from tests.ros.kinematic_task import KINEMATIC_SPEC

IMAGES = ("wrist_rgb", "scene_rgb")


def buffer(**limits: float) -> ObservationBuffer:
    return ObservationBuffer(KINEMATIC_SPEC, SensorLimits(**limits))  # type: ignore[arg-type]


def feed(
    into: ObservationBuffer,
    seconds: float,
    start: float = 100.0,
    lost: tuple[int, ...] = (),
    without: tuple[str, ...] = (),
) -> None:
    """Sensors from `start` on, in a robot's order; the values are milliseconds."""
    for k in range(round(100 * seconds) + 1):
        stamp, milliseconds = start + k / 100, 10 * k
        if "wrench" not in without and k not in lost:
            into.add("wrench", stamp, np.full(6, milliseconds, np.float32))
        if "pose" not in without:
            into.add("pose", stamp, np.full(9, milliseconds, np.float32))
        for key in IMAGES:
            if k % 10 == 0 and key not in without:
                into.add(key, stamp, np.full((8, 6, 3), k // 10, np.uint8))


def test_an_observation_holds_what_all_sensors_said_at_its_stamp() -> None:
    sensors = buffer()
    feed(sensors, 0.1)
    taken = sensors.take()
    assert taken is not None
    obs, stamp = taken
    KINEMATIC_SPEC.check_obs(obs)
    assert stamp == pytest.approx(100.1)
    assert obs["wrist_rgb"][0, 0, 0] == obs["scene_rgb"][0, 0, 0] == 1
    assert obs["pose"][0] == 100
    np.testing.assert_array_equal(obs["wrench"][:, 0], np.arange(10, 101, 10))


def test_ticks_come_oldest_first_and_once() -> None:
    sensors = buffer()
    feed(sensors, 0.5)
    stamps = []
    while (taken := sensors.take()) is not None:
        stamps.append(taken[1])
    np.testing.assert_allclose(stamps, 100 + np.array([0.1, 0.2, 0.3, 0.4, 0.5]))


def test_it_waits_for_the_second_camera() -> None:
    sensors = buffer()
    feed(sensors, 0.1, without=("scene_rgb",))
    assert sensors.take() is None
    sensors.add("scene_rgb", 100.13, np.zeros((8, 6, 3), np.uint8))
    taken = sensors.take()
    assert taken is not None
    assert taken[1] == pytest.approx(100.1)


def test_it_waits_for_the_last_wrench_sample() -> None:
    sensors = buffer()
    feed(sensors, 0.1, lost=(10,))
    assert sensors.take() is None
    sensors.add("wrench", 100.1, np.zeros(6, np.float32))
    assert sensors.take() is not None


def test_two_lost_wrench_samples_become_the_last_value() -> None:
    sensors = buffer()
    feed(sensors, 0.12, lost=(5, 6))
    taken = sensors.take()
    assert taken is not None
    np.testing.assert_array_equal(taken[0]["wrench"][3:7, 0], [40, 40, 40, 70])
    assert sensors.filled == 2


def test_three_lost_wrench_samples_cost_the_observation() -> None:
    sensors = buffer()
    feed(sensors, 0.22, lost=(5, 6, 7))
    taken = sensors.take()
    assert taken is not None
    assert taken[1] == pytest.approx(100.2)
    assert sensors.dropped == 2  # the image before the first wrench samples, and this one


def test_a_lost_image_costs_its_tick_only() -> None:
    sensors = buffer()
    feed(sensors, 0.1)
    feed(sensors, 0.1, start=100.11, without=IMAGES)
    feed(sensors, 0.1, start=100.3, without=())
    stamps = []
    while (taken := sensors.take()) is not None:
        stamps.append(round(taken[1], 6))
    assert 100.1 in stamps
    assert 100.4 in stamps


def test_a_faster_camera_is_thinned_to_the_policy_rate() -> None:
    sensors = buffer()
    for k in range(61):
        stamp = 100 + k / 100
        sensors.add("wrench", stamp, np.zeros(6, np.float32))
        sensors.add("pose", stamp, np.zeros(9, np.float32))
    for k in range(19):
        for key in IMAGES:
            sensors.add(key, 100 + k / 30, np.zeros((8, 6, 3), np.uint8))
    stamps = []
    while (taken := sensors.take()) is not None:
        stamps.append(taken[1])
    np.testing.assert_allclose(np.diff(stamps), 0.1, atol=1e-6)


def test_without_cameras_ticks_follow_the_first_sensor() -> None:
    sensors = ObservationBuffer(KINEMATIC_SPEC.select(["pose", "wrench"]), SensorLimits())
    for k in range(41):
        for key, size in (("wrench", 6), ("pose", 9)):
            sensors.add(key, 100 + k / 100, np.zeros(size, np.float32))
    stamps = []
    while (taken := sensors.take()) is not None:
        stamps.append(taken[1])
    assert len(stamps) >= 3
    np.testing.assert_allclose(np.diff(stamps), 0.1, atol=0.011)


def test_clear_ignores_what_was_stamped_before() -> None:
    sensors = buffer()
    feed(sensors, 0.3)
    sensors.clear(since=100.25)
    feed(sensors, 0.4)
    taken = sensors.take()
    assert taken is not None
    assert taken[1] == pytest.approx(100.4)
    assert taken[0]["wrench"].min() >= 250


def test_an_old_sample_never_replaces_a_newer_one() -> None:
    sensors = buffer()
    feed(sensors, 0.1)
    sensors.add("pose", 100.05, np.full(9, -1, np.float32))
    newest = sensors.newest("pose")
    assert newest is not None
    assert newest[0] == 100
    assert sensors.out_of_order == 1


@pytest.mark.parametrize(("key", "limit"), [("wrench", 0.05), ("pose", 0.05), ("wrist_rgb", 0.2)])
def test_each_sensor_has_its_own_limit_of_age(key: str, limit: float) -> None:
    sensors = buffer()
    feed(sensors, 0.3)
    fresh = round(limit - 0.01, 2)
    feed(sensors, fresh, start=100.3, without=(key,))
    assert sensors.stale(100.3 + fresh) is None
    feed(sensors, 0.02, start=100.3 + fresh, without=(key,))
    reason = sensors.stale(100.3 + fresh + 0.02)
    assert reason is not None
    assert reason.startswith(key)


def test_a_silent_sensor_is_stale_by_name() -> None:
    sensors = buffer()
    feed(sensors, 0.1, without=("wrench",))
    reason = sensors.stale(100.1)
    assert reason is not None
    assert "wrench has not come yet" in reason


def test_a_stamp_from_the_future_is_stale() -> None:
    sensors = buffer()
    feed(sensors, 0.1)
    reason = sensors.stale(99.9)
    assert reason is not None
    assert "synchronise" in reason
