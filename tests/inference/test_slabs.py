"""Engines of every kind on slabs of files: what they give in slabs is what they give at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from dicomnode.inference.slabs import MASK, Part, cut_into, halo_of, load_mask, run_parts, slab_slices
from dicomnode.testing.bundles import Shape, engine_of, example_inputs, made
from engines.base import Engine, Value
from engines.findings import Findings
from engines.registry import default_registry
from engines.volume import Mask, Volume, load_volume, save_volume

SLICES = 5
SHAPES = [shape for shape in get_args(Shape) if shape not in ("denoise-large", "segment-marked")]
"""Not the one of 117 GFLOP, nor the one that asks for a person's marks, which do not lie in files."""


def saved(folder: Path, inputs: Mapping[str, Value]) -> dict[str, str]:
    for name, value in inputs.items():
        (folder / name).mkdir(parents=True)
        assert isinstance(value, Volume)
        save_volume(value, folder / name)
    return {name: str(folder / name) for name in inputs}


def check(engine: Engine, inputs: Mapping[str, Value], folder: Path) -> None:
    """Run in slabs of two, the last one first, some of them together."""
    settings = engine.card.resolve({})
    outputs = {name: str(folder / "out" / name) for name in engine.card.outputs}
    (folder / "out").mkdir()
    taken = saved(folder / "in", inputs)
    bounds = [(0, SLICES)] if halo_of(engine) is None else [(3, 5), (0, 2), (2, 3)]
    parts = [Part(taken, outputs, *bound) for bound in bounds]
    told = [*run_parts(engine, settings, parts[:1]), *run_parts(engine, settings, parts[1:])] if parts[1:] else []
    told = told or run_parts(engine, settings, parts)
    for name, whole in engine.run(inputs, settings).items():
        if isinstance(whole, Findings):
            found = [one for part in told for one in part["findings"][name]]
            assert sorted(one["slice_index"] for one in found) == sorted(one.slice_index for one in whole.items)
        elif isinstance(whole, Mask):
            mask = load_mask(folder / "out" / name)
            assert (folder / "out" / name / MASK).exists()
            assert (mask.labels == whole.labels).all() and mask.names == whole.names
        else:
            assert isinstance(whole, Volume)
            volume = load_volume(folder / "out" / name)
            np.testing.assert_allclose(volume.voxels, whole.voxels, atol=1e-2)
            np.testing.assert_allclose(volume.affine, whole.affine, atol=1e-9)
            assert (volume.unit, volume.window) == (whole.unit, whole.window)
            assert (volume.valid is None) == (whole.valid is None)
            if volume.valid is not None and whole.valid is not None:
                assert (volume.valid == whole.valid).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_networks_of_every_task(shape: Shape, tmp_path: Path) -> None:
    with engine_of(made(shape)) as engine:
        check(engine, example_inputs(engine.card, (SLICES, 61, 67)), tmp_path)


@pytest.mark.parametrize("name", default_registry(zoo=None).names())
def test_classical_engines(name: str, tmp_path: Path) -> None:
    engine = default_registry().get(name)
    check(engine, example_inputs(engine.card, (SLICES, 67, 80)), tmp_path)


def test_a_slab_is_about_as_much_work_whatever_its_slices_are() -> None:
    assert slab_slices((300, 512, 512)) == 16
    assert slab_slices((2000, 64, 64)) == 64
    assert slab_slices((1, 4096, 4096)) == 1
    assert cut_into((40, 512, 512), 1) == [(0, 16), (16, 32), (32, 40)]
    assert cut_into((40, 512, 512), None) == [(0, 40)]
