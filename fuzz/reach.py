"""Which steps of our code an input makes it take: one line after another, in the files of `dicomnode`."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final

import dicomnode

Step = tuple[str, int, int]
"""File, line before, line."""

_OURS: Final = str(Path(dicomnode.__file__).parent)


def steps_of(target: Callable[[bytes], None], content: bytes) -> set[Step]:
    """The steps taken while `target` is given `content`."""
    steps: set[Step] = set()

    def enter(frame: FrameType, _event: str, _argument: Any) -> Any:
        file = frame.f_code.co_filename
        if not file.startswith(_OURS):
            return None
        before = 0

        def follow(frame: FrameType, event: str, _argument: Any) -> Any:
            nonlocal before
            if event == "line":
                steps.add((file, before, frame.f_lineno))
                before = frame.f_lineno
            return follow

        return follow

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sys.settrace(enter)
        try:
            target(content)
        finally:
            sys.settrace(None)
    return steps
