"""What a person sees of a training run: lines with the time that is left, tensorboard files, and pictures."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

_SHOWN_HU: Final = (-160.0, 240.0)
_ROWS: Final = 4
FIGURES: Final = "figures.csv"
"""step,term,value; of a step that was done twice, after a kill, the later lines count."""
_SEPARATOR_PX: Final = 2
_EVERY_S: Final = 10.0

Say = Callable[[str], None]


@dataclass
class Pace:
    """How fast steps are done, and when they will be."""

    total: int
    done: int
    clock: Callable[[], float] = time.monotonic
    of: str = "step"
    _began: float = field(init=False)
    _first: int = field(init=False)

    def __post_init__(self) -> None:
        self._began, self._first = self.clock(), self.done

    def line(self, done: int) -> str:
        """Like `step 1200/20000  6 %  12.3 steps/s  26 min left`; how long it takes is known after the first."""
        self.done = done
        how_far = f"{self.of} {done}/{self.total} {100 * done // self.total:3d} %"
        if done == self._first:
            return how_far
        rate = (done - self._first) / max(self.clock() - self._began, 1e-9)
        return f"{how_far}  {rate:.2f} {self.of}s/s  {spoken((self.total - done) / rate)} left"


def spoken(seconds: float) -> str:
    """A duration for people: 40 s, 12 min, 3 h 05 min."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


class Count:
    """Says how far something is that is counted: a line in ten seconds, and one at the end."""

    def __init__(self, name: str, pace: Pace, say: Say) -> None:
        self._name, self._pace, self._say = name, pace, say
        self._done, self._next = pace.done, pace.clock() + _EVERY_S

    def another(self) -> None:
        """One more is done."""
        self._done += 1
        self.note("", is_last=self._done == self._pace.total)

    def note(self, what: str, *, is_last: bool = False) -> None:
        """Something happened on the way: say it, unless a line was said just now."""
        if is_last or self._pace.clock() >= self._next:
            self._say(f"{self._name}: {self._pace.line(self._done)}  {what}".rstrip())
            self._next = self._pace.clock() + _EVERY_S


class Journal:
    """Keeps the record of one stage's run. Files go into `folder`: figures.csv, tensorboard's own, and pictures/."""

    def __init__(self, folder: Path, name: str, pace: Pace, say: Say) -> None:
        self._folder, self._name, self._pace, self._say = folder, name, pace, say
        self._first = pace.done

    @cached_property
    def _board(self) -> Any:
        """Opened by the one process that writes."""
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        self._folder.mkdir(parents=True, exist_ok=True)
        return SummaryWriter(str(self._folder / "tensorboard"), purge_step=self._first)

    def figures(self, step: int, values: Mapping[str, torch.Tensor | float]) -> None:
        """Note the terms of a step, and say how far it is."""
        numbers = {name: float(value) for name, value in values.items()}
        for name, value in numbers.items():
            self._board.add_scalar(name, value, step)
        with (self._folder / FIGURES).open("a") as file:
            file.writelines(f"{step},{name},{value:.6g}\n" for name, value in numbers.items())
        told = "  ".join(f"{name} {value:.4g}" for name, value in numbers.items())
        self._say(f"{self._name}: {self._pace.line(step)}  {told}")

    def picture(self, step: int, columns: tuple[torch.Tensor, ...]) -> None:
        """Patches side by side, in HU: a row for each patch, its columns as given."""
        grey = panel([image.detach().float().cpu().numpy() for image in columns])
        folder = self._folder / "pictures"
        folder.mkdir(exist_ok=True)
        cv2.imwrite(str(folder / f"step-{step:09d}.png"), grey)
        self._board.add_image("patches", grey, step, dataformats="HW")

    def close(self) -> None:
        if "_board" in vars(self):
            self._board.close()


def panel(columns: list[NDArray[np.float32]]) -> NDArray[np.uint8]:
    """Patches (patches, channels, rows, columns) of several kinds as one grey image, in a window of soft tissue."""
    low, high = _SHOWN_HU
    shown = [np.nan_to_num(image[:_ROWS, image.shape[1] // 2], nan=low) for image in columns]
    greys = [np.clip((image - low) / (high - low), 0, 1) for image in shown]
    framed = [np.pad(grey, ((0, 0), (0, _SEPARATOR_PX), (0, _SEPARATOR_PX)), constant_values=1) for grey in greys]
    rows = [np.concatenate([image[at] for image in framed], axis=1) for at in range(len(framed[0]))]
    return (255 * np.concatenate(rows)).astype(np.uint8)
