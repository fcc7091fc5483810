"""Decoding for destinations that take no compressed objects, in the processes that decode for engines too."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from dicomnode.core.ports import Worker
from dicomnode.core.types import DecodedPixels

_TIMEOUT_S: Final = 300.0


class WorkerTranscoder:
    """A `Transcoder`: `worker` does its operation "decode_native" with a file in the existing `folder`."""

    def __init__(self, worker: Worker, folder: Path) -> None:
        self._worker = worker
        self._folder = folder

    @contextmanager
    def decoded(self, path: Path) -> Iterator[DecodedPixels]:
        """See `dicomnode.core.ports.Transcoder`."""
        out = self._folder / f"{uuid.uuid4().hex}.pixels"
        try:
            found = self._worker.call("decode_native", _TIMEOUT_S, path=str(path), out=str(out))
            yield DecodedPixels(
                out, found["photometric_interpretation"], found["samples_per_pixel"], found["bits_allocated"]
            )
        finally:
            out.unlink(missing_ok=True)
