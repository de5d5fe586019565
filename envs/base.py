"""What a task and an expert are, and how a task travels to another process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import gymnasium
import numpy as np
from numpy.typing import NDArray

from data.spec import DataSpec, Obs

Info = dict[str, Any]


@dataclass(frozen=True, eq=False)
class ExpertAction:
    """What to learn, whether to learn it, and what to execute instead where that differs.

    `executed` is `action` plus noise, so that demonstrations also show how to correct small errors.
    """

    action: NDArray[np.float32]
    valid: bool = True
    executed: NDArray[np.float32] | None = None

    @property
    def to_execute(self) -> NDArray[np.float32]:
        """The action for `env.step`."""
        return self.action if self.executed is None else self.executed


class Expert(Protocol):
    """A scripted demonstrator. The same seed and the same observations give the same actions."""

    def reset(self, seed: int) -> None:
        """Start an episode."""
        ...

    def act(self, obs: Obs, info: Info) -> ExpertAction:
        """Action for a raw observation and the `info` that came with it."""
        ...


@dataclass(frozen=True)
class EnvFactory:
    """A gymnasium id and its keyword arguments: picklable, makes the same environment anywhere."""

    id: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, **extra: Any) -> gymnasium.Env[Obs, NDArray[np.float32]]:
        """The environment; `extra` overrides `kwargs`."""
        # The passive checker costs a step's time, and our environments check their own actions.
        return gymnasium.make(self.id, disable_env_checker=True, **{**self.kwargs, **extra})


def data_spec(env: gymnasium.Env[Any, Any]) -> DataSpec:
    """The spec of a Prise environment, through any wrappers."""
    spec = getattr(env.unwrapped, "data_spec", None)
    if not isinstance(spec, DataSpec):
        raise ValueError(f"{env} has no `data_spec`: give it one, a DataSpec of what it observes.")
    return spec
