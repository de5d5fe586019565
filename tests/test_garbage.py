"""The collector's state is per process, so it is looked at in one of its own."""

from __future__ import annotations

import subprocess
import sys

FREEZE = """
import gc
from deploy.garbage import freeze_garbage_collector

class Node:
    alive = 0
    def __init__(self):
        Node.alive += 1
        self.me = self
    def __del__(self):
        Node.alive -= 1

kept = [[] for _ in range(10_000)]
Node()
freeze_garbage_collector()
assert Node.alive == 0, "what was garbage already is not kept for ever"
assert gc.isenabled()
looked_at = {id(thing) for thing in gc.get_objects()}
assert not any(id(thing) in looked_at for thing in kept), "full collections still walk old objects"
Node()
gc.collect()
assert Node.alive == 0, "new cycles are no longer freed"
"""


def test_after_freezing_only_new_objects_are_collected() -> None:
    done = subprocess.run([sys.executable, "-c", FREEZE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
