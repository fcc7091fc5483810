"""Projection of a slice, and its exact transpose.

A pixel's shadow on the readings is a triangle two readings wide (pixel-driven, linear interpolation). `gather` reads
what the readings hold where the shadows fall; `project` is its transpose, ray weights included, so that each is the
other's adjoint to rounding. Views that are quarter turns apart are computed together, as channels: where their shadows
fall is computed once for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch.nn.functional import grid_sample

from trainers.physics.geometry import Geometry

Weight = Callable[[torch.Tensor | None], torch.Tensor | float]
"""Of a pixel in a view, from its distance from the source in mm (None: there is no source)."""


def project(image: torch.Tensor, pixel_mm: float, geometry: Geometry) -> torch.Tensor:
    """Line integrals of `image` (channels, n, n), in its unit times mm: (channels, views, readings)."""
    channels, size_px = image.shape[0], image.shape[-1]
    turned = torch.stack([torch.rot90(image, turn, (-2, -1)) for turn in range(geometry.fold)], 1)
    stacked = turned.reshape(1, -1, size_px, size_px)
    blank = image.new_zeros(1, stacked.shape[1], 1, geometry.readings).requires_grad_()
    weight = _shadow(geometry, pixel_mm)
    shadows = []
    for where, source_mm in _views(geometry, size_px, pixel_mm, image):
        with torch.enable_grad():
            read = grid_sample(blank, where, align_corners=False)
        (cast,) = torch.autograd.grad(read, blank, stacked * weight(source_mm))
        shadows.append(cast[0, :, 0])
    return torch.stack(shadows, 1).reshape(channels, geometry.views, geometry.readings)


def adjoint(sinogram: torch.Tensor, size_px: int, pixel_mm: float, geometry: Geometry) -> torch.Tensor:
    """The transpose of `project`: the sum of project(image) * sinogram is that of image * adjoint(sinogram)."""
    return gather(sinogram, size_px, pixel_mm, geometry, _shadow(geometry, pixel_mm))


def gather(sinogram: torch.Tensor, size_px: int, pixel_mm: float, geometry: Geometry, weight: Weight) -> torch.Tensor:
    """Sum over all views of the reading that each pixel casts its shadow on, times the pixel's weight.

    sinogram  (channels, views, readings)
    Returns (channels, n, n). Beyond the outermost reading there is nothing.
    """
    channels = sinogram.shape[0]
    folded = sinogram.reshape(channels * geometry.fold, -1, 1, geometry.readings)
    total = sinogram.new_zeros(channels * geometry.fold, size_px, size_px)
    for view, (where, source_mm) in enumerate(_views(geometry, size_px, pixel_mm, sinogram)):
        total += grid_sample(folded[None, :, view], where, align_corners=False)[0] * weight(source_mm)
    turns = total.reshape(channels, geometry.fold, size_px, size_px).unbind(1)
    return torch.stack([torch.rot90(part, -turn, (-2, -1)) for turn, part in enumerate(turns)]).sum(0)


def _views(
    geometry: Geometry, size_px: int, pixel_mm: float, like: torch.Tensor
) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
    """Of each view that is no quarter turn of another: where its readings are seen (1, n, n, 2), in `grid_sample`'s
    units, and how far the pixels are from the source."""
    centred = (torch.arange(size_px, dtype=like.dtype, device=like.device) - (size_px - 1) / 2) * pixel_mm
    across, down = centred[None, :].expand(size_px, -1), centred[:, None].expand(-1, size_px)
    where = like.new_zeros(1, size_px, size_px, 2)
    for angle in geometry.angles[: geometry.views // geometry.fold].tolist():
        seen, source_mm = geometry.seen(angle, across, down)
        where[0, :, :, 0] = seen * (2.0 / geometry.readings)
        yield where, source_mm


def _shadow(geometry: Geometry, pixel_mm: float) -> Weight:
    """A pixel's area over the width of a reading where the pixel is."""
    area = pixel_mm**2
    return lambda source_mm: area / geometry.step if source_mm is None else area / (geometry.step * source_mm)
