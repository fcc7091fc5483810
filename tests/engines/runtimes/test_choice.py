"""Which runtime and precision a card gets, and what is said where there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomnode.testing.bundles import made
from engines.card import Precision
from engines.errors import RuntimeFailedError
from engines.runtimes.base import Resources, Session
from engines.runtimes.choice import Wish, choices, choose, share

CARD = made("denoise").card
DETECTOR = made("detect").card


@dataclass(frozen=True, eq=False)
class Offered:
    """A runtime that is never opened."""

    name: str
    offers: Mapping[str, tuple[Precision, ...]]

    def unavailable(self, device: str) -> str:
        return "" if device in self.offers else "pip install it"

    def precisions(self, device: str) -> tuple[Precision, ...]:
        return self.offers[device]

    def open(self, model: Path, resources: Resources) -> Session:
        raise AssertionError("nothing is opened here")


ONNXRUNTIME = Offered("onnxruntime", {"cpu": ("float32",), "cuda:0": ("float32",)})
OPENVINO = Offered("openvino", {"cpu": ("bfloat16", "float32", "int8")})
WITHOUT_BFLOAT16 = Offered("openvino", {"cpu": ("float32", "int8")})
TENSORRT = Offered("tensorrt", {"cuda:0": ("float16", "bfloat16", "float32")})


@pytest.mark.parametrize(
    ("precisions", "wish", "openvino", "expected"),
    [
        (("float32", "bfloat16"), Wish(), OPENVINO, "openvino cpu bfloat16"),
        (("float32", "bfloat16"), Wish(), WITHOUT_BFLOAT16, "onnxruntime cpu float32"),
        (("float32",), Wish(), OPENVINO, "onnxruntime cpu float32"),
        (("float32", "bfloat16"), Wish(runtime="onnxruntime"), OPENVINO, "onnxruntime cpu float32"),
        (("float32", "bfloat16"), Wish(precision="float32"), OPENVINO, "onnxruntime cpu float32"),
        (("float32", "bfloat16"), Wish("openvino", "float32"), OPENVINO, "openvino cpu float32"),
        (("float32", "bfloat16"), Wish(devices=("cuda:0", "cpu")), OPENVINO, "tensorrt cuda:0 bfloat16"),
        (("float32", "bfloat16"), Wish(devices=("cpu", "cuda:0")), OPENVINO, "openvino cpu bfloat16"),
        (("float32", "bfloat16"), Wish(devices=("cuda:7", "cpu")), OPENVINO, "openvino cpu bfloat16"),
        (("float32", "bfloat16"), Wish("onnxruntime", devices=("cuda:0",)), OPENVINO, "onnxruntime cuda:0 float32"),
    ],
)
def test_the_fastest_that_card_machine_and_site_allow(
    precisions: tuple[Precision, ...], wish: Wish, openvino: Offered, expected: str
) -> None:
    chosen = choose(replace(CARD, precisions=precisions), wish, (TENSORRT, ONNXRUNTIME, openvino))
    assert f"{chosen.runtime.name} {chosen.device} {chosen.precision}" == expected
    assert chosen.precision in chosen.reason


def test_the_next_best_follow_in_order() -> None:
    card, runtimes = replace(CARD, precisions=("float32", "bfloat16")), (TENSORRT, ONNXRUNTIME, OPENVINO)
    found = [f"{one.runtime.name} {one.precision}" for one in choices(card, Wish(), runtimes)]
    assert found == ["openvino bfloat16", "onnxruntime float32", "openvino float32"]
    assert [one.runtime.name for one in choices(card, Wish(devices=("cuda:0", "cpu")), runtimes)][-1] == "openvino"
    assert len(list(choices(card, Wish("onnxruntime"), runtimes))) == 1


def test_a_device_that_was_passed_over_is_told_of() -> None:
    chosen = choose(CARD, Wish(devices=("cuda:1", "cpu")), (ONNXRUNTIME,))
    assert "onnxruntime on cuda:1: pip install it" in chosen.reason


def test_int8_is_for_detectors_only() -> None:
    with pytest.raises(RuntimeFailedError) as refused:
        choose(CARD, Wish(precision="int8"), (ONNXRUNTIME, OPENVINO))
    assert "HU" in refused.value.hint
    quantised = replace(DETECTOR, precisions=("int8",))
    assert choose(quantised, Wish(precision="int8"), (ONNXRUNTIME, OPENVINO)).precision == "int8"
    assert choose(quantised, Wish(), (ONNXRUNTIME, OPENVINO)).runtime is OPENVINO


@pytest.mark.parametrize(
    ("wish", "message", "hint"),
    [
        (Wish("openvin"), "no runtime 'openvin'", "did you mean 'openvino'"),
        (Wish(precision="float16"), "not computed in float16", "float32, bfloat16"),
        (Wish("openvino", devices=("cuda:0",)), "nothing computes", "openvino on cuda:0: pip install it"),
        (Wish("onnxruntime", "bfloat16"), "nothing computes", "onnxruntime on cpu computes in float32"),
        (Wish(devices=()), "nothing computes", ""),
    ],
)
def test_what_is_in_the_way_is_said(wish: Wish, message: str, hint: str) -> None:
    with pytest.raises(RuntimeFailedError) as refused:
        choose(replace(CARD, precisions=("float32", "bfloat16")), wish, (ONNXRUNTIME, OPENVINO))
    assert message in str(refused.value)
    assert hint in refused.value.hint


@given(st.integers(1, 256), st.integers(0, 64))
def test_no_core_is_given_out_twice(cores: int, most: int) -> None:
    shared = share(cores, most)
    assert shared.processes >= 1
    assert shared.threads >= 1
    assert shared.processes * shared.threads <= cores
    assert shared.processes <= max(1, most)
