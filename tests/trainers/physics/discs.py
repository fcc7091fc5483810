"""A disc of water: its picture, and its line integrals, which are known."""

from __future__ import annotations

import torch

from trainers.physics.geometry import Geometry

WATER = 0.02
"""Attenuation per mm."""


def radius_mm(size_px: int, pixel_mm: float) -> torch.Tensor:
    """Distance of each pixel from the middle."""
    axis = (torch.arange(size_px, dtype=torch.float32) - (size_px - 1) / 2) * pixel_mm
    return torch.hypot(axis[:, None], axis)


def disc(size_px: int, pixel_mm: float, disc_mm: float, finer: int = 4) -> torch.Tensor:
    """(1, n, n): 1 within, 0 without, with partial pixels between."""
    inside = (radius_mm(size_px * finer, pixel_mm / finer) < disc_mm).float()
    return torch.nn.functional.avg_pool2d(inside[None], finer)


def chords(geometry: Geometry, disc_mm: float) -> torch.Tensor:
    """Length in mm of each ray within the disc, (readings,)."""
    return 2.0 * torch.sqrt((disc_mm**2 - geometry.distances_mm**2).clamp(min=0.0))


def shadow(geometry: Geometry, disc_mm: float) -> torch.Tensor:
    """Line integrals of a disc of water, (views, readings)."""
    return (WATER * chords(geometry, disc_mm)).float().expand(geometry.views, -1).contiguous()
