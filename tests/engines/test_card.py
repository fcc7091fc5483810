"""Cards, the registry and volumes at rest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engines.card import SettingValue
from engines.errors import EngineInputError, EngineNotFoundError, SettingError
from engines.registry import default_registry
from engines.volume import HU, Volume, load_volume, save_volume

CONTRAST = default_registry().get("contrast-glcae").card


def test_the_engines_that_need_no_weights() -> None:
    assert default_registry(zoo=None).names() == ("contrast-glcae", "ct-nlm")
    assert default_registry().get("ct-nlm@1.0.0").card.reference == "ct-nlm@1.0.0"


@pytest.mark.parametrize(("name", "hint"), [("ct-nml", "ct-nlm"), ("zzz", "contrast-glcae"), ("ct-nlm@9", "1.0.0")])
def test_an_unknown_engine_is_answered_with_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(EngineNotFoundError) as error:
        default_registry().get(name)
    assert hint in error.value.hint


@pytest.mark.parametrize(
    ("name", "value"),
    [("clip", 0.0), ("clip", 9.0), ("clip", float("nan")), ("clip", "2"), ("grid", 2.5), ("grid", True),
     ("window", "brain"), ("colour", 1.0)],
)  # fmt: skip
def test_a_setting_out_of_bounds_is_refused(name: str, value: SettingValue) -> None:
    with pytest.raises(SettingError) as error:
        CONTRAST.resolve({name: value})
    assert error.value.hint


def test_settings_are_resolved_over_the_defaults() -> None:
    resolved = CONTRAST.resolve({"clip": 3, "window": "lung"})
    assert resolved["clip"] == 3.0
    assert isinstance(resolved["clip"], float)
    assert resolved["grid"] == 8


def test_the_digest_changes_with_anything_on_the_card() -> None:
    assert replace(CONTRAST, version="1.0.1").digest != CONTRAST.digest
    assert replace(CONTRAST, runtime="opencv-9.9/float32").digest != CONTRAST.digest
    assert replace(CONTRAST).digest == CONTRAST.digest


@pytest.mark.parametrize("window", [None, (40.0, 400.0)])
@pytest.mark.parametrize("padded", [False, True])
def test_a_volume_survives_its_folder(tmp_path: Path, padded: bool, window: tuple[float, float] | None) -> None:
    voxels = np.random.default_rng(0).normal(size=(2, 5, 7)).astype(np.float32)
    affine = np.diag([0.1 + 0.2, 0.7, 1.25, 1.0])
    volume = Volume(voxels, affine, HU, voxels > 0 if padded else None, window)
    save_volume(volume, tmp_path)
    loaded = load_volume(tmp_path)
    assert np.array_equal(loaded.voxels, voxels)
    assert np.array_equal(loaded.affine, affine)
    assert (loaded.unit, loaded.window) == (HU, window)
    assert (loaded.valid is not None) == padded
    assert loaded.pixel_spacing_mm == pytest.approx((0.7, 0.3))


def test_a_volume_of_another_form_is_refused() -> None:
    with pytest.raises(EngineInputError):
        Volume(np.zeros((2, 2), np.float32), np.eye(4), HU)  # type: ignore[arg-type]
    with pytest.raises(EngineInputError):
        Volume(np.zeros((1, 2, 2), np.float32), np.eye(4), HU, np.ones((1, 2, 3), np.bool_))
