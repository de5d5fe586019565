"""The prying scene as MJCF: tray, cell with a lip, glue or clamp, tool on impedance joints.

      lip ____                         The cell (60 x 40 x 8 mm) lies in a tray; its lip
     ====|    |____________  far rim   overhangs a gap in front. The blade goes in over the near
   rim   | cell            |__         rim, under the lip, and levers the cell up. Six
    _____|_________________|__|__      tension-only tendons are the glue.

The tool's joints sit at the tool centre point (the tip of the blade), so qpos is the tool pose.
Contact values: elliptic cone and stiff solref at 1 ms, since the gap is 3-4.5 mm.
"""

from __future__ import annotations

import math

import numpy as np

from envs.pry.parameters import Look, PryParameters

TIMESTEP = 0.001  # [s]
GLUE_ROWS = (-0.022, -0.006, 0.010)  # [m]; the last row still carries load when it breaks
GLUE_SIDES = (-0.012, 0.012)
TENDON_REST = 0.010
STIFFNESS_LINEAR = 20_000.0  # [N/m]; softer, and the jump of the measured pose shows the release
STIFFNESS_ANGULAR = 150.0  # [N m/rad]
FLANGE_IN_TOOL = (-0.05, 0.0, 0.0405)  # the wrist's force-torque sensor, from the tip
RIDGE_X, RIDGE_HALF_Z = -0.02, 0.0005  # of the ridges that the clamp's plungers hold down
NUM_GLUE = len(GLUE_ROWS) * len(GLUE_SIDES)
CELL_HALF = {  # half sizes of the cell body [m]
    "box": (0.030, 0.020, 0.004),
    "round": (0.030, 0.008, 0.004),
    "pouch": (0.030, 0.020, 0.0025),
    "series": (0.030, 0.020, 0.004),
}


def build_mjcf(p: PryParameters) -> str:
    """MJCF text of one episode."""
    look = p.look
    damping = 2 * math.sqrt(1.4 * STIFFNESS_LINEAR)
    return f"""
<mujoco model="pry">
 <option timestep="{TIMESTEP}" integrator="implicitfast" cone="elliptic" impratio="10"/>
 <visual><quality shadowsize="0" offsamples="0"/><map znear="0.01" zfar="10"/>
  <headlight active="0"/>
  <global offwidth="640" offheight="640"/></visual>
 <default>
  <geom solref="0.004 1" solimp="0.95 0.99 0.0005" friction="{p.friction} 0.005 0.0001" condim="4"/>
  <default class="visual"><geom contype="0" conaffinity="0" mass="0"/></default>
 </default>
 <asset>
  <texture name="table" type="2d" builtin="{look.table[0]}" width="64" height="64"
   rgb1="{_text(look.table[1][:3])}" rgb2="{_text(look.table[2][:3])}"/>
  <material name="table" texture="table" texrepeat="40 40"/>
 </asset>
 <worldbody>
  <light directional="true" castshadow="false" dir="{_text(look.light[:3])}" pos="0 0 1"
   diffuse="{_text([look.light[3]] * 3)}" ambient="0.3 0.3 0.3" specular="0.1 0.1 0.1"/>
  <geom class="visual" type="plane" size="3 3 0.1" pos="0 0 -0.03" material="table"/>
  {_distractors(look)}
  {_tray(p)}
  {_cell(p)}
  {_clamp(p) if p.holder == "clamp" else ""}
  {_tool(look)}
  {_camera("scene", look, (-0.036, -0.17, 0.068), (1, 0, 0), (0, 0.37, 0.929), 30)}
 </worldbody>
 {_glue(p) if p.holder == "glue" else ""}
 <actuator>
  {_position_actuators(("x", "y", "z"), STIFFNESS_LINEAR, damping)}
  {_position_actuators(("yaw", "pitch", "roll"), STIFFNESS_ANGULAR, 3.5)}
 </actuator>
 <sensor>
  <force name="force" site="flange"/><torque name="torque" site="flange"/>
  {_axes_sensors()}
  <jointpos name="tip_z" joint="z"/>
  {_glue_sensors() if p.holder == "glue" else ""}
 </sensor>
</mujoco>"""


def _text(values: object) -> str:
    return " ".join(f"{float(v):.6g}" for v in np.ravel(np.asarray(values)))


