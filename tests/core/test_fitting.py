"""Rules held to the cards of their engines: what an input is made of, and what may leave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from dicomnode.core.rules import Leaving, Rule, RuleSpec, fitted, fitted_unseen, load_rules
from dicomnode.errors import ConfigError
from dicomnode.testing.bundles import Shape, made
from engines.card import EngineCard
from engines.classical.nlm import CtNlm

SHAPES: Mapping[str, Shape] = {
    "denoise": "denoise", "two": "two-outputs", "phases": "three-inputs", "segment": "segment", "detect": "detect",
    "marked": "segment-marked",
}  # fmt: skip
CARDS: Mapping[str, EngineCard] = {"ct-nlm": CtNlm.card, **{name: made(shape).card for name, shape in SHAPES.items()}}


def rule(engines: list[str], needs: list[str] | None = None, **other: Any) -> Rule:
    matches = {name: {"SeriesDescription": name} for name in needs or ()}
    spec = RuleSpec("one", {"Modality": "CT"}, needs=matches, engines=tuple(engines), send_results=("pacs",), **other)
    (loaded,) = load_rules([spec], {"pacs": "pacs"}, list(CARDS)).rules
    return fitted(loaded, CARDS)


@pytest.mark.parametrize(
    "needs", [["image", "portal", "delayed"], ["thin", "delayed", "portal"], ["thin", "localizer", "portal", "delayed"]]
)
def test_each_input_is_the_need_of_its_name_and_the_first_need_the_main_one(needs: list[str]) -> None:
    assert rule(["phases"], needs).engines == ("phases",)
    assert rule(["ct-nlm", "phases"], needs).engines == ("ct-nlm", "phases")


@pytest.mark.parametrize(
    ("engines", "needs", "reason", "hint"),
    [
        (["phases"], [], "phases takes 'portal', and nothing gives it", "`needs` of the rule names the series"),
        (["phases"], ["image", "portl", "delayed"], "phases takes 'portal'", "did you mean 'portl'"),
        (["phases"], ["image", "portal"], "phases takes 'delayed'", ""),
        (["phases"], ["portal", "image", "delayed"], "the first series is 'portal'", "goes in as 'image'"),
        (
            ["ct-nlm", "phases"],
            ["native", "image", "portal", "delayed"],
            "'image' is not the first series",
            "call that",
        ),
        (["denoise"], ["native", "image"], "'image' is not the first series", "name it first"),
        (["segment"], ["image", "portal", "delayed"], "gives a mask, and no DICOM object is made of that", "check"),
        (["detect"], [], "gives findings, and no DICOM object is made of that", "check"),
        (["marked"], [], "wants marks that a person drew, as 'marks'", "check"),
    ],
)
def test_what_does_not_fit_is_said_with_the_nearest_name(
    engines: list[str], needs: list[str], reason: str, hint: str
) -> None:
    with pytest.raises(ConfigError, match="rule 'one': ") as raised:
        rule(engines, needs)
    assert reason in str(raised.value)
    assert hint in raised.value.hint


def test_a_mask_may_stand_in_a_chain_of_which_the_image_leaves() -> None:
    needs = ["image", "portal", "delayed"]
    assert rule(["segment", "denoise"], needs).deliver == (Leaving("denoise"),)
    with pytest.raises(ConfigError, match="gives a mask"):
        rule(["segment", "denoise"], needs, deliver=("segment", "denoise"))


def test_an_output_has_one_name_and_must_be_there() -> None:
    both = rule(["two"], deliver=("two.enhanced", "two", "two.image"))
    assert both.deliver == (Leaving("two"), Leaving("two", "enhanced"))
    with pytest.raises(ConfigError, match="two has no output 'enhnced'") as raised:
        rule(["two"], deliver=("two.enhnced",))
    assert raised.value.hint == "did you mean 'enhanced'?"


def test_a_version_that_is_tried_out_has_to_fit_too() -> None:
    cards = {"two": CARDS["two"], "two@2.0.0": CARDS["marked"]}
    spec = RuleSpec("one", {"Modality": "CT"}, engines=("two",), shadow="two@2.0.0", send_results=("pacs",))
    (loaded,) = load_rules([spec], {"pacs": "pacs"}, ["two"]).rules
    with pytest.raises(ConfigError, match="marks that a person drew"):
        fitted(loaded, cards)


def test_without_cards_a_rule_is_held_to_what_its_words_tell() -> None:
    spec = RuleSpec("one", {"Modality": "CT"}, engines=("ct-nlm",), send_results=("pacs",))
    (plain,) = load_rules([spec], {"pacs": "pacs"}, ["ct-nlm"]).rules
    twice = replace(plain, deliver=(Leaving("ct-nlm"), Leaving("ct-nlm", "image"), Leaving("ct-nlm", "other")))
    assert fitted_unseen(twice).deliver == (Leaving("ct-nlm"), Leaving("ct-nlm", "other"))
    needs = {name: {"SeriesDescription": name} for name in ("native", "image")}
    (wrong,) = load_rules([replace(spec, needs=needs)], {"pacs": "pacs"}, ["ct-nlm"]).rules
    with pytest.raises(ConfigError, match="'image' is not the first series"):
        fitted_unseen(wrong)
