"""Volume and Mask: what travels between the node and an engine."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.errors import EngineInputError

HU = "HU"
ARBITRARY = "arbitrary"
"""Unit of images whose grey values have no physical scale (CR, DX, MR, presentation images)."""

PRESENTATION_MAXIMUM = 4095.0
"""Presentation outputs are 0...4095 (12 bits), as float: black to white."""


@dataclass(frozen=True, eq=False)
class Volume:
    """A stack of slices in physical units.

    voxels  float32 (slices, rows, columns), in `unit`
    affine  float64 (4, 4): (column, row, slice, 1) -> patient LPS in mm, of the centre of a voxel.
            Where slices are unequally spaced its third column is the median step.
    unit    "HU", or "arbitrary" where grey values have no physical scale
    valid   bool (slices, rows, columns), False where the scanner padded; None: every voxel is measured
    window  (centre, width) in `unit` that the source asks to be shown with; None: not said
    """

    voxels: NDArray[np.float32]
    affine: NDArray[np.float64]
    unit: str
    valid: NDArray[np.bool_] | None = None
    window: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.voxels.ndim != 3 or self.voxels.dtype != np.float32:
            raise EngineInputError(f"voxels are {self.voxels.dtype} {self.voxels.shape}, float32 with 3 axes is wanted")
        if self.affine.shape != (4, 4):
            raise EngineInputError(f"affine has the shape {self.affine.shape}, (4, 4) is wanted")
        if self.valid is not None and self.valid.shape != self.voxels.shape:
            raise EngineInputError(f"valid has the shape {self.valid.shape}, voxels have {self.voxels.shape}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(slices, rows, columns)."""
        slices, rows, columns = self.voxels.shape
        return slices, rows, columns

    @property
    def pixel_spacing_mm(self) -> tuple[float, float]:
        """(between rows, between columns) in mm, as DICOM's Pixel Spacing."""
        return float(np.linalg.norm(self.affine[:3, 1])), float(np.linalg.norm(self.affine[:3, 0]))

    def with_voxels(self, voxels: NDArray[np.float32], unit: str | None = None) -> Volume:
        """The same grid with other values."""
        return Volume(voxels, self.affine, self.unit if unit is None else unit, self.valid, self.window)


@dataclass(frozen=True, eq=False)
class Mask:
    """Labels on a volume's grid: uint8 (slices, rows, columns), 0 is background; `names` by label."""

    labels: NDArray[np.uint8]
    affine: NDArray[np.float64]
    names: dict[int, str]


def save_volume(volume: Volume, folder: Path) -> None:
    """Write `volume` as plain arrays and JSON (never pickle) into an existing, empty folder."""
    np.save(folder / "voxels.npy", volume.voxels, allow_pickle=False)
    if volume.valid is not None:
        np.save(folder / "valid.npy", volume.valid, allow_pickle=False)
    described = {"affine": volume.affine.tolist(), "unit": volume.unit, "window": volume.window}
    (folder / "volume.json").write_text(json.dumps(described))


def load_volume(folder: Path) -> Volume:
    """Read what `save_volume` wrote; voxels are memory-mapped read-only."""
    described = json.loads((folder / "volume.json").read_text())
    valid = folder / "valid.npy"
    window = described["window"]
    return Volume(
        voxels=np.load(folder / "voxels.npy", mmap_mode="r", allow_pickle=False),
        affine=np.asarray(described["affine"], dtype=np.float64),
        unit=described["unit"],
        valid=np.load(valid, mmap_mode="r", allow_pickle=False) if valid.exists() else None,
        window=None if window is None else (float(window[0]), float(window[1])),
    )
