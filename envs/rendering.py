"""Off-screen rendering with one graphics context per process, shared by all episodes.

Opening a context costs more than a second of frames, so it is kept and only textures are uploaded
for a new model. Sites, tendons and shadows are not drawn: they would show the state of the glue.
Never train in a process that renders: OSMesa and Triton crash when both are loaded.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

SITE_GROUPS = 6


class OffscreenRenderer:
    """Renders named cameras of any model into (size, size, 3) uint8 frames."""

    def __init__(self, size: int) -> None:
        self.size = size
        os.environ.setdefault("LP_NUM_THREADS", "1")  # more threads only fight the other workers
        self._gl = mujoco.GLContext(size, size)
        self._gl.make_current()
        self._option = mujoco.MjvOption()
        self._option.sitegroup[:] = 0
        self._option.tendongroup[:] = 0
        self._perturb = mujoco.MjvPerturb()
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._rect = mujoco.MjrRect(0, 0, size, size)
        self._model: Any = None
        self._scene: Any = None
        self._context: Any = None

    def bind(self, model: mujoco.MjModel) -> None:
        """Draw `model` from now on."""
        self._gl.make_current()
        if self._context is None:
            self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50)
            mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        else:
            for texture in range(model.ntex):
                mujoco.mjr_uploadTexture(model, self._context, texture)
        self._scene = mujoco.MjvScene(model, maxgeom=100)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self._scene.flags[flag] = 0
        self._model = model

    def render(self, model: mujoco.MjModel, data: mujoco.MjData, camera: str) -> NDArray[np.uint8]:
        """One frame of `camera`, top row first."""
        if model is not self._model:
            self.bind(model)
        self._gl.make_current()
        self._camera.fixedcamid = model.camera(camera).id
        mujoco.mjv_updateScene(
            model,
            data,
            self._option,
            self._perturb,
            self._camera,
            mujoco.mjtCatBit.mjCAT_ALL,
            self._scene,
        )
        frame = np.empty((self.size, self.size, 3), np.uint8)
        mujoco.mjr_render(self._rect, self._scene, self._context)
        mujoco.mjr_readPixels(frame, None, self._rect, self._context)
        return frame[::-1].copy()


@lru_cache(maxsize=4)
def shared_renderer(size: int) -> OffscreenRenderer:
    """The process's renderer for frames of this size."""
    return OffscreenRenderer(size)
