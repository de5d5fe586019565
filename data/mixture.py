"""Several datasets trained on as one: drawn by weight, checked key by key."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from data.cache import Index, cache_needed
from data.dataset import Batch, WindowDataset
from data.formats.layout import ACTION, VALID
from data.formats.zarr_store import DatasetError, DemoStore, open_zarr
from data.sampler import EpochSampler, MixSampler
from data.spec import DataSpec, Horizons, SpecError
from data.stats import Stats, dataset_stats, mixed_stats


@dataclass(frozen=True)
class Source:
    """One dataset of a mixture, as it stands in a config.

    Args:
        path: Folder or URL.
        weight: How often its windows are drawn, beside the other datasets' weights.
        rename: {their observation key: ours}.
        storage_options: Of the URL's backend.
    """

    path: str
    weight: float = 1.0
    rename: Mapping[str, str] = field(default_factory=dict)
    storage_options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.path, str) or not isinstance(self.rename, Mapping):
            raise DatasetError(
                f"an entry of dataset.mix has a path, and rename as {{their_key: our_key}}; got "
                f"{self.path!r}, {self.rename!r}."
            )
        if not (isinstance(self.weight, (int, float)) and 0 < self.weight < math.inf):
            raise DatasetError(
                f"{self.path}: its weight must be a number above 0, got {self.weight!r}."
            )

    @classmethod
    def from_dict(cls, raw: Any) -> Source:
        """One entry of `dataset.mix`."""
        known = [entry.name for entry in fields(cls)]
        if not isinstance(raw, Mapping) or "path" not in raw or not raw.keys() <= set(known):
            raise DatasetError(
                f"an entry of dataset.mix has path and may have {', '.join(known[1:])}; "
                f"got {list(raw) if isinstance(raw, Mapping) else raw!r}."
            )
        return cls(**{key: value for key, value in raw.items() if value is not None})


class Mixture:
    """Stores that are trained on as one; often there is one.

    The spec is that of the first store. The others need not have all its keys: `check` compares
    those that a policy looks at.
    """

    def __init__(
        self, stores: Sequence[DemoStore], weights: Sequence[float] = (1.0,), about: Any = None
    ) -> None:
        self.stores, self.weights, self._about = list(stores), list(weights), about
        self.spec: DataSpec = self.stores[0].spec

    def __str__(self) -> str:
        return " + ".join(str(store.folder) for store in self.stores)

    @property
    def identity(self) -> str:
        """The same for the same stores, mixed alike."""
        names = [store.folder.identity for store in self.stores]
        return names[0] if len(names) == 1 else json.dumps([names, self._about])

    def fingerprint(self) -> dict[str, Any]:
        """What tells the episodes, and how they are mixed, from others, without reading them."""
        parts = [fingerprint(store) for store in self.stores]
        if len(parts) == 1:
            return parts[0]
        text = json.dumps([self._about, *(part["digest"] for part in parts)])
        return {
            "episodes": sum(part["episodes"] for part in parts),
            "steps": sum(part["steps"] for part in parts),
            "digest": hashlib.sha256(text.encode()).hexdigest()[:16],
        }

    def check(self, keys: Iterable[str]) -> None:
        """Raise SpecError, in one line, unless all stores have the same `keys` and actions."""
        wanted = self.spec.select(keys)
        for place, store in enumerate(self.stores[1:], 1):
            who = f"dataset.mix[{place}] ({store.folder})"
            if problem := _misfit(store.spec, wanted):
                raise SpecError(
                    f"{who}: {problem} in dataset.mix[0] ({self.stores[0].folder}); rename its "
                    "keys, convert it, or leave it out."
                )

    def stats(self, keys: Iterable[str]) -> dict[str, Stats]:
        """Statistics of `keys` and the actions as training draws them."""
        keys = list(keys)
        if len(self.stores) == 1:
            return dataset_stats(self.stores[0], keys)
        return mixed_stats(self.stores, self.weights, keys)

    def windows(
        self, horizons: Horizons, keys: Iterable[str], cache_bytes: int, **options: Any
    ) -> Windows:
        """The windows to train on; `options` are those of `WindowDataset`."""
        keys = list(keys)
        self.check(keys)
        if len(self.stores) == 1:
            return WindowDataset(self.stores[0], horizons, keys, cache_bytes, **options)
        read = [*keys, ACTION, VALID]
        least = [cache_needed(store, read, 1) for store in self.stores]
        most = [cache_needed(store, read, store.num_episodes) for store in self.stores]
        shares = cache_shares(least, most, self.weights, cache_bytes)
        parts = [
            WindowDataset(store, horizons, keys, share, **options)
            for store, share in zip(self.stores, shares, strict=True)
        ]
        return MixedWindows(parts, self.weights)


class MixedWindows(Dataset[Batch]):
    """Windows of several datasets: an epoch is as long as they are together."""

    def __init__(self, parts: Sequence[WindowDataset], weights: Sequence[float]) -> None:
        self._parts = list(parts)
        self.spec = self._parts[0].spec
        self._ends = np.cumsum([len(part) for part in self._parts])
        self.counts = epoch_counts(len(self), weights)
        if not self.counts.all():
            rare = self._parts[int(np.argmin(self.counts))]
            raise DatasetError(
                f"{rare} would never come in an epoch of {len(self)} windows; raise its weight."
            )

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __str__(self) -> str:
        return " + ".join(map(str, self._parts))

    @property
    def cache_nbytes(self) -> int:
        """Most bytes that decoded chunks can take."""
        return sum(part.cache_nbytes for part in self._parts)

    def sampler(self, seed: int) -> EpochSampler:
        """Each dataset's share of every epoch, in an order that follows from the seed."""
        return MixSampler(self._parts, self.counts, seed)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """The batch of these windows, already collated."""
        index = np.asarray(indices, np.int64)
        members = np.searchsorted(self._ends, index, side="right")
        places = [np.flatnonzero(members == member) for member in range(len(self._parts))]
        starts = self._ends - [len(part) for part in self._parts]
        batches = [
            (torch.from_numpy(place), part.__getitems__((index[place] - start).tolist()))
            for place, part, start in zip(places, self._parts, starts, strict=True)
            if len(place)
        ]
        obs = {key: _joined([(p, b["obs"][key]) for p, b in batches]) for key in self.spec.obs}
        action = _joined([(place, batch["action"]) for place, batch in batches])
        return {
            "obs": obs,
            "action": action,
            "valid": _joined([(place, batch["valid"]) for place, batch in batches]),
        }