def _position_actuators(joints: tuple[str, ...], stiffness: float, damping: float) -> str:
    return "\n  ".join(
        f'<position joint="{j}" kp="{stiffness}" kv="{damping:.6g}"/>' for j in joints
    )


def _distractors(look: Look) -> str:
    return "\n  ".join(
        f'<geom class="visual" type="box" pos="{_text([d[0], d[1], -0.03 + d[4]])}" '
        f'size="{_text(d[2:5])}" rgba="{_text((*d[5:8], 1))}"/>'
        for d in look.distractors
    )


def _tray(p: PryParameters) -> str:
    tray, rim = _text(p.look.rgba["tray"]), _text(p.look.rgba["rim"])
    anchors = "".join(
        f'<site name="anchor{i}" group="4" pos="{x} {y} -{TENDON_REST}"/>'
        for i, (x, y) in enumerate(_patches())
    )
    return f"""
  <body name="tray" pos="{_text((*p.xy, p.case_z))}" euler="0 0 {math.degrees(p.yaw):.6g}">
   <geom type="box" size=".06 .03 .005" pos="0 0 -.005" rgba="{tray}"/>
   <geom type="box" size=".002 .03 .001" pos="-.047 0 .001" rgba="{rim}"/>
   <geom type="box" size=".002 .03 .004" pos=".033 0 .004" rgba="{rim}"/>
   {anchors}
  </body>"""


def _patches() -> list[tuple[float, float]]:
    return [(x, y) for x in GLUE_ROWS for y in GLUE_SIDES]


def _cell(p: PryParameters) -> str:
    half = CELL_HALF[p.shape]
    cell, lip = _text(p.look.rgba["cell"]), _text(p.look.rgba["lip"])
    lip_z = p.gap + p.lip_thickness / 2 - 0.004
    ends = "".join(
        f'<site name="patch{i}" group="4" pos="{x} {y} -.004"/>'
        for i, (x, y) in enumerate(_patches())
    )
    ridge = ""
    if p.holder == "clamp":
        ridge = "".join(
            f'<geom name="{side}_ridge" type="box" size=".005 .001 {RIDGE_HALF_Z}" mass="0.0005" '
            f'pos="{RIDGE_X} {y} {0.004 - RIDGE_HALF_Z}" rgba="{cell}"/>'
            for side, y in (("left", -0.021), ("right", 0.021))
        )
    return f"""
  <body name="cell" pos="{_text((*p.xy, 0.004 + p.case_z))}" euler="0 0 {math.degrees(p.yaw):.6g}">
   <freejoint name="cell"/>
   {_cell_body(p, half, cell)}
   <geom name="lip" type="box" size=".0025 {max(half[1], 0.012)} {p.lip_thickness / 2:.6g}"
    pos="-.0325 0 {lip_z:.6g}" mass="0.002" rgba="{lip}"/>
   {ridge}{ends}
  </body>"""


def _cell_body(p: PryParameters, half: tuple[float, float, float], rgba: str) -> str:
    if p.shape == "round":  # four round cells side by side, axes along x
        return "".join(
            f'<geom type="capsule" size=".004" fromto="-.026 {y} 0 .026 {y} 0" '
            f'mass="{p.mass / 4:.6g}" rgba="{rgba}"/>'
            for y in (-0.012, -0.004, 0.004, 0.012)
        )
    if p.shape == "series":  # two cells in a row with a gap between them
        return "".join(
            f'<geom type="box" size=".0145 {half[1]} {half[2]}" pos="{x} 0 0" '
            f'mass="{p.mass / 2:.6g}" rgba="{rgba}"/>'
            for x in (-0.0155, 0.0155)
        )
    z = half[2] - 0.004
    size = _text(half)
    return f'<geom type="box" size="{size}" pos="0 0 {z:.6g}" mass="{p.mass:.6g}" rgba="{rgba}"/>'


def _glue(p: PryParameters) -> str:
    # Tension only: no force below the rest length.
    patches = "".join(
        f'<spatial name="glue{i}" group="4" stiffness="{p.stiffness:.8g}" damping="4" '
        f'springlength="0 {TENDON_REST}">'
        f'<site site="anchor{i}"/><site site="patch{i}"/></spatial>'
        for i in range(NUM_GLUE)
    )
    return f"<tendon>{patches}</tendon>"


