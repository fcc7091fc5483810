"""Files that are there whole, or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

PRIVATE: Final = 0o600
"""Keys, plans, proofs: what this user alone may read."""

UNFINISHED: Final = ".unfinished-"
"""How the name of a file begins that a killed process may leave behind."""

GIVEN_ON: Final = 0o644
"""Files of a bundle: whoever may see their folder may read them."""


def write_whole(path: Path, content: bytes, mode: int = PRIVATE) -> None:
    """All of it under this name, or nothing; forced to the disk.

    mode  who may read it: PRIVATE, or GIVEN_ON; the rights of a file that was there before do not matter
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def create_once(path: Path, fill: Callable[[BinaryIO], object]) -> None:
    """A file that appears whole, made by whichever of several processes comes first; only this user may read it."""
    if path.exists():
        return
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=UNFINISHED)
    try:
        with os.fdopen(descriptor, "wb") as file:
            fill(file)
        with suppress(FileExistsError):
            os.link(name, path)
    finally:
        Path(name).unlink()
