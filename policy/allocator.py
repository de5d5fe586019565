"""Keep freed memory in the process instead of handing it back to the kernel after every step.

glibc returns large blocks at once, so that each training step pays for its activations anew: a page
fault for every 4 KiB. docs/performance.md has what that costs.
"""

from __future__ import annotations

import ctypes
import logging
import platform

LOG = logging.getLogger(__name__)

# Parameter numbers of mallopt(3).
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
NEVER = 2**31 - 1  # [bytes] of free memory at the top of the heap before it is given back
OWN_MAPPING = 2**30  # [bytes] blocks from this size on are still mapped one by one


def keep_freed_memory() -> bool:
    """Tell glibc's malloc so, for the whole process; False where the allocator is another one."""
    if platform.libc_ver()[0] != "glibc":
        LOG.info("the allocator is not glibc's: page faults of large tensors remain.")
        return False
    mallopt = ctypes.CDLL(None).mallopt
    kept: int = mallopt(M_TRIM_THRESHOLD, NEVER) and mallopt(M_MMAP_THRESHOLD, OWN_MAPPING)
    return bool(kept)
