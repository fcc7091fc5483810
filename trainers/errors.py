"""Errors of the trainers, one tree:

    TrainerError              .hint: what a person does next
    ├── RecipeError           a recipe cannot be read, or its numbers contradict each other
    ├── SourceError           training images cannot be read, or may not be used as asked
    └── CheckpointError       a checkpoint is damaged, or of another run

No message carries a patient's name or ID: series are named by the file or folder that they came from.
"""

from __future__ import annotations


class TrainerError(Exception):
    """Root of the trainers' errors. `str(error)` says what; `error.hint` what to do next."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class RecipeError(TrainerError):
    """A recipe cannot be read, or its numbers contradict each other."""


class SourceError(TrainerError):
    """Training images cannot be read, or may not be used as asked."""


class CheckpointError(TrainerError):
    """A checkpoint is damaged, or of another run."""
