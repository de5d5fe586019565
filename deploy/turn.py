"""One rotation in plain numbers, for the command loop: numpy's calls cost more than the sums do."""

from __future__ import annotations

import math
from collections.abc import Sequence

TINY = 1e-8  # a half sine below this has no direction


class Turn:
    """A rotation about an axis, out of any two independent columns (rot6d) by Gram-Schmidt.

    `data.rotation` does the same for arrays; a test holds the two equal. Raises ValueError where
    the columns span no plane.
    """

    def __init__(self, rot6d: Sequence[float]) -> None:
        xx, xy, xz, yx, yy, yz = rot6d
        length = math.sqrt(xx * xx + xy * xy + xz * xz)
        if not length > TINY:  # also catches NaN
            raise ValueError(f"{list(rot6d)} is no rotation: the first column has no length.")
        xx, xy, xz = xx / length, xy / length, xz / length
        along = xx * yx + xy * yy + xz * yz
        yx, yy, yz = yx - along * xx, yy - along * xy, yz - along * xz
        length = math.sqrt(yx * yx + yy * yy + yz * yz)
        if not length > TINY:
            raise ValueError(f"{list(rot6d)} is no rotation: the columns are parallel.")
        yx, yy, yz = yx / length, yy / length, yz / length
        self.rot6d = [xx, xy, xz, yx, yy, yz]  # orthonormal
        zx, zy, zz = xy * yz - xz * yy, xz * yx - xx * yz, xx * yy - xy * yx
        w, x, y, z = _quaternion((xx, xy, xz), (yx, yy, yz), (zx, zy, zz))
        sine = math.sqrt(x * x + y * y + z * z)
        self.angle = 2 * math.atan2(sine, w)  # [rad], 0 .. pi
        per_sine = 2.0 if sine < TINY else self.angle / sine
        self._vector = (x * per_sine, y * per_sine, z * per_sine)  # axis times angle

    def times(self, fraction: float) -> list[float]:
        """The rot6d of `fraction` of the angle about the same axis (Rodrigues)."""
        if fraction == 1.0:
            return list(self.rot6d)
        x, y, z = (fraction * v for v in self._vector)
        angle = fraction * self.angle
        cosine = math.cos(angle)
        if abs(angle) < TINY:
            s, c = 1.0, 0.5
        else:
            s, c = math.sin(angle) / angle, 2 * (math.sin(angle / 2) / angle) ** 2
        return [
            cosine + c * x * x, c * x * y + s * z, c * x * z - s * y,
            c * x * y - s * z, cosine + c * y * y, c * y * z + s * x,
        ]  # fmt: skip


Column = tuple[float, float, float]


def _quaternion(a: Column, b: Column, c: Column) -> tuple[float, float, float, float]:
    """Unit (w, x, y, z) with w >= 0 of the matrix with these columns, by its largest part."""
    (xx, yx, zx), (xy, yy, zy), (xz, yz, zz) = a, b, c
    squares = 1 + xx + yy + zz, 1 + xx - yy - zz, 1 - xx + yy - zz, 1 - xx - yy + zz
    largest = max(range(4), key=squares.__getitem__)
    wx, wy, wz = zy - yz, xz - zx, yx - xy
    sx, sy, sz = xy + yx, xz + zx, yz + zy
    rows = (
        (squares[0], wx, wy, wz),
        (wx, squares[1], sx, sy),
        (wy, sx, squares[2], sz),
        (wz, sy, sz, squares[3]),
    )
    row = rows[largest]
    scale = math.copysign(1 / math.sqrt(sum(v * v for v in row)), row[0])
    return row[0] * scale, row[1] * scale, row[2] * scale, row[3] * scale
