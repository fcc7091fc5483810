"""Slabs as values: a volume's slices as a volume of their own, and what was made of them put together again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from engines.base import Value
from engines.errors import EngineInputError
from engines.findings import Finding, Findings
from engines.volume import Mask, Volume

Allocate = Callable[[str, tuple[int, ...], DTypeLike], NDArray[Any]]
"""Gives an array to write an output to, by the output's name, shape and type: in memory, or mapped from a file."""


def in_memory(name: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """The plain way to allocate."""
    return np.empty(shape, dtype)


def slab_of(volume: Volume, slices: range) -> Volume:
    """Some slices of a volume, at their place in the patient; nothing is copied."""
    window = slice(slices.start, slices.stop)
    valid = None if volume.valid is None else volume.valid[window]
    return Volume(volume.voxels[window], _moved(volume.affine, slices.start), volume.unit, valid, volume.window)


class Assembly:
    """Outputs of a volume of `count` slices, written as its slabs are done, in any order."""

    def __init__(self, count: int, allocate: Allocate = in_memory) -> None:
        self._count = count
        self._allocate = allocate
        self._values: dict[str, Value] = {}

    def put(self, slices: range, values: Mapping[str, Value]) -> None:
        """Take what was made of `slices`; it is copied. Raises EngineInputError where slabs do not fit together."""
        for name, value in values.items():
            if name not in self._values:
                self._values[name] = self._empty(name, value, slices)
            self._values[name] = _written(self._values[name], value, slices)

    def values(self) -> Mapping[str, Value]:
        """The outputs; whole when every slab was put."""
        return self._values

    def _empty(self, name: str, value: Value, slices: range) -> Value:
        if isinstance(value, Volume):
            shape = (self._count, *value.shape[1:])
            valid = None if value.valid is None else self._allocate(f"{name}.valid", shape, np.bool_)
            affine = _moved(value.affine, -slices.start)
            return Volume(self._allocate(name, shape, np.float32), affine, value.unit, valid, value.window)
        if isinstance(value, Mask):
            labels = self._allocate(name, (self._count, *value.labels.shape[1:]), np.uint8)
            return Mask(labels, _moved(value.affine, -slices.start), value.names)
        return Findings(())


def _written(whole: Value, value: Value, slices: range) -> Value:
    window = slice(slices.start, slices.stop)
    if isinstance(whole, Volume) and isinstance(value, Volume) and value.shape == whole.voxels[window].shape:
        whole.voxels[window] = value.voxels
        if whole.valid is not None and value.valid is not None:
            whole.valid[window] = value.valid
        return whole
    if isinstance(whole, Mask) and isinstance(value, Mask) and value.labels.shape == whole.labels[window].shape:
        whole.labels[window] = value.labels
        return whole
    if isinstance(whole, Findings) and isinstance(value, Findings):
        return Findings(whole.items + tuple(_shifted(finding, slices.start) for finding in value.items))
    raise EngineInputError("slabs of one output have another form", "one engine gives slabs of one kind and shape")


def _shifted(finding: Finding, slices: int) -> Finding:
    return replace(finding, slice_index=finding.slice_index + slices)


def _moved(affine: NDArray[np.float64], slices: int) -> NDArray[np.float64]:
    """The affine of a grid that begins so many slices further; the very same where that is none."""
    if slices == 0:
        return affine
    moved = affine.copy()
    moved[:3, 3] += slices * affine[:3, 2]
    return moved
