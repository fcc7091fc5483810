"""Why derived objects wait before they leave for a destination."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dicomnode.core.routing import DestinationPolicy, Routing
from dicomnode.core.rules import RuleSpec, load_rules
from dicomnode.core.types import CompletenessPolicy
from dicomnode.core.withholding import COMMISSIONING, NOT_CHECKED, CheckPatient, withheld_because

TRIED = RuleSpec("tried", {"Modality": "CT"}, engines=("ct-nlm",), send=("pacs",), commissioning=True)
PROVEN = RuleSpec("proven", {"Modality": "CT"}, engines=("ct-nlm",), send=("pacs",))


def routing_of(*rules: RuleSpec) -> Routing:
    destinations = {"pacs": DestinationPolicy(), "asked": DestinationPolicy(check_patient="yes")}
    return Routing(
        load_rules(rules, {"pacs": None, "asked": None}, ("ct-nlm",)), destinations, CompletenessPolicy(), {}
    )


@pytest.mark.parametrize(
    ("rules", "tried_out", "check", "reason"),
    [
        (["a"], [], "no", None),
        (["a"], ["a"], "no", COMMISSIONING),
        (["a", "b"], ["a"], "no", None),
        (["a", "b"], ["a", "b"], "no", COMMISSIONING),
        (["a"], ["b"], "no", None),
        (["a"], [], "yes", NOT_CHECKED),
        (["a"], [], "if-possible", NOT_CHECKED),
        (["a"], ["a"], "yes", COMMISSIONING),
        ([], [], "no", None),
    ],
)
def test_what_waits_and_why(rules: list[str], tried_out: list[str], check: CheckPatient, reason: str | None) -> None:
    assert withheld_because(rules, tried_out, check) == reason


def test_a_rule_that_is_tried_out_keeps_only_what_no_other_rule_sends() -> None:
    routing = routing_of(TRIED, PROVEN)
    assert routing.withholds("pacs", ["tried"], []) == COMMISSIONING
    assert routing.withholds("pacs", ["tried", "proven"], []) is None
    assert routing.withholds("asked", ["proven"], []) == NOT_CHECKED


def test_a_node_that_is_tried_out_keeps_everything_and_does_not_ask_first() -> None:
    routing = replace(routing_of(PROVEN), commissioning=True)
    assert routing.withholds("pacs", ["proven"], []) == COMMISSIONING
    assert routing.withholds("asked", ["a rule that was removed"], []) == COMMISSIONING


def test_what_was_planned_in_commissioning_stays_so_after_the_rule_was_changed_or_removed() -> None:
    assert routing_of(replace(TRIED, commissioning=False)).withholds("pacs", ["tried"], ["tried"]) == COMMISSIONING
    assert routing_of(PROVEN).withholds("pacs", ["tried"], ["tried"]) == COMMISSIONING


def test_a_destination_that_was_removed_is_not_asked() -> None:
    assert routing_of(PROVEN).withholds("gone", ["proven"], []) is None
