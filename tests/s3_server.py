"""A process that speaks S3 over a socket of this machine, as object storage does."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

BUCKET = "demos"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "an-id",
    "AWS_SECRET_ACCESS_KEY": "not-to-be-seen",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@contextlib.contextmanager
def s3_server(**environment: str) -> Iterator[str]:
    """The endpoint of a server of its own, with one empty bucket."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    endpoint = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _make_bucket(endpoint, process)
        yield endpoint
    finally:
        process.terminate()
        process.wait(10)


def _make_bucket(endpoint: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    request = urllib.request.Request(f"{endpoint}/{BUCKET}", method="PUT")
    while True:
        try:
            urllib.request.urlopen(request, timeout=5).close()
            return
        except (urllib.error.URLError, ConnectionError):
            assert process.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.1)


def upload(folder: Path, endpoint: str, name: str) -> str:
    """The URL of a copy of `folder` in the bucket."""
    for file in folder.rglob("*"):
        if file.is_file():
            url = f"{endpoint}/{BUCKET}/{name}/{file.relative_to(folder)}"
            kind = {"Content-Type": "application/octet-stream"}  # urllib's own says a form's fields
            request = urllib.request.Request(url, file.read_bytes(), kind, method="PUT")
            urllib.request.urlopen(request, timeout=10).close()
    return f"s3://{BUCKET}/{name}"
