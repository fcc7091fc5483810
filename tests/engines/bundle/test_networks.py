"""What a card says of its networks: whether they compute in int8, and what they give."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dicomnode.testing import networks
from dicomnode.testing.bundles import made, made_bundle
from engines.bundle.networks import check_network
from engines.bundle.soundness import check_card
from engines.card import Port, Stage, TensorInput, TensorOutput
from engines.errors import BundleError

ROUNDING = Stage("net.onnx", (TensorInput("image", "image"),), (TensorOutput("rounded", "image"),))


def test_a_quantised_network_is_no_float32() -> None:
    check_network(networks.quantised(), ROUNDING, quantised=True)
    with pytest.raises(BundleError, match="is quantised"):
        check_network(networks.quantised(), ROUNDING)


def test_what_is_not_quantised_is_no_int8(tmp_path: Path) -> None:
    bundle = made_bundle(tmp_path, "two-outputs")
    with pytest.raises(BundleError, match="not quantised"):
        check_network(bundle.networks[0].read_bytes(), bundle.card.stages[0], quantised=True)


def test_int8_stands_alone_on_a_detectors_card() -> None:
    card = made("detect").card
    check_card(replace(card, precisions=("int8",)))
    with pytest.raises(BundleError, match="int8 beside other"):
        check_card(replace(card, precisions=("float32", "int8")))


@pytest.mark.parametrize("label", ["", " ", "liver\\spleen", "a\nb", "x" * 65])
def test_a_label_fits_into_dicom(label: str) -> None:
    card = made("segment").card
    with pytest.raises(BundleError, match="a label is"):
        check_card(replace(card, outputs={"mask": Port("mask", labels=("body", label))}))


def test_a_target_is_given_once() -> None:
    card = made("two-outputs").card
    (stage,) = card.stages
    with pytest.raises(BundleError, match="one target twice"):
        check_card(replace(card, stages=(replace(stage, outputs=(*stage.outputs, stage.outputs[0])),)))
