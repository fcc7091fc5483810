"""A finer grid: where its voxels lie, and that no measured value is shifted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomnode.testing.bundles import engine_of, made
from engines.bundle.examples import example_volume
from engines.prompt import Region
from engines.tasks.base import Computed, Piece
from engines.tasks.super_resolution import consistent, finer_grid, values
from engines.volume import HU, Volume


@given(
    rows=st.integers(1, 12), columns=st.integers(1, 12), factor=st.integers(2, 4), seed=st.integers(0, 99)
)  # fmt: skip
@settings(deadline=None)
def test_whatever_a_network_makes_its_means_are_the_source(rows: int, columns: int, factor: int, seed: int) -> None:
    draws = np.random.default_rng(seed)
    source = draws.normal(0.0, 500.0, (rows, columns)).astype(np.float32)
    fine = draws.normal(0.0, 500.0, (factor * rows, factor * columns)).astype(np.float32)
    means = consistent(fine, source).reshape(rows, factor, columns, factor).mean(axis=(1, 3))
    assert np.abs(means - source).max() < 0.01


def test_what_is_consistent_stays() -> None:
    source = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    fine = source.repeat(2, axis=0).repeat(2, axis=1)
    assert np.allclose(consistent(fine, source), fine, atol=1e-6)


@pytest.mark.parametrize("factor", [2, 3])
def test_the_finer_pixels_lie_within_the_coarse_one(factor: int) -> None:
    affine = np.array([[0.6, 0.1, 0.0, -50.0], [0.0, 0.7, 0.2, 30.0], [0.1, 0.0, 3.0, 9.0], [0.0, 0.0, 0.0, 1.0]])
    source = Volume(np.zeros((2, 4, 5), np.float32), affine, HU)
    finer = finer_grid(source, factor)
    assert finer.shape == (2, 4 * factor, 5 * factor)
    within = [(2 * factor + column, factor + row, 1.0, 1.0) for row in range(factor) for column in range(factor)]
    centre = (np.array(within) @ finer.affine.T).mean(axis=0)
    assert np.allclose(centre, affine @ (2.0, 1.0, 1.0, 1.0))
    assert finer.pixel_spacing_mm == pytest.approx([spacing / factor for spacing in source.pixel_spacing_mm])


def test_an_engines_output_keeps_values_and_padding() -> None:
    subject, source = made("super-resolution"), example_volume((2, 30, 32))
    assert source.valid is not None
    with engine_of(subject) as engine:
        fine = engine.run({"image": source}, {})["image"]
    assert isinstance(fine, Volume) and fine.valid is not None
    means = fine.voxels.reshape(2, 30, 2, 32, 2).mean(axis=(2, 4))
    assert np.abs(means - source.voxels)[source.valid].max() < 0.01
    assert (fine.voxels[~fine.valid] == -2000.0).all()
    assert fine.valid.sum() == 4 * source.valid.sum()


def test_padding_does_not_ring_in_what_was_measured() -> None:
    valid = np.ones((1, 16, 16), np.bool_)
    valid[:, :, :5] = False
    source = Volume(np.where(valid, np.float32(40.0), np.float32(-2000.0)), np.eye(4), HU, valid)
    piece = Piece(range(1), Region(0, 16, 0, 16), {"image": np.full((1, 1, 32, 32), 40.0, np.float32)})
    fine = values(Computed(made("super-resolution").card, {}, source, 2, [piece]))["image"]
    assert isinstance(fine, Volume) and fine.valid is not None
    assert np.allclose(fine.voxels[fine.valid], 40.0, atol=1e-3)
