"""Every recipe, from made patches to a bundle that the node's runtimes compute; and what a recipe may not say."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch

from dicomnode.core.guards.before import HEADER_KEYWORDS, before
from dicomnode.core.headers import header_of
from dicomnode.core.phantom import phantom_study
from dicomnode.testing.bundles import opened
from engines.bundle.folder import golden, load_bundle
from engines.bundle.golden import compare
from engines.bundle.provenance import Provenance, Training
from engines.tasks.image import blended
from engines.volume import HU, Volume
from tests.trainers.made import material, miniature, shop
from trainers.errors import RecipeError
from trainers.nets.base import Net
from trainers.recipes.plan import planned
from trainers.recipes.reading import parse, read_recipe, shipped
from trainers.recipes.recipe import Plan
from trainers.shipping.export import Trained, card_of, export, golden_volume
from trainers.training.loop import image_of
from trainers.training.stages import load_nets, train_recipe

_PROVENANCE = Provenance("dicomnode", "Apache-2.0", Training("test"))
_DEMONSTRATED_PX = 320
"""Rows and columns of what `dicomnode demo` sends."""


class _AnyNet(Net):
    halo_px = 0


@pytest.mark.parametrize("name", shipped())
def test_a_recipe_trains_ships_and_runs(name: str, tmp_path: Path) -> None:
    read = miniature(read_recipe(name))
    nets = train_recipe(read, material(), shop(tmp_path / "run"))
    (tmp_path / "bundle").mkdir()
    export(Trained(read.recipe, load_nets(read.recipe, tmp_path / "run"), _PROVENANCE), tmp_path / "bundle")

    bundle = load_bundle(tmp_path / "bundle")
    engine = opened(bundle)
    test = golden(bundle)
    outputs = engine.run(test.inputs, bundle.card.resolve(test.settings))
    assert all(difference.passed for difference in compare(test, "float32", outputs))
    if "lesions" not in bundle.card.inputs:
        expected = golden_volume().voxels
        for entry in read.recipe.shipping.stages:
            stage = read.recipe.stage(entry.stage)
            with torch.no_grad():
                made = image_of(
                    nets[entry.stage].eval(),
                    torch.from_numpy(expected[:, None]),
                    stage.net.predicts == "residual",
                    1000.0,
                )
            expected = made[:, 0].numpy()
            if entry.is_output:
                found = outputs[entry.target]
                assert isinstance(found, Volume)
                shown = blended(golden_volume().voxels, expected, read.recipe.shipping.strength)
                wanted = np.clip(expected + 1024, 0, 4095) if entry.presentation else shown
                assert np.abs(found.voxels - wanted).max() < 0.1


def test_every_recipe_says_what_it_follows() -> None:
    for name in shipped():
        recipe = read_recipe(name).recipe
        assert len(recipe.paper) > 100
        assert recipe.shipping.licence and "esearch use" in recipe.shipping.intended_use


@pytest.mark.parametrize("name", [name for name in shipped() if name.startswith(("cascade", "sgan"))])
def test_terms_that_weights_balance_see_one_scale(name: str) -> None:
    """A window of 400 HU as 0 to 1: by that the papers' weights are meant."""
    for stage in read_recipe(name).recipe.stages:
        units = {term.unit_hu for term in stage.losses if term.kind in ("mse", "mae")}
        windows = [term.window_hu for term in stage.losses if term.kind == "vgg"]
        windows += [stage.adversary.window_hu] if stage.adversary else []
        assert {high - low for low, high in windows} | units == {400.0}, stage.name


@pytest.mark.parametrize("name", shipped())
def test_an_envelope_holds_the_demonstration_and_no_heads(name: str) -> None:
    shipping = read_recipe(name).recipe.shipping
    assert any("not for heads or children" in sentence for sentence in shipping.limitations)
    assert not shipping.envelope.body_parts  # many images do not say it, and those would be refused
    assert not _outside(name)
    assert _outside(name, KVP=("80",), SliceThickness=()) == {"tube voltage", "slice thickness"}
    assert _outside(name, size_px=800) == {"row spacing", "column spacing"}  # a head's


def _outside(name: str, size_px: int = _DEMONSTRATED_PX, **said: tuple[str, ...]) -> set[str]:
    """What of the demonstration's CT the node's gate would refuse for a recipe's bundle."""
    recipe = read_recipe(name).recipe
    card = card_of(Trained(recipe, {stage.name: _AnyNet() for stage in recipe.stages}, _PROVENANCE))
    (dataset,) = phantom_study(np.random.default_rng(7), 1, size_px)
    spacing_mm = float(dataset.PixelSpacing[0])
    pixels = np.frombuffer(dataset.PixelData, "<i2").reshape(1, size_px, size_px).astype(np.float32) - np.float32(1024)
    image = Volume(pixels, np.diag([spacing_mm, spacing_mm, 2.0, 1.0]), HU)
    header = {**header_of(dataset, HEADER_KEYWORDS), **said}
    return {finding.name for finding in before(card, header, image).findings if not finding.passed}


