"""The latency estimate."""

from __future__ import annotations

import numpy as np
import pytest

from deploy.latency import LatencyWindow


def test_warm_ups_do_not_count() -> None:
    window = LatencyWindow(warmup=2, initial=0.01)
    window.add(5.0)
    window.add(5.0)
    assert window.p95 == 0.01
    window.add(0.02)
    assert window.p95 == pytest.approx(0.02)


def test_p95_is_numpys_percentile_of_the_newest_values() -> None:
    window = LatencyWindow(size=50, warmup=0)
    values = np.random.default_rng(0).exponential(size=200)
    for value in values:
        window.add(float(value))
    assert window.p95 == pytest.approx(np.percentile(values[-50:], 95))


def test_one_slow_call_is_forgotten_after_the_window() -> None:
    window = LatencyWindow(size=10, warmup=0)
    window.add(100.0)
    for _ in range(10):
        window.add(0.01)
    assert window.p95 == pytest.approx(0.01)


def test_a_window_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="size"):
        LatencyWindow(size=0)
