"""Checkpoints: what training needs to go on as if it had never stopped. Written whole or not at all."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from trainers.errors import CheckpointError
from trainers.whole import whole

_KEPT: Final = 2
_NAME: Final = re.compile(r"step-(\d{9})\.pt")

NET: Final = "net.pt"
"""The trained net of a stage that is finished, in its folder."""
ENDED: Final = "ended"
"""The day of that, in the file: a copy keeps it."""

State = Mapping[str, Any]
"""Tensors, numbers and texts by name, and tables and lists of them: nothing that has to be executed to be read."""


def require_finished(folder: Path) -> None:
    """Raises CheckpointError where a stage's folder has no trained net yet."""
    if not (folder / NET).exists():
        found = _checkpoints(folder)
        how_far = f"its last checkpoint is of step {int(found[-1].stem[5:])}" if found else "it has no checkpoint"
        raise CheckpointError(
            f"{folder} is not finished: {how_far}", "go on with it: trainers train, with the same options"
        )


def save(folder: Path, step: int, state: State) -> Path:
    """Write the state after `step` steps; the newest two are kept. A power cut leaves the one before."""
    path = folder / f"step-{step:09d}.pt"
    write(path, state)
    for old in _checkpoints(folder)[:-_KEPT]:
        old.unlink()
    return path


def newest(folder: Path) -> State | None:
    """The state of the last checkpoint in a folder; None where there is none. Raises CheckpointError."""
    found = _checkpoints(folder)
    return read(found[-1]) if found else None


def write(path: Path, state: State) -> None:
    """Write a state to a file of its own: the name appears when all of it is on the disk."""
    with whole(path) as file:
        torch.save(dict(state), file)


def read(path: Path) -> State:
    """A state as `write` wrote it, on the processor; nothing in the file is executed. Raises CheckpointError."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}", "train the stage first") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError):
        raise CheckpointError(f"{path.name} is damaged", "take it away: training goes on from the one before") from None
    if not isinstance(state, dict):
        raise CheckpointError(f"{path.name} is no checkpoint", "take it away")
    return state


def _checkpoints(folder: Path) -> list[Path]:
    """The oldest first."""
    return sorted(path for path in folder.glob("step-*.pt") if _NAME.fullmatch(path.name))
