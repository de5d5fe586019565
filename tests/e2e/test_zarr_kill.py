"""A writer killed at any moment leaves whole episodes, and the next one goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data.formats.zarr_store import DatasetError, ZarrWriter, open_zarr
from tests.tiny_store import STORE_SPEC, assert_same_episode, random_episode

ROOT = Path(__file__).parents[2]

# Lengths differ, so that a stale tail would show in the next episode.
WRITER = """
import sys
from pathlib import Path
from data.formats.zarr_store import ZarrWriter
from tests.tiny_store import STORE_SPEC, random_episode

with ZarrWriter(Path(sys.argv[1]), STORE_SPEC, {}, resume=True) as writer:
    while True:
        seed = writer.num_episodes
        writer.append(random_episode(20 + seed * 37 % 50, seed))
        print(seed, flush=True)
"""


def start_writer(path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )


def assert_whole(path: Path, at_least: int) -> int:
    store = open_zarr(path)
    assert store.num_episodes >= at_least
    for index in range(store.num_episodes):
        assert_same_episode(store.episode(index), random_episode(20 + index * 37 % 50, index))
    return store.num_episodes


@pytest.mark.slow
@pytest.mark.e2e
def test_a_killed_writer_leaves_whole_episodes_and_the_next_one_goes_on(tmp_path: Path) -> None:
    path, written = tmp_path / "d", 0
    for attempt in range(6):
        with start_writer(path) as process:
            assert process.stdout is not None
            printed = [int(process.stdout.readline()) for _ in range(3)]
            time.sleep(0.007 * attempt)  # another place of the append each time
            with pytest.raises(DatasetError, match="has a writer already"):
                ZarrWriter(path, STORE_SPEC, {}, resume=True)
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        assert printed[0] == written  # went on where the last one was stopped
        written = assert_whole(path, at_least=printed[-1] + 1)
    with ZarrWriter(path, STORE_SPEC, {}, resume=True) as writer:
        assert writer.num_episodes == written
    assert not list(path.rglob("*.partial"))
    assert_whole(path, at_least=written)
