"""Windows a second from disk and from an S3 server of this machine that answers late.

`python -m tests.remote_reading DEMOS [CACHE_MB [DELAY]]` trains on nothing: it reads one epoch in
the order of training, with a cache that holds a part of the dataset.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.data import BatchSampler

from data.dataset import WindowDataset
from data.formats import remote
from data.formats.zarr_store import open_zarr
from data.spec import Horizons
from tests.s3_server import CREDENTIALS, s3_server, upload

BATCH = 64


def measure(name: str, path: str, options: Mapping[str, Any] | None, cache_mb: float) -> None:
    started = time.monotonic()
    store = open_zarr(path, options)
    opened = time.monotonic() - started
    dataset = WindowDataset(store, Horizons(), cache_bytes=int(cache_mb * 2**20))
    waits = []
    for indices in BatchSampler(dataset.sampler(0), BATCH, drop_last=True):
        started = time.monotonic()
        dataset.__getitems__(indices)
        waits.append(time.monotonic() - started)
    chunks = sum(cache.misses for cache in dataset._caches.values())
    median = sorted(waits)[len(waits) // 2]
    print(
        f"{name:24} opened in {opened:5.2f} s, {BATCH * len(waits) / sum(waits):7.0f} windows/s, "
        f"{chunks / sum(waits):6.0f} chunks/s, median batch {median:.4f} s, "
        f"longest {max(waits):.2f} s, epoch {sum(waits):.1f} s"
    )


def main(demos: Path, cache_mb: float = 64, delay: float = 0.02) -> None:
    os.environ.update(CREDENTIALS)
    measure("disk", str(demos), None, cache_mb)
    for late in (0.0, delay):
        with s3_server(late) as endpoint:
            url, options = upload(demos, endpoint, "demos.zarr"), {"endpoint_url": endpoint}
            for readers in (1, 4, 16):
                remote.RemoteFolder.readers = readers
                measure(f"S3 +{late * 1000:g} ms, {readers} readers", url, options, cache_mb)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(float, sys.argv[2:]))
