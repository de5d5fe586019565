"""The allocator setting is per process, so each measurement runs in one of its own."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

COUNT_FAULTS = """
import resource, sys
import numpy as np
from policy.allocator import keep_freed_memory

if sys.argv[1] == "kept":
    assert keep_freed_memory()

def allocate():
    for size in (1 << 16, 1 << 20, 5 << 20, 20 << 20):
        np.empty(size, np.uint8).fill(1)

allocate()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    allocate()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(mode: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", COUNT_FAULTS, mode], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc's malloc")
def test_memory_that_was_freed_is_reused_without_page_faults() -> None:
    assert page_faults("kept") < 0.01 * page_faults("given back")
