"""An S3 server for tests: moto's, in a thread of the test process."""

from __future__ import annotations

import contextlib
import logging
import urllib.request
from collections.abc import Iterator
from typing import Final

from dicomnode.store.bucket import BucketAddress
from dicomnode.testing.processes import free_port

ACCESS_KEY: Final = "testing"


@contextlib.contextmanager
def s3_server() -> Iterator[str]:
    """The endpoint of a server that is empty and forgets everything at its end."""
    from moto.server import ThreadedMotoServer  # of the test extra

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=free_port(), verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def new_bucket(endpoint: str, name: str) -> BucketAddress:
    """Make a bucket on a server; its address, with a prefix."""
    request = urllib.request.Request(f"{endpoint}/{name}", method="PUT")
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30):
        return BucketAddress(f"s3://{name}/node/files", endpoint, access_key=ACCESS_KEY, secret_key=ACCESS_KEY)