def _text(change: str) -> bytes:
    text = files("trainers.recipes").joinpath("ct-denoise.toml").read_text()
    old, new = change.split("=>")
    assert old in text
    return text.replace(old, new, 1).encode()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("steps = 40000=>stepps = 40000", "no key 'stepps'"),
        ("steps = 40000=>steps = 0", "0 steps"),
        ("doses = [0.08, 1.0]=>doses = [0.0, 1.0]", "doses are"),
        ('kind = "mse"=>kind = "mean"', "is 'mean'"),
        ('stage = "textures"=>stage = "texturez"', "shipping names 'texturez'"),
        ("format = 1=>format = 2", "format 2"),
        ("ema_decay = 0.999=>ema_decay = 1.0", "ema_decay is 1.0"),
        ("seed = 1=>seed = ", "no TOML"),
        ("learning_rate = 1e-3=>learning_rate = -1e-3", "learning_rate -0.001"),
        ("warmup_steps = 200=>betas = [0.5, 1.5]", "betas"),
        ("clip_norm = 1.0=>clip_norm = -1.0", "clip_norm is -1"),
        ("full_dose_share = 0.1=>full_dose_share = 7.0", "a share, count or neighbours out of bounds"),
        ("radius_mm = [1.2, 12.0]=>radius_mm = [12.0, 1.2]", "planting.radius_mm is"),
        ("texturing = { share = 0.35 }=>texturing = { cutoff = [0.0, 1.0] }", "texturing.cutoff is"),
        ("seed = 1=>scale_hu = 0.0", "scale_hu 0"),
        ("[[stages]]=>[simulation]\nfields = 0\n[[stages]]", "fields 0"),
        ("[[stages]]=>[simulation]\nphotons = 0\n[[stages]]", "photons 0"),
        ("[[stages]]=>[simulation]\ncutoff = -1\n[[stages]]", "a number below 0"),
        ('kind = "mse"=>kind = "mse"\nunit_hu = 0.0', "unit_hu"),
        ('kind = "mse"=>kind = "mse"\nwindow_hu = [0.0, 0.0]', "a window_hu is empty"),
        ("[stages.patches]=>[stages.worsening]\nshrink = [0.5, 2.0]\n[stages.patches]", "worsening.shrink is"),
        ("[stages.patches]=>[stages.worsening]\ngrey_hu = [1.0, 1.0]\n[stages.patches]", "worsening.grey_hu is"),
        ('[[stages.losses]]=>[[stages.losses]]\nkind = "mse"\n[[stages.losses]]', "two losses of one kind"),
    ],
)
def test_a_recipe_that_contradicts_itself_is_refused(change: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said) as refused:
        parse(_text(change), "mine.toml")
    assert refused.value.hint


@pytest.mark.parametrize("key", ["rounds", "most", "candidates", "dose"])
def test_growth_by_nothing_is_refused(key: str) -> None:
    """A net of photographs would be said to be trained on CT."""
    with pytest.raises(RecipeError, match=r"grows by nothing|growth\.dose"):
        planned(read_recipe("sgan-g1"), Plan(changes=(f"g1.growth.{key}=0",)))


def test_a_patch_holds_the_window_of_ssim() -> None:
    small = ("denoise.losses=[{ kind = 'ssim' }]", "denoise.patches.size_px=8")
    with pytest.raises(RecipeError, match="ssim of patches of 8 px"):
        planned(read_recipe("redcnn"), Plan(changes=small))


def test_peers_see_as_many_patches_as_the_default() -> None:
    patches = {
        name: sum(stage.steps * stage.patches.batch for stage in read_recipe(name).recipe.stages)
        for name in ("ct-denoise", "redcnn", "dncnn")
    }
    assert len(set(patches.values())) == 1


def test_weights_in_half_the_size(tmp_path: Path) -> None:
    """The networks that they are stored in compute as those in full do."""
    read = miniature(read_recipe("ct-denoise"))
    nets = train_recipe(read, material(), shop(tmp_path / "run"))
    sizes, made = [], []
    for storage in ("float32", "float16"):
        recipe = replace(read.recipe, shipping=replace(read.recipe.shipping, storage=storage))
        (tmp_path / storage).mkdir()
        bundle = export(Trained(recipe, nets, _PROVENANCE), tmp_path / storage)
        sizes.append((tmp_path / storage / "textures.onnx").stat().st_size)
        found = opened(bundle).run({"image": golden_volume()}, bundle.card.resolve({}))["image"]
        assert isinstance(found, Volume)
        made.append(found.voxels)
    assert sizes[1] < sizes[0]
    assert 0 < np.abs(made[1] - made[0]).max() < 5.0


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(RecipeError) as unknown:
        read_recipe("cascad")
    assert "cascade" in unknown.value.hint
