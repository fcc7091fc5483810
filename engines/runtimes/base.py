"""The Runtime protocol: what opens an ONNX file on a device and computes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engines.card import Precision

Tensors = Mapping[str, NDArray[np.float32]]
"""float32 (batch, channels, rows, columns) by the names of a network's inputs or outputs, whatever it computes in."""


@dataclass(frozen=True)
class Resources:
    """What one session may use.

    device     "cpu", or "cuda:0"
    threads    processor threads of one session; at least 1
    precision  what is computed in; always set, never left to the runtime
    cache      an existing folder of this machine for compiled models; None: nothing is kept
    """

    device: str = "cpu"
    threads: int = 1
    precision: Precision = "float32"
    cache: Path | None = None


class Session(Protocol):
    """One network, ready to compute. One caller at a time."""

    @property
    def identity(self) -> str:
        """Runtime, its version (major.minor) and precision, as `openvino-2026.4/bfloat16`: part of the identity of all
        that is derived, so it never names a machine."""
        ...

    def run(self, tensors: Tensors) -> Tensors:
        """All outputs for one batch. Any batch size, rows and columns that the network takes.

        Raises EngineInputError on a name or shape that it does not take, RuntimeFailedError where the device fails.
        """
        ...

    def close(self) -> None:
        """Give memory and device back. Again, it does nothing."""
        ...


class Runtime(Protocol):
    """Opens sessions. Importing its module imports no runtime: `unavailable` says what is missing."""

    @property
    def name(self) -> str: ...

    def unavailable(self, device: str) -> str:
        """Why it cannot compute on that device of this machine, with what to install; "" where it can."""
        ...

    def precisions(self, device: str) -> tuple[Precision, ...]:
        """What it computes in at full speed on this machine, the fastest first."""
        ...

    def open(self, model: Path, resources: Resources) -> Session:
        """Raises RuntimeFailedError where the file cannot be loaded there."""
        ...
