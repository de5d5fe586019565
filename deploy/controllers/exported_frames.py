"""Camera frames that an exported encoder has seen in an earlier tick are not encoded again."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from data.spec import Obs
from deploy.controllers.frame_cache import FrameCache
from deploy.controllers.solve import Frames, empty_obs
from policy.backends.base import ExportedEncoder
from policy.diffusion_policy import DiffusionPolicy


def remembered_frames(policy: DiffusionPolicy) -> Frames | None:
    """What re-uses frames of `policy`, eager or exported; None where windows do not overlap."""
    encoder: torch.nn.Module = policy.encoder
    if isinstance(encoder, ExportedEncoder):
        return ExportedFrames(policy) if encoder.newest is not None else None
    return FrameCache(policy) if FrameCache.helps(policy) else None


class ExportedFrames:
    """What `FrameCache` is to eager torch, with one graph and memory that is made once.

        window of this tick        [f2 f3]
        tokens of the last tick    [t1 t2]    t2 goes in with f3, context and t3 come out

    A frame that is not known although it is not the newest (the first tick, or a tick that was
    missed) is passed through the graph as well, for its tokens. Frames are compared by content, all
    cameras of one instant together.
    """

    def __init__(self, policy: DiffusionPolicy) -> None:
        encoder = policy.encoder
        assert isinstance(encoder, ExportedEncoder)
        assert encoder.newest is not None
        self._graph, self._cameras = encoder.newest, tuple(encoder.frame_sizes)
        self._num_frames, row = policy.horizons.obs, sum(encoder.frame_sizes.values())
        windows = empty_obs(policy.spec, policy.horizons)
        newest = {key: x[:, :1] if key in self._cameras else x for key, x in windows.items()}
        newest = {key: x.contiguous() for key, x in newest.items()}
        self._views = {key: x.numpy()[0] for key, x in newest.items()}
        earlier = torch.zeros(1, self._num_frames - 1, row)
        self._earlier = earlier.numpy()[0]
        self._inputs = (earlier, *(newest[key] for key in encoder.keys))
        self._context_shape = (1, encoder.num_tokens, encoder.dim)
        # Of the last window: frames, and the rows of their tokens.
        self._seen = {key: windows[key].numpy()[0].copy() for key in self._cameras}
        self._rows = np.zeros((self._num_frames, row), np.float32)
        self._new_rows = self._rows.copy()
        self._same = {key: np.zeros(x.shape[1:], bool) for key, x in self._seen.items()}
        self._out: Tensor | None = None
        self.reset()

    def reset(self) -> None:
        """Forget all frames."""
        self._has_seen = False
        self.encoded = 0  # instants since reset

    def encode(self, obs: Obs, batch: Mapping[str, Tensor]) -> Tensor:
        """Context (1, N, D) of the windows `obs`, good until the next call; `batch` is not read."""
        for key, view in self._views.items():
            if key not in self._cameras:
                np.copyto(view, obs[key])
        for frame in range(self._num_frames):
            known = self._find(obs, frame) if frame < self._num_frames - 1 else None
            if known is None:
                self._run(obs, frame)
            else:
                self._new_rows[frame] = self._rows[known]
            self._earlier[:] = self._new_rows[:-1]
        for key, seen in self._seen.items():
            np.copyto(seen, obs[key])
        self._rows[:] = self._new_rows
        self._has_seen = True
        return self._context

    def _find(self, obs: Obs, frame: int) -> int | None:
        """Where in the last window this frame was."""
        if not self._has_seen:
            return None
        # The shift by one tick is the rule, so the search begins there.
        for step in range(1, self._num_frames + 1):
            index = (frame + step) % self._num_frames
            if all(self._is_same(key, obs, frame, index) for key in self._cameras):
                return index
        return None

    def _is_same(self, key: str, obs: Obs, frame: int, index: int) -> bool:
        same = np.equal(obs[key][frame], self._seen[key][index], out=self._same[key])
        return bool(same.all())

    def _run(self, obs: Obs, frame: int) -> None:
        """Pass a frame through the graph: its row, and the context if it is the newest."""
        for key in self._cameras:
            np.copyto(self._views[key][0], obs[key][frame])
        out = self._graph(*self._inputs)
        if out is not self._out:  # an engine that writes to one place gives one tensor
            split = out.shape[1] - self._rows.shape[1]
            self._out, self._row = out, out[0, split:].numpy()
            self._context = out[:, :split].reshape(self._context_shape)
        self._new_rows[frame] = self._row
        self.encoded += 1
