"""Networks that a runtime compiled for this machine and keeps, so that an engine opens sooner.

OpenVINO names them by a hash of network, processor and its own version, which nothing else knows: whether one will be
asked for again, only time tells. Each can be made again from its bundle.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Final

_KEPT_S: Final = 30 * 24 * 3600.0
_COMPILED: Final = "*.blob"


def remove_unused(folder: Path) -> int:
    """Remove what no process has read for thirty days: its bundle is gone, or a newer runtime compiled it again. On a
    disk mounted with `noatime` what was made so long ago goes, and is made again. How many were removed."""
    removed = 0
    for file in folder.glob(_COMPILED):
        with suppress(FileNotFoundError):  # another node of this machine removed it
            found = file.lstat()
            if max(found.st_atime, found.st_mtime) < time.time() - _KEPT_S:
                file.unlink()
                removed += 1
    return removed
