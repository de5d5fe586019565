"""A process that speaks S3 over a socket of this machine, as object storage does.

`python -m tests.s3_server PORT DELAY` is that process; it answers after DELAY seconds.
"""

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
from typing import Any

BUCKET = "demos"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "an-id",
    "AWS_SECRET_ACCESS_KEY": "not-to-be-seen",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@contextlib.contextmanager
def s3_server(delay: float = 0.0, **environment: str) -> Iterator[str]:
    """The endpoint of a server of its own, with one empty bucket."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    endpoint = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.s3_server", str(port), str(delay)],
        cwd=Path(__file__).parents[1],
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


def serve(port: int, delay: float) -> None:
    """Answer until killed, each request in a thread of its own."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import run_simple

    app = DomainDispatcherApplication(create_backend_app)

    def late(environ: Any, start_response: Any) -> Any:
        time.sleep(delay)
        return app(environ, start_response)

    run_simple("127.0.0.1", port, late, threaded=True)


if __name__ == "__main__":
    serve(int(sys.argv[1]), float(sys.argv[2]))
