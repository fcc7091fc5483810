"""Making a bundle: from a card and networks to a folder that proves itself, again and again."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dicomnode.testing import networks
from dicomnode.testing.bundles import Shape, made
from engines import making
from engines.bundle.folder import CARD, FORMAT, GOLDEN, WORDS, check_networks, golden, load_bundle
from engines.bundle.provenance import Provenance, Training
from engines.bundle.signing import SIGNATURE, make_keys, sign
from engines.bundle.tables import as_table, write_toml
from engines.bundle.template import Network, card_template
from engines.bundle.words import OWN_WORDS
from engines.card import EngineCard, Task
from engines.errors import BundleError
from engines.volume import Volume

SAID = Provenance("Somebody", "MIT", Training("run 1"))


def source(
    folder: Path, shape: Shape = "adjacent", change: Callable[[EngineCard], EngineCard] = lambda card: card
) -> Path:
    """A folder as a maker has it: a card and its networks."""
    subject = made(shape)
    card = change(subject.card)
    table = {"format": FORMAT, "engine": as_table(card, ("runtime", "bundle")), "provenance": SAID}
    (folder / CARD).write_text(write_toml(table))
    for name, content in subject.networks.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize(
    "shape", ["adjacent", "two-stages", "super-resolution", "segment-marked", "detect", "contrast"]
)
def test_what_is_made_is_a_bundle(shape: Shape, tmp_path: Path) -> None:
    bundle = making.make(source(tmp_path, shape)).bundle
    assert load_bundle(tmp_path) == bundle
    check_networks(bundle)
    assert all((tmp_path / name).stat().st_mode & 0o777 == 0o644 for name in (GOLDEN, WORDS))
    assert set(golden(bundle).tolerance) == {"float32", "bfloat16", "float16"}


def test_making_again_changes_nothing_and_takes_the_signature_away(tmp_path: Path) -> None:
    first = making.make(source(tmp_path)).bundle
    make_keys(tmp_path.parent / "key", tmp_path.parent / "key.pub")
    sign(tmp_path, first.digest, tmp_path.parent / "key")
    again = making.make(tmp_path)
    assert (again.bundle.digest, again.bundle.signature) == (first.digest, None)
    assert not (tmp_path / SIGNATURE).exists()
    assert any("that was there" in note for note in again.notes)


def test_the_words_follow_the_card_and_keep_the_makers_own(tmp_path: Path) -> None:
    making.make(source(tmp_path))
    words = (tmp_path / WORDS).read_text()
    (tmp_path / WORDS).write_text(words + "\nNot after contrast.\n")
    card = (tmp_path / CARD).read_text()
    (tmp_path / CARD).write_text(re.sub(r'intended_use = ".*"', 'intended_use = "Something else."', card))
    making.make(tmp_path)
    words = (tmp_path / WORDS).read_text()
    assert "Something else." in words and words.endswith("\nNot after contrast.\n")
    assert made("adjacent").card.intended_use not in words
    (tmp_path / WORDS).write_text(words.replace(OWN_WORDS, ""))
    with pytest.raises(BundleError, match="parts the card's words"):
        making.make(tmp_path)


def _halo(card: EngineCard, px: int, rows: int = 4096) -> EngineCard:
    stages = tuple(replace(stage, halo_px=px) for stage in card.stages)
    return replace(card, stages=stages, envelope=replace(card.envelope, rows_columns=(16, rows)))


def test_a_halo_that_is_too_small_is_refused_with_the_right_one(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="looks 5 px far and its halo_px is 4") as error:
        making.make(source(tmp_path, change=lambda card: _halo(card, 4)))
    assert error.value.hint == "write halo_px = 5"
    assert not (tmp_path / GOLDEN).exists()
    (note, *_) = making.make(source(tmp_path, change=lambda card: _halo(card, 9))).notes
    assert "costs time" in note


@pytest.mark.parametrize(
    ("pattern", "instead", "message"),
    [
        (r'maker = ".*"', 'maker = " "', "provenance.maker: nothing is said"),
        (r'licence = ".*"\n', "", "lacks 'licence'"),
        (r'task = ".*"', 'task = "denoise"', "engine.task"),
        (r'file = "net.onnx"', 'file = "nets.onnx"', "nets.onnx is missing"),
    ],
)
def test_what_is_wrong_with_a_card_is_said(pattern: str, instead: str, message: str, tmp_path: Path) -> None:
    card = source(tmp_path) / CARD
    card.write_text(re.sub(pattern, instead, card.read_text()))
    with pytest.raises(BundleError) as error:
        making.make(tmp_path)
    assert message in str(error.value)
    assert error.value.hint


def test_all_that_is_required_is_named(tmp_path: Path) -> None:
    card = source(tmp_path) / CARD
    card.write_text(card.read_text().partition("[provenance]")[0] + "[provenance]\n")
    with pytest.raises(BundleError, match="lacks 'maker', 'licence', 'training'") as error:
        making.make(tmp_path)
    assert "training (run)" in error.value.hint


def test_what_is_no_part_of_a_bundle_is_not_signed_with_it(tmp_path: Path) -> None:
    (source(tmp_path) / "notes.txt").write_text("John Doe")
    with pytest.raises(BundleError, match=r"'notes.txt' is no part"):
        making.make(tmp_path)


def test_given_slices_are_the_inputs_of_the_golden_test(tmp_path: Path) -> None:
    given = {"image": Volume(np.full((3, 40, 50), 7, np.float32), np.eye(4), "HU")}
    bundle = making.make(source(tmp_path), given).bundle
    assert np.array_equal(golden(bundle).inputs["image"].voxels, given["image"].voxels)  # type: ignore[union-attr]


TEMPLATES: dict[Task, tuple[bytes, Network]] = {
    "image": (networks.denoiser(channels=8, layers=2), Network("n.onnx", ("image",), ("residual",), 5, 2)),
    "super-resolution": (networks.super_resolver(), Network("n.onnx", ("image",), ("image_out",), 3)),
    "segment": (networks.segmenter(1, (0.0,)), Network("n.onnx", ("image",), ("labels",), 2)),
    "detect": (networks.detector(labels=1), Network("n.onnx", ("image",), ("scores", "boxes"), 8, 4)),
    "contrast": (networks.predictor(("clip",)), Network("n.onnx", ("image",), ("clip",))),
}


@pytest.mark.parametrize("task", TEMPLATES)
def test_a_template_needs_no_more_than_what_only_its_maker_knows(task: Task, tmp_path: Path) -> None:
    content, network = TEMPLATES[task]
    (tmp_path / "n.onnx").write_bytes(content)
    card = tmp_path / CARD
    card.write_text(card_template("my-engine", task, network))
    with pytest.raises(
        BundleError, match=r"intended_use, provenance.maker, provenance.licence, provenance.training.run"
    ):
        making.make(tmp_path)
    card.write_text(re.sub(r'^(intended_use|maker|licence|run) = ""', r'\1 = "said"', card.read_text(), flags=re.M))
    assert making.make(tmp_path).bundle.card.task == task


def test_a_template_is_toml_whatever_things_are_called() -> None:
    table = tomllib.loads(card_template('a"\n', "image", Network('b"\\.onnx', ('c"',), ('d"',))))["engine"]
    stage = table["stages"][0]
    assert (table["name"], stage["file"], stage["inputs"][0]["tensor"]) == ('a"\n', 'b"\\.onnx', 'c"')
