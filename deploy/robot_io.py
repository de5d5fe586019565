"""What a robot must be able to do; simulation and ROS 2 pass one conformance test."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from data.spec import DataSpec, Obs

# The increment that moves nothing: no translation, identity as rot6d.
STAND_STILL: NDArray[np.float64] = np.array([0, 0, 0, 1, 0, 0, 0, 1, 0], np.float64)
STAND_STILL.flags.writeable = False


class RobotIO(Protocol):
    """Sensors and commanded tool pose of one robot. Stamps are those of the loop's clock [s]."""

    @property
    def spec(self) -> DataSpec:
        """Observations and actions this robot has."""
        ...

    def observe(self) -> tuple[Obs, float] | None:
        """The next raw observation and its stamp, or None while there is nothing new.

        A robot that buffers hands its ticks out one at a time, oldest first, so that no sample of
        a fast modality is lost.
        """
        ...

    def command(self, action: NDArray[np.floating], duration: float) -> None:
        """Move the commanded tool pose by the increment `action` (A,) within `duration` [s]."""
        ...

    def hold(self) -> None:
        """Stand still where the tool is commanded now, until the next `command`."""
        ...

    def close(self) -> None:
        """Hold, then let go of the connection; a second call does nothing."""
        ...


class ResettableRobot(RobotIO, Protocol):
    """A robot that can be put back to the start of an episode."""

    def reset(self, seed: int) -> None:
        """Start episode `seed`; what was observed or commanded before is forgotten."""
        ...
