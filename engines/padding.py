"""Padding: places of a slice that the scanner did not measure, filled with the nearest that it did."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.volume import Volume

Pixels = NDArray[np.float32]
Places = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Padding:
    """Where a slice is padded, and the nearest measured place of each: indices into the slice's pixels in a row."""

    places: NDArray[np.intp]
    nearest: NDArray[np.intp]

    def filled(self, pixels: Pixels) -> Pixels:
        """A copy of the slice without padding."""
        filled = np.array(pixels, order="C")
        values = filled.reshape(-1)
        values[self.places] = values[self.nearest]
        return filled


def padding_of(measured: Places) -> Padding:
    """The padding of a slice; none where nothing is padded, or nothing measured."""
    if measured.all() or not measured.any():
        return Padding(np.empty(0, np.intp), np.empty(0, np.intp))
    _, labels = cv2.distanceTransformWithLabels(
        (~measured).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    labels = labels.reshape(-1)
    inside, outside = np.flatnonzero(measured), np.flatnonzero(~measured)
    place_of_label = np.zeros(int(labels.max()) + 1, dtype=np.intp)
    place_of_label[labels[inside]] = inside
    return Padding(outside, place_of_label[labels[outside]])


def fill_padding(pixels: Pixels, measured: Places) -> Pixels:
    """The slice with each padded pixel replaced by the nearest measured one."""
    return padding_of(measured).filled(pixels)


def filled_slices(volume: Volume, slices: range) -> Iterator[Pixels]:
    """Slices of a volume without padding. Most scanners pad all slices alike: it is looked for where it differs."""
    last: Places | None = None
    for index in slices:
        pixels = np.asarray(volume.voxels[index])
        if volume.valid is None:
            yield pixels
            continue
        measured = np.asarray(volume.valid[index])
        if last is None or not np.array_equal(measured, last):
            last, padding = measured, padding_of(measured)
        yield padding.filled(pixels)
