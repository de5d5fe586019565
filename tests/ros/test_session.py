"""Real processes: the nodes as the demo starts them, an untrained policy, the prying task."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

from deploy.ros2.process import Child, ProcessDiedError
from deploy.ros2.rows import session_rows
from deploy.ros2.session import SessionConfig, run_session
from tests.ros.bench_robot import wait_until
from tests.ros.pry_checkpoint import CONTROLLER, ENV, robot_config, save_untrained_pry

pytestmark = [pytest.mark.ros, pytest.mark.e2e, pytest.mark.slow]


def session(checkpoint: Path, episodes: int = 2) -> SessionConfig:
    return SessionConfig(
        checkpoint=checkpoint,
        controller=CONTROLLER,
        env=ENV,
        policy_robot=robot_config("ros2"),
        sim_robot=robot_config("sim_ros2"),
        episodes=episodes,
        seed0=3,
    )


def test_episodes_run_over_the_wire_and_end_by_the_judge(tmp_path: Path) -> None:
    checkpoint = save_untrained_pry(tmp_path / "policy")
    result = run_session(session(checkpoint), tmp_path / "out", progress=False)
    assert [episode.seed for episode in result.episodes] == [3, 4]
    for episode in result.episodes:
        assert episode.outcome == "over_force"  # it pushed, as it was told
        assert len(episode.latency_s) > 5
        assert episode.nfe[0] == 2
        assert set(episode.nfe[1:]) == {1}
    written = json.loads((tmp_path / "out" / "session.json").read_text())
    assert [episode["seed"] for episode in written["episodes"]] == [3, 4]
    names = {row.name for row in session_rows(result, {"task": "pry"})}
    assert {"success", "tick_ms", "nfe_per_tick", "deadline_misses"} <= names


def test_a_node_that_dies_is_reported_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(ProcessDiedError, match=r"policy_node.*status 2(?s:.*)nowhere"):
        run_session(session(tmp_path / "nowhere"), tmp_path / "out", progress=False)


def test_a_node_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    config = tmp_path / "sim.json"
    config.write_text(
        json.dumps({"robot": robot_config("sim_ros2"), "env": ENV, "episodes": 1, "seed0": 0})
    )
    code = (
        "import sys, time; from pathlib import Path; from deploy.ros2.process import Child\n"
        "child = Child('node', ['deploy.ros2.commands', sys.argv[1], '--with-parent'],"
        " Path(sys.argv[2]), {})\n"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    root = Path(__file__).parents[2]
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(config), str(tmp_path / "log")],
        stdout=subprocess.PIPE,
        cwd=root,
        text=True,
    )
    assert parent.stdout is not None
    node = int(parent.stdout.readline())
    log = tmp_path / "log"
    wait_until(lambda: "ready" in log.read_text(), timeout=30, what="a running node")
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_until(lambda: not is_running(node), timeout=10, what="the end of the node")


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # An orphan that nobody reaps stays as a zombie in some containers.
    return "Z (zombie)" not in Path(f"/proc/{pid}/status").read_text()


def test_stop_ends_a_process_that_does_not_listen(tmp_path: Path) -> None:
    (tmp_path / "deaf.py").write_text(
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('deaf', flush=True)\ntime.sleep(60)\n"
    )
    child = Child("deaf one", ["deaf"], tmp_path / "log", {"PYTHONPATH": str(tmp_path)})
    wait_until(lambda: "deaf" in (tmp_path / "log").read_text())
    child.stop(timeout=0.2)
    with pytest.raises(ProcessDiedError, match="status -9"):
        child.check()