Windows = WindowDataset | MixedWindows


def open_mixture(dataset: Mapping[str, Any]) -> Mixture:
    """What the config group `dataset` names: `mix` if there is one, else `path`."""
    if not dataset.get("mix"):
        return Mixture([open_zarr(dataset["path"], dataset.get("storage_options"))])
    sources = [Source.from_dict(entry) for entry in dataset["mix"]]
    opened = [open_zarr(source.path, source.storage_options) for source in sources]
    stores = [s.renamed(source.rename) for s, source in zip(opened, sources, strict=True)]
    about = [[source.weight, sorted(source.rename.items())] for source in sources]
    return Mixture(stores, [source.weight for source in sources], about)


def open_one(dataset: Mapping[str, Any]) -> DemoStore:
    """The one dataset that the config group `dataset` names, for commands that take no mixture."""
    mixture = open_mixture(dataset)
    if len(mixture.stores) > 1:
        raise DatasetError("dataset.mix is for `prise train`; give one dataset.path here.")
    return mixture.stores[0]


def epoch_counts(length: int, weights: Sequence[float]) -> Index:
    """Whole numbers in proportion to the weights that add up to `length` (largest remainders)."""
    exact = length * np.asarray(weights, np.float64) / np.sum(weights)
    counts: Index = np.floor(exact).astype(np.int64)
    counts[np.argsort(counts - exact, kind="stable")[: length - counts.sum()]] += 1
    return counts


def cache_shares(
    least: Sequence[int], most: Sequence[int], weights: Sequence[float], total: int
) -> list[int]:
    """Bytes of cache for each dataset: what it cannot do without, the rest by weight."""
    left, heavy = total - sum(least), float(sum(weights))
    if left < 0:
        raise ValueError(
            f"cache_bytes is {total}, one episode of each dataset needs {sum(least)}; raise it."
        )
    shares, wish = list(least), [m - n for m, n in zip(most, least, strict=True)]
    # Those that are soon content come first: what they leave is for the others.
    for place in sorted(range(len(wish)), key=lambda m: wish[m] / weights[m]):
        more = min(wish[place], int(left * weights[place] / heavy))
        shares[place] += more
        left, heavy = left - more, heavy - weights[place]
    return shares


def fingerprint(store: DemoStore, episodes: int | None = None) -> dict[str, Any]:
    """What tells the (first so many) episodes of a dataset from others, without reading them."""
    ends, seeds = store.episode_ends[:episodes], store.seeds[:episodes]
    digest = hashlib.sha256(ends.tobytes() + seeds.tobytes()).hexdigest()[:16]
    return {"episodes": len(ends), "steps": int(ends[-1]) if len(ends) else 0, "digest": digest}


def _misfit(have: DataSpec, wanted: DataSpec) -> str | None:
    """The first difference, as `... is X, but Y`."""
    if have.rate_hz != wanted.rate_hz:
        return f"its rate is {have.rate_hz:g} Hz, but {wanted.rate_hz:g} Hz"
    for key, need in wanted.obs.items():
        if key not in have.obs:
            return f"it has no observation {key!r} (it has {sorted(have.obs)}), which is"
        for name, value in asdict(need).items():
            if (other := getattr(have.obs[key], name)) != value:
                return f"the {name} of observation {key!r} is {other!r}, but {value!r}"
    for name, value in asdict(wanted.action).items():
        if (other := getattr(have.action, name)) != value:
            return f"the {name} of its actions are {other!r}, but {value!r}"
    return None


def _joined(parts: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Rows of all parts, each at its places."""
    rows = sum(len(place) for place, _ in parts)
    out = parts[0][1].new_empty((rows, *parts[0][1].shape[1:]))
    for place, value in parts:
        out[place] = value
    return out
