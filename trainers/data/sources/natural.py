"""Photographs in folders, such as DIV2K's and Kodak's: PNG and JPEG, colour or grey."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from trainers.data.archives import files_below
from trainers.data.pictures import read_picture
from trainers.data.series import Credit, Picture
from trainers.errors import SourceError

_SUFFIXES: Final = (".png", ".jpg", ".jpeg")


def read_natural(folder: Path, credit: Credit) -> Iterator[Picture]:
    """The photographs below a folder, by name. Raises SourceError where there are none, or one is damaged."""
    files = [path for path in files_below(folder) if path.suffix.lower() in _SUFFIXES]
    if not files:
        raise SourceError(f"{folder.name} holds no PNG or JPEG", "give a folder of photographs")
    for path in files:
        grey = np.rint(read_picture(path, grey=True)).astype(np.uint8)
        yield Picture(path.relative_to(folder).as_posix(), grey, credit)
