"""Files that are there whole or not at all: a kill, a full disk or a power cut leaves the one before."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write to. The name appears when the block is done and all of it is on the disk; not if it raises."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.part")
    with beside.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, noted: object, indent: int | None = None) -> None:
    """Note something as JSON."""
    with whole(path) as file:
        file.write(json.dumps(noted, indent=indent, ensure_ascii=False).encode())
