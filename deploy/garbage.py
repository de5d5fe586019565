"""No long pauses of Python's garbage collector in a process that keeps time.

A full collection walks every container object there is. With torch and rclpy loaded that takes
140 ms, longer than a policy tick, and it comes whenever the collector thinks fit.
"""

from __future__ import annotations

import gc


def freeze_garbage_collector() -> None:
    """Collect now, then never look again at what exists: later collections see newer objects only.

    Call it when everything long-lived has been made. The collector stays on, so cycles that come
    into being afterwards are still freed.
    """
    gc.collect()
    gc.freeze()