def _axes_sensors() -> str:
    """The columns of the flange's rotation matrix, so that one array holds all of a millisecond."""
    return "".join(f'<frame{a}axis objtype="site" objname="flange"/>' for a in "xyz")


def _glue_sensors() -> str:
    return "".join(f'<tendonpos tendon="glue{i}"/>' for i in range(NUM_GLUE))


def _clamp(p: PryParameters) -> str:
    """Two sprung plungers over ridges on the cell's sides; the ridges have to push past them.

    The ridge's edge meets the sphere 47 degrees off the vertical, and the plunger is slippery:
    with the cell's friction, or met more steeply, the two lock and only the lip gives way.
    """
    radius, ridge_edge, engaged = 0.003, 0.022, 0.0008
    inner, above = ridge_edge + radius - engaged, math.sqrt(2 * radius * engaged - engaged**2)
    rgba = _text(p.look.rgba["plunger"])
    turn = f'euler="0 0 {math.degrees(p.yaw):.6g}"'
    z = p.case_z + 0.008 + p.clamp_height + above
    bodies = []
    for name, side in (("left", -1), ("right", 1)):
        local = np.array([RIDGE_X, side * inner])
        c, s = math.cos(p.yaw), math.sin(p.yaw)
        x, y = p.xy[0] + c * local[0] - s * local[1], p.xy[1] + s * local[0] + c * local[1]
        spring = -p.clamp_preload / p.clamp_stiffness  # the stop at 0 holds the preload
        bodies.append(f"""
  <body name="{name}" pos="{_text((x, y, z))}" {turn}>
   <joint name="{name}" type="slide" axis="0 {side} 0" range="0 0.02" limited="true" armature="0.02"
    stiffness="{p.clamp_stiffness:.6g}" springref="{spring:.6g}" damping="1" solreflimit="0.004 1"/>
   <geom name="{name}" type="sphere" size="{radius}" mass="0.01" rgba="{rgba}" priority="1"
    friction="0.1 0.005 0.0001"/>
   <geom class="visual" type="box" size=".003 .006 .003" pos="0 {side * 0.009} 0" rgba="{rgba}"/>
  </body>""")
    return "".join(bodies)


def _tool(look: Look) -> str:
    blade, shank = _text(look.rgba["blade"]), _text(look.rgba["shank"])
    fx, _, fz = FLANGE_IN_TOOL
    joints = "".join(
        f'<joint name="{n}" type="slide" axis="{a}" armature="1"/>'
        for n, a in (("x", "1 0 0"), ("y", "0 1 0"), ("z", "0 0 1"))
    ) + "".join(
        f'<joint name="{n}" type="hinge" axis="{a}" armature="0.02"/>'
        for n, a in (("yaw", "0 0 1"), ("pitch", "0 1 0"), ("roll", "1 0 0"))
    )
    return f"""
  <body name="wrist">{joints}
   <geom class="visual" type="sphere" size=".01" pos="{fx} 0 {fz}" mass=".3" rgba="{shank}"/>
   {_camera("wrist", look, (-0.002, 0.0, 0.085), (0, -1, 0), (0.97, 0, 0.26), 50)}
   <body name="tool"><site name="flange" group="4" pos="{fx} 0 {fz}"/><site name="tip" group="4"/>
    <geom class="visual" type="box" size=".006 .006 .02" pos="{fx} 0 {fz - 0.02}" mass=".08"
     rgba="{shank}"/>
    <geom name="blade" type="box" size=".025 .006 .0005" pos="-.025 0 .0005" mass=".02"
     rgba="{blade}"/>
   </body>
  </body>"""


def _camera(
    name: str,
    look: Look,
    pos: tuple[float, ...],
    right: tuple[float, ...],
    up: tuple[float, ...],
    fovy: float,
) -> str:
    x_axis, y_axis = np.asarray(right, float), np.asarray(up, float)
    turn = np.asarray(look.camera_turn[name])
    x_axis, y_axis = (v + np.cross(turn, v) for v in (x_axis, y_axis))
    where = np.asarray(pos) + np.asarray(look.camera_shift[name])
    axes = _text((*x_axis, *y_axis))
    return f'<camera name="{name}" pos="{_text(where)}" xyaxes="{axes}" fovy="{fovy}"/>'
