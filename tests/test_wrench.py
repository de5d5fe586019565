"""The wrench pipeline against closed forms and against MuJoCo's own contact forces."""

import mujoco
import numpy as np
import pytest
from scipy.signal import butter, freqz

from envs.wrench import DistalLoad, WrenchNoise, WrenchSensor

QUIET = WrenchNoise(
    force_std=0, torque_std=0, force_drift=0, torque_drift=0, force_step=1e-9, torque_step=1e-9
)
TIP = (0.0, 0.0, -0.05)

ARM = """
<mujoco><option timestep="0.001"/>
 <worldbody><geom type="box" size=".2 .2 .01" pos="0 0 -.01" solref="0.004 1"/>
  <body pos="0 0 .2">
   <joint name="z" type="slide" axis="0 0 1"/><joint name="p" type="hinge" axis="0 1 0"/>
   <geom type="box" size=".02 .02 .02" mass="1" contype="0" conaffinity="0"/>
   <body name="tool" pos="0 0 -.05"><site name="ft"/>
    <geom name="blade" type="capsule" fromto="0 0 0 0 0 -.05" size=".004" mass="0.15"/></body>
  </body></worldbody>
 <actuator><position joint="z" kp="3000" kv="120"/><position joint="p" kp="60" kv="2"/></actuator>
 <sensor><force site="ft"/><torque site="ft"/></sensor>
</mujoco>"""


def sensor(rng_seed: int = 0, noise: WrenchNoise = QUIET, **kwargs: object) -> WrenchSensor:
    load = DistalLoad(0.15, (0.0, 0.0, -0.025))
    return WrenchSensor(load, TIP, np.random.default_rng(rng_seed), noise=noise, **kwargs)  # type: ignore[arg-type]


@pytest.mark.parametrize("pitch", [0.0, 0.5, -0.8])
def test_free_space_wrench_is_zero_at_any_pitch(pitch: float) -> None:
    model = mujoco.MjModel.from_xml_string(ARM)
    data = mujoco.MjData(model)
    data.ctrl[1] = pitch
    mujoco.mj_step(model, data, 4000)
    rotation = data.site("ft").xmat.reshape(1, 3, 3)
    external = sensor().external(data.sensordata[None, :], rotation)
    assert np.abs(external).max() < 1e-3


def test_contact_force_is_that_of_the_contact() -> None:
    model = mujoco.MjModel.from_xml_string(ARM)
    data = mujoco.MjData(model)
    data.ctrl[0] = -0.12
    mujoco.mj_step(model, data, 4000)
    contact = np.zeros(6)
    mujoco.mj_contactForce(model, data, 0, contact)
    external = sensor().external(data.sensordata[None, :], data.site("ft").xmat.reshape(1, 3, 3))
    assert contact[0] > 5
    assert external[0, 2] == pytest.approx(contact[0], abs=0.01)


def test_pure_force_at_the_tip_has_no_torque_there() -> None:
    force = np.array([1.0, -2.0, 3.0])
    torque_at_sensor = np.cross(TIP, force)
    raw = -np.concatenate([force, torque_at_sensor])[None, :]
    load = DistalLoad(0.0, (0.0, 0.0, 0.0))
    no_load = WrenchSensor(load, TIP, np.random.default_rng(0), noise=QUIET)
    external = no_load.external(raw, np.eye(3)[None])
    np.testing.assert_allclose(external[0], [*force, 0, 0, 0], atol=1e-12)


def test_splitting_the_stream_changes_nothing() -> None:
    stream = np.random.default_rng(1).normal(0, 1, (400, 6))
    whole = sensor().process(stream)
    parts = sensor()
    pieces = [parts.process(part) for part in np.split(stream, [3, 10, 57, 58, 300])]
    np.testing.assert_allclose(np.concatenate(pieces), whole, atol=1e-12)


def test_output_rate_is_a_tenth_of_the_raw_rate() -> None:
    assert sensor().process(np.zeros((1000, 6))).shape == (100, 6)


def test_filter_is_a_causal_butterworth() -> None:
    hz = 20.0
    stream = np.sin(2 * np.pi * hz * np.arange(4000) / 1000)[:, None] * np.ones(6)
    out = sensor().process(stream)
    b, a = butter(2, 35.0, fs=1000)
    _, gain = freqz(b, a, worN=[hz], fs=1000)
    assert out[200:].max() == pytest.approx(abs(gain[0]), rel=0.02)
    step = np.zeros((1000, 6))
    step[500:] = 1
    assert np.abs(sensor().process(step)[:50]).max() == 0  # nothing before its cause


def test_tare_takes_the_bias_away() -> None:
    biased = sensor(bias=(0.5, -0.5, 0.4, 0.02, 0, 0))
    biased.process(np.zeros((400, 6)))
    biased.tare(biased.process(np.zeros((200, 6))))
    assert np.abs(biased.process(np.zeros((200, 6)))).max() < 1e-6


def test_noise_has_the_stated_size_and_forces_clip() -> None:
    noisy = sensor(noise=WrenchNoise(force_drift=0, torque_drift=0), cutoff_hz=499.0)
    out = noisy.process(np.zeros((50_000, 6)))
    assert out[:, :3].std() == pytest.approx(0.15, rel=0.15)
    assert sensor().process(np.full((1000, 6), 500.0))[-1, 0] == pytest.approx(80.0, rel=1e-3)
