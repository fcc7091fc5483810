"""Files that are there whole, or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Final

PRIVATE: Final = 0o600
"""Keys, plans, proofs: what this user alone may read."""

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
