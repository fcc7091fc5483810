"""Rules that need several series of a study: which stack fulfils which need."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dicomnode.core.rules import Facts, RuleSet, RuleSpec, explain_needs, fulfilled, load_rules, plan, rule_spec
from dicomnode.core.rules.needs import missing
from dicomnode.core.types import Sender, Slice, Stack
from dicomnode.errors import ConfigError

SENDER = Sender("ct1", "CT1", "DICOMNODE", "10.0.0.1", 0.0)
NEEDS = {"thin": {"SliceThickness": "<= 1.5"}, "localizer": {"ImageType": "LOCALIZER"}}


def rules(*specs: RuleSpec) -> RuleSet:
    return load_rules(specs, {"pacs": "pacs"}, ("ct-nlm", "contrast-glcae"))


def spec(**other: Any) -> RuleSpec:
    given: dict[str, Any] = {
        "name": "both", "match": {"Modality": "CT"}, "needs": NEEDS, "engines": ("ct-nlm",), "send_results": ("pacs",),
    }  # fmt: skip
    return RuleSpec(**{**given, **other})


def stack(key: str, excluded: str = "", **header: str) -> Stack:
    one = Slice(
        1, "1.2", "1.2", {"Modality": ("CT",), **{key: (text,) for key, text in header.items()}}, 1, 1, None, None, None
    )
    return Stack(key, (one,), excluded, None, False)


THIN, THICK = stack("a", SliceThickness="1.0"), stack("b", SliceThickness="5.0")
LOCALIZER = stack("c", "localizer", ImageType="LOCALIZER", SliceThickness="5.0")


def met(*stacks: Stack, ruleset: RuleSet | None = None) -> list[dict[str, str]]:
    return [dict(one.stacks) for one in fulfilled(ruleset or rules(spec()), stacks, SENDER, 12)]


def test_each_stack_fulfils_what_it_meets() -> None:
    assert met(THIN) == [{"thin": "a"}]
    assert met(LOCALIZER) == [{"localizer": "c"}]
    assert met(THICK, LOCALIZER, THIN) == [{"localizer": "c", "thin": "a"}]
    assert met(THICK) == []


def test_the_rules_own_match_counts_too() -> None:
    assert met(THIN, ruleset=rules(spec(match={"Modality": "MR"}))) == []


def test_what_is_never_enhanced_is_no_input() -> None:
    assert met(replace(THIN, excluded="localizer")) == []
    assert met(LOCALIZER, ruleset=rules(spec(needs={"first": {"Modality": "CT"}, "second": {"Modality": "CT"}}))) == [
        {"second": "c"}
    ]


def test_one_stack_fulfils_one_need() -> None:
    twice = rules(spec(needs={"first": {"Modality": "CT"}, "second": {"Modality": "CT"}}))
    assert met(THIN, ruleset=twice) == [{"first": "a"}]
    assert met(THIN, THICK, ruleset=twice) == [{"first": "a", "second": "b"}]


def test_a_stop_keeps_a_rule_with_needs_out_as_any_other() -> None:
    stop = RuleSpec("stop", {"Modality": "CT"}, send=("pacs",), stop=True)
    assert met(THIN, ruleset=rules(stop, spec())) == []


def test_the_job_is_the_rules_on_the_stack_of_the_first_need() -> None:
    (one,) = fulfilled(rules(spec(priority="urgent")), [THIN], SENDER, 12)
    assert (one.rule, one.needs) == ("both", ("thin", "localizer"))
    assert (one.job.stack_key, one.job.engines, one.job.rules, one.job.priority) == (
        "a",
        ("ct-nlm",),
        ("both",),
        "urgent",
    )
    assert one.job.destinations == ("pacs",)


def test_no_stack_is_enhanced_by_itself_by_a_rule_with_needs() -> None:
    planned = plan(rules(spec()), [THIN], SENDER, 12)
    assert planned.jobs == ()
    assert planned.stacks[0].reason == "not by itself: rule 'both' needs several series of the study"


def test_what_is_missing_is_told_in_order() -> None:
    assert missing(("a", "b", "c"), {"b": 1}) == ("a", "c")


def test_needs_are_explained_clause_by_clause() -> None:
    lines = explain_needs(rules(spec()), Facts(THIN.header, SENDER, 12))
    assert lines == (
        "rule 'both' meets need 'thin' (the engine's input)",
        "  ok    SliceThickness: wanted <= 1.5, found 1.0",
        "rule 'both' does not meet need 'localizer'",
        "  fails ImageType: wanted LOCALIZER, found absent",
    )


def test_headers_are_read_with_what_needs_ask_for() -> None:
    assert {"SliceThickness", "ImageType"} <= rules(spec()).keywords
    assert rules(spec()).digest != rules(spec(needs={})).digest


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"needs": {"thin": {}}, "engines": ["ct-nlm"], "send_results": ["pacs"]}, "matches everything"),
        (
            {"needs": {"thin": {"Slicethickness": "1"}}, "engines": ["ct-nlm"], "send_results": ["pacs"]},
            "Slicethickness",
        ),
        ({"needs": {"thin": {"Modality": "CT"}}, "send": ["pacs"]}, "needs without engines"),
        ({"needs": "thin", "engines": ["ct-nlm"], "send_results": ["pacs"]}, "needs must be"),
    ],
)
def test_wrong_needs_do_not_load(table: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        rules(rule_spec({"name": "wrong", "match": {"Modality": "CT"}, **table}))
