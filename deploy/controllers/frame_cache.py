"""Camera frames that were encoded in an earlier tick are not encoded again."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.spec import Obs
from policy.diffusion_policy import DiffusionPolicy
from policy.encoders.vision import camera_encoders

Frame = NDArray[np.uint8]


class FrameCache:
    """Encodes windowed observations, of each camera only the frames that the last window lacked.

        window of the last tick    [f1 f2]
        window of this tick           [f2 f3]    f2 is known, f3 is encoded

    Frames are compared by content and not by stamp: windows carry none, a comparison takes
    microseconds where encoding takes hundreds, and a frame that was repeated, skipped or delivered
    twice can never be taken for another one.

    Frames are encoded one at a time, so that a token does not depend on how many were new; from a
    whole window encoded at once it differs by rounding.
    """

    def __init__(self, policy: DiffusionPolicy) -> None:
        self._policy = policy
        self._cameras = camera_encoders(policy.encoder)
        self.reset()

    @staticmethod
    def helps(policy: DiffusionPolicy) -> bool:
        """True where windows overlap: more than one frame of a camera that is encoded by frame."""
        return policy.horizons.obs > 1 and bool(camera_encoders(policy.encoder))

    def reset(self) -> None:
        """Forget all frames."""
        self._known: dict[str, list[tuple[Frame, Tensor]]] = {key: [] for key in self._cameras}
        self.encoded = 0  # frames since reset, of all cameras

    def encode(self, obs: Obs, batch: Mapping[str, Tensor]) -> Tensor:
        """Context (1, N, D) of the windows `obs`, which `batch` holds as tensors."""
        encoder, normalizer = self._policy.encoder, self._policy.normalizer
        tokens = {}
        for key in encoder.keys:
            if key in self._cameras:
                tokens[key] = self._tokens(key, obs[key], batch[key])
            else:
                tokens[key] = encoder.encoders[key](normalizer.normalize(key, batch[key]))
        context: Tensor = encoder.fusion(tokens)
        return context

    def _tokens(self, key: str, window: Frame, batch: Tensor) -> Tensor:
        """Tokens (1, To * n, dim) of a camera's window (To, H, W, C)."""
        earlier, now = self._known[key], list[tuple[Frame, Tensor]]()
        for index, frame in enumerate(window):
            known = next((k for k in (*now, *earlier) if np.array_equal(k[0], frame)), None)
            if known is None:
                pixels = self._policy.normalizer.normalize(key, batch[:, index : index + 1])
                known = frame.copy(), self._cameras[key].frames(pixels)
                self.encoded += 1
            now.append(known)
        self._known[key] = now
        return torch.cat([token for _, token in now], 1)
