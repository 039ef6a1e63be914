"""Miniature archives in MNIST's layout, and a server for them."""

import contextlib
import functools
import gzip
import http.server
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tensorflow_datasets.core.download import checksums

from experiments.data import mnist


def idx(array: np.ndarray) -> bytes:
    """A gzipped idx file."""
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return gzip.compress(header + array.tobytes(), mtime=0)


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def miniature(folder: Path, port: int | None = None, like: Any = mnist.Mnist) -> Any:
    """A builder `like` another that knows the archives in `folder`, and downloads from `port`."""
    url = f"http://127.0.0.1:{port or free_port()}/"

    class Miniature(like, skip_registration=True):  # pyright: ignore[reportGeneralTypeIssues, reportCallIssue]
        name = like.name
        URL = url
        url_infos = {  # noqa: RUF012
            url + path.name: checksums.compute_url_info(path) for path in folder.iterdir()
        }

    return Miniature


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[int]:
    """Serve `folder` over HTTP; yields the port."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()
