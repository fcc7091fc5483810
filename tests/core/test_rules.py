"""Rules as a whole: what loads, where originals go, what is planned, and that docs/rules.md is true."""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomnode.core.completeness import CONFIDENCE
from dicomnode.core.identity import INSTANCE_CREATOR_UID
from dicomnode.core.rules import (
    Facts,
    Leaving,
    RoutingPlan,
    RuleSet,
    RuleSpec,
    explain,
    forward,
    is_derived_by_us,
    load_rules,
    plan,
    rule_spec,
    tightened,
)
from dicomnode.core.types import CompletenessPolicy, Header, OnDeadline, Sender, Slice, Stack
from dicomnode.errors import ConfigError

DOCS = Path(__file__).resolve().parents[2] / "docs"
DESTINATIONS = {"pacs": "pacs", "research": "archive", "folder": None}
ENGINES = ("ct-nlm", "contrast-glcae")
CT: Header = {"Modality": ("CT",), "BodyPartExamined": ("CHEST",), "SliceThickness": ("1.0",)}
MR: Header = {"Modality": ("MR",)}
SCANNER = Sender("ct1", "CT1", "DICOMNODE", "10.1.2.3", 0.0)
ANY = {"Modality": "*"}


def _rules(*tables: dict[str, Any]) -> RuleSet:
    specs = [rule_spec({"name": f"r{number}", "match": ANY, **table}) for number, table in enumerate(tables, 1)]
    return load_rules(specs, DESTINATIONS, ENGINES)


def _facts(header: Header = CT, peer: str = "ct1") -> Facts:
    return Facts(header, replace(SCANNER, peer=peer), received_hour=9)


def _stack(header: Header = CT, key: str = "a", excluded: str = "") -> Stack:
    one = Slice(1, "1.2.3", "1.2.840.10008.5.1.4.1.1.2", header, 512, 512, None, None, None)
    return Stack(key, (one,), excluded, None, regular=True)


def _sent(rules: RuleSet, facts: Facts) -> list[str]:
    return [target.destination for target in forward(rules, facts).targets]


# --- forwarding ---

SEND_CT = {"match": {"Modality": "CT"}, "send": ["pacs"]}
SEND_ALL = {"send": ["research"]}
ENHANCE = {"match": {"Modality": "CT"}, "engines": ["ct-nlm"], "send_results": ["pacs"]}

FORWARDING = [
    # case, rules, what a CT from ct1 goes to, what an MR from ct1 goes to
    ("the union of all that match", [SEND_CT, SEND_ALL], ["pacs", "research"], ["research"]),
    ("each destination once", [SEND_CT, SEND_CT, {"send": ["pacs"]}], ["pacs"], ["pacs"]),
    ("stop ends the list for what matches", [{**SEND_CT, "stop": True}, SEND_ALL], ["pacs"], ["research"]),
    ("results-only rules stop no originals", [{**ENHANCE, "stop": True}, SEND_ALL], ["research"], ["research"]),
    ("results only: no originals", [ENHANCE], [], []),
    ("originals only", [{"send_originals": ["folder"]}], ["folder"], ["folder"]),
    ("no rules", [], [], []),
]  # fmt: skip


@pytest.mark.parametrize(
    ("tables", "ct", "mr"), [case[1:] for case in FORWARDING], ids=[case[0] for case in FORWARDING]
)
def test_originals_go_where_the_rules_they_match_send_them(
    tables: list[dict[str, Any]], ct: list[str], mr: list[str]
) -> None:
    rules = _rules(*tables)
    assert _sent(rules, _facts(CT)) == ct
    assert _sent(rules, _facts(MR)) == mr


def test_a_target_knows_the_rules_that_named_it_and_the_highest_priority() -> None:
    (target,) = forward(_rules(SEND_CT, {**SEND_CT, "priority": "urgent"}), _facts()).targets
    assert target.rules == ("r1", "r2")
    assert target.priority == "urgent"


def test_nothing_goes_back_to_the_peer_it_came_from() -> None:
    forwarding = forward(_rules({"send": ["pacs", "folder"]}), _facts(peer="pacs"))
    assert [target.destination for target in forwarding.targets] == ["folder"]
    assert forwarding.lines() == (
        "to folder: rule 'r1'",
        "not to pacs: it came from its peer pacs, and no rule that names it says echo = true (rule 'r1')",
    )


@pytest.mark.parametrize(
    ("echoing", "sent"),
    [
        ({"send": ["pacs"], "echo": True}, ["pacs"]),
        ({"send": ["folder"], "echo": True}, ["folder"]),  # echo counts for what the rule itself names
        ({"match": {"Modality": "MR"}, "send": ["pacs"], "echo": True}, []),  # and where the rule matches
    ],
)
def test_echo_allows_it(echoing: dict[str, Any], sent: list[str]) -> None:
    assert _sent(_rules({"send": ["pacs"]}, echoing), _facts(peer="pacs")) == sent


def test_a_caller_without_a_name_is_no_loop() -> None:
    assert _sent(_rules({"send": ["folder", "pacs"]}), _facts(peer="")) == ["folder", "pacs"]


def test_what_matches_nothing_is_unrouted_and_tells_the_nearest_rule() -> None:
    far = {"match": {"Modality": "MR", "BodyPartExamined": "HEAD"}, "send": ["pacs"]}
    near = {"match": {"Modality": "CT", "BodyPartExamined": "CHEST", "SliceThickness": "<= 0.5"}, "send": ["pacs"]}
    forwarding = forward(_rules(far, near), _facts())
    assert forwarding.unrouted
    assert forwarding.lines() == (
        "unrouted: no rule matches; the nearest is 'r2'",
        "  fails SliceThickness: wanted <= 0.5, found 1.0",
    )


def test_what_matches_a_rule_that_sends_no_originals_is_not_unrouted() -> None:
    forwarding = forward(_rules(ENHANCE), _facts())
    assert not forwarding.unrouted
    assert forwarding.lines() == ("rule 'r1': no originals are sent",)


def test_explanations_tell_what_a_stop_keeps_out() -> None:
    first, second, third = explain(_rules({**ENHANCE, "stop": True}, {**SEND_CT, "stop": True}, SEND_ALL), _facts())
    assert first.lines() == ("rule 'r1' matches", "  ok    Modality: wanted CT, found CT")
    assert second.lines()[-1] == "  not considered for engines: rule 'r1' matched and says stop"
    assert (third.forwarding_stopped_by, third.engines_stopped_by) == ("r2", "r1")


# --- plans ---


def _plan(rules: RuleSet, *stacks: Stack, peer: str = "ct1") -> RoutingPlan:
    return plan(rules, stacks, replace(SCANNER, peer=peer), received_hour=9)


def test_only_matching_stacks_are_enhanced() -> None:
    planned = _plan(_rules(ENHANCE), _stack(CT, "a"), _stack(MR, "b"))
    (job,) = planned.jobs
    assert (job.stack_key, job.rules, job.engines) == ("a", ("r1",), ("ct-nlm",))
    assert (job.deliver, job.destinations, job.priority) == ((Leaving("ct-nlm"),), ("pacs",), "normal")
    assert [(stack.stack_key, stack.reason) for stack in planned.stacks] == [("a", ""), ("b", "no rule matches")]
    assert not planned.unrouted


CHAIN = {"engines": ["ct-nlm", "contrast-glcae"], "send": ["pacs"]}


def test_of_a_chain_the_last_output_leaves() -> None:
    (job,) = _plan(_rules(CHAIN), _stack()).jobs
    assert job.engines == ("ct-nlm", "contrast-glcae")
    assert list(map(str, job.deliver)) == ["contrast-glcae"]


def test_deliver_names_others_and_the_chain_gives_the_order() -> None:
    (job,) = _plan(_rules({**CHAIN, "deliver": ["contrast-glcae", "ct-nlm"]}), _stack()).jobs
    assert list(map(str, job.deliver)) == ["ct-nlm", "contrast-glcae"]


def test_outputs_are_delivered_by_name_beside_the_first_and_each_goes_where_its_rules_say() -> None:
    first = {**CHAIN, "deliver": ["ct-nlm.noise", "contrast-glcae", "ct-nlm"], "send_results": ["pacs"]}
    second = {**CHAIN, "deliver": ["ct-nlm.noise"], "send_results": ["research"]}
    planned = _plan(_rules(first, second), _stack())
    (job,) = planned.jobs
    assert [(str(one.leaving), [target.destination for target in one.targets]) for one in job.outputs] == [
        ("ct-nlm", ["pacs"]),
        ("ct-nlm.noise", ["pacs", "research"]),
        ("contrast-glcae", ["pacs"]),
    ]
    assert RoutingPlan.from_json(planned.to_json()) == planned
    assert "  output of ct-nlm.noise to pacs, research" in planned.lines()


@pytest.mark.parametrize(
    ("word", "leaving"),
    [
        ("ct-nlm@1.2.0", Leaving("ct-nlm@1.2.0")),
        ("ct-nlm", Leaving("ct-nlm@1.2.0")),
        ("ct-nlm.noise", Leaving("ct-nlm@1.2.0", "noise")),
        ("ct-nlm@1.2.0.noise", Leaving("ct-nlm@1.2.0", "noise")),
    ],
)
def test_an_output_may_follow_the_name_or_the_version(word: str, leaving: Leaving) -> None:
    (rule,) = _rules({**ENHANCE, "engines": ["ct-nlm@1.2.0"], "deliver": [word]}).rules
    assert rule.deliver == (leaving,)


def test_rules_that_compute_the_same_are_one_job_and_each_output_goes_only_where_it_was_asked_for() -> None:
    also = {**CHAIN, "send": ["research"], "deliver": ["ct-nlm", "contrast-glcae"], "priority": "urgent"}
    (job,) = _plan(_rules(CHAIN, also), _stack()).jobs
    assert job.rules == ("r1", "r2")
    assert job.priority == "urgent"
    went = {output.engine: [target.destination for target in output.targets] for output in job.outputs}
    assert went == {"ct-nlm": ["research"], "contrast-glcae": ["pacs", "research"]}


def test_other_settings_are_another_job() -> None:
    strong = {**ENHANCE, "settings": {"ct-nlm": {"strength": 2.0}}}
    assert [dict(job.settings) for job in _plan(_rules(ENHANCE, strong), _stack()).jobs] == [{}, strong["settings"]]


STAMPED = {**CT, "InstanceCreatorUID": (INSTANCE_CREATOR_UID,)}


@pytest.mark.parametrize(
    ("stack", "reason"),
    [
        (_stack(excluded="localizer"), "never enhanced: localizer"),
        (_stack(STAMPED), "derived by this software: never enhanced again"),
        (_stack(MR), "no rule that it matches names an engine"),
    ],
)
def test_why_a_stack_is_not_enhanced(stack: Stack, reason: str) -> None:
    planned = _plan(_rules(ENHANCE, SEND_ALL), stack)
    assert planned.jobs == ()
    assert planned.stacks[0].reason == reason


def test_stop_ends_the_engines_even_in_a_rule_without_engines() -> None:
    planned = _plan(_rules({"send": ["pacs"], "stop": True}, ENHANCE), _stack())
    assert planned.stacks[0].reason == "no rule that it matches names an engine (rule 'r1' says stop)"


def test_results_do_not_go_back_to_where_the_source_came_from() -> None:
    both = {**ENHANCE, "send_results": ["pacs", "folder"]}
    (job,) = _plan(_rules(both), _stack(), peer="pacs").jobs
    assert job.destinations == ("folder",)
    assert [one.destination for one in job.suppressed] == ["pacs"]


def test_nothing_is_computed_that_may_go_nowhere() -> None:
    planned = _plan(_rules(ENHANCE), _stack(), peer="pacs")
    assert planned.jobs == ()
    assert planned.stacks[0].reason.startswith("not to pacs: it came from its peer pacs")
    assert _plan(_rules({**ENHANCE, "echo": True}), _stack(), peer="pacs").jobs[0].destinations == ("pacs",)


def test_a_series_that_matches_nothing_is_unrouted() -> None:
    planned = _plan(_rules(ENHANCE), _stack(MR))
    assert planned.unrouted
    assert planned.lines() == (
        "stack a: not enhanced: no rule matches",
        "  unrouted: no rule matches; the nearest is 'r1'",
        "    fails Modality: wanted CT, found MR",
    )


def test_a_plan_reads_so() -> None:
    assert _plan(_rules({**CHAIN, "send": ["pacs", "folder"]}), _stack()).lines() == (
        "stack a: ct-nlm then contrast-glcae by rule 'r1'",
        "  output of contrast-glcae to pacs, folder",
    )


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([SEND_CT, SEND_ALL, ENHANCE, CHAIN, {**SEND_CT, "stop": True}]), max_size=5),
    st.lists(st.sampled_from([CT, MR, STAMPED]), max_size=4),
    st.sampled_from(["ct1", "pacs", ""]),
    st.text(max_size=20),
)
def test_a_plan_survives_json(tables: list[dict[str, Any]], headers: list[Header], peer: str, text: str) -> None:
    rules = _rules(*tables, {**ENHANCE, "settings": {"ct-nlm": {"mode": text, "strength": 1, "fast": True}}})
    planned = _plan(rules, *(_stack({**header, "BodyPartExamined": (text,)}) for header in headers), peer=peer)
    assert RoutingPlan.from_json(planned.to_json()) == planned


# --- loop protection, waiting times, keywords ---


@pytest.mark.parametrize(
    ("header", "ours"),
    [
        ({"InstanceCreatorUID": (INSTANCE_CREATOR_UID,)}, True),
        ({"ManufacturerModelName": ("dicomnode",), "ImageType": ("DERIVED", "SECONDARY")}, True),
        ({"ManufacturerModelName": ("dicomnode",), "ImageType": ("ORIGINAL", "DERIVED")}, False),
        ({"ManufacturerModelName": ("dicomnode",)}, False),
        ({"ImageType": ("DERIVED",)}, False),
        ({"InstanceCreatorUID": ("1.2.3",)}, False),
        ({}, False),
    ],
)
def test_what_we_derived_is_known(header: Header, ours: bool) -> None:
    assert is_derived_by_us(header) is ours


def test_rules_only_tighten() -> None:
    policy = CompletenessPolicy(quiet_s=60, released_quiet_s=5, deadline_s=600)
    rules = _rules(
        {**SEND_ALL, "quiet_s": 20, "deadline_s": 6000},
        {**SEND_ALL, "match": {"Modality": "MR"}, "quiet_s": 1},
        {**SEND_ALL, "deadline_s": 100},
    )
    assert tightened(policy, rules, _facts(CT)) == replace(policy, quiet_s=20, quiet_max_s=20, deadline_s=100)
    assert tightened(policy, _rules(SEND_ALL), _facts(CT)) == policy
    held = _rules({**SEND_ALL, "on_deadline": "hold", "longest_s": 60}, {**SEND_ALL, "on_deadline": "proceed"})
    assert tightened(policy, held, _facts(CT)) == replace(policy, on_deadline=OnDeadline.HOLD, longest_s=60)


def test_keywords_are_the_rules_and_the_loop_protections() -> None:
    rules = _rules({**SEND_ALL, "match": {"peer": "ct1", "received_hour": "22..6", "KVP": "..120"}})
    assert rules.keywords == {"KVP", "InstanceCreatorUID", "ManufacturerModelName", "ImageType"}


# --- what does not load ---

WRONG = [
    # table, what the message says, what the hint says
    ({"match": {}, "send": ["pacs"]}, "match is empty", "Modality"),
    ({}, "neither sends nor enhances", "send"),
    ({"stop": True}, "neither sends nor enhances", "send"),
    ({"engines": ["ct-nlm"]}, "results go nowhere", "send_results"),
    ({"engines": ["ct-nlm"], "send_originals": ["pacs"]}, "results go nowhere", "send_results"),
    ({"send_results": ["pacs"]}, "send_results without engines", ""),
    ({"send": ["pacs"], "deliver": ["ct-nlm"]}, "deliver without engines", ""),
    ({"send": ["pac"]}, "no destination 'pac'", "'pacs'"),
    ({"send_originals": ["xyz"]}, "no destination 'xyz'", "folder, pacs, research"),
    ({**ENHANCE, "engines": ["ct-nml"]}, "no engine 'ct-nml'", "'ct-nlm'"),
    ({**ENHANCE, "engines": ["ct-nlm", "ct-nlm@2"]}, "twice", "two rules"),
    ({**ENHANCE, "deliver": ["contrast-glcae"]}, "is not one of its engines", "ct-nlm"),
    ({**ENHANCE, "settings": {"ct-nml": {"a": 1}}}, "is not one of its engines", "'ct-nlm'"),
    ({**SEND_ALL, "match": {"SliceThicknes": 1}}, "'SliceThicknes'", "'SliceThickness'"),
    ({**SEND_ALL, "quiet_s": -1}, "quiet_s = -1", "seconds"),
    ({**SEND_ALL, "deadline_s": float("nan")}, "deadline_s", "seconds"),
    ({"sends": ["pacs"]}, "unknown key 'sends'", "'send'"),
    ({"send": "pacs"}, "send must be a list", '["pacs"]'),
    ({"send": [3]}, "send must be a list", ""),
    ({**SEND_ALL, "stop": "yes"}, "stop must be true or false", ""),
    ({**SEND_ALL, "quiet_s": True}, "quiet_s must be a number", ""),
    ({**SEND_ALL, "priority": "high"}, "priority must be", "urgent"),
    ({**SEND_ALL, "match": ["CT"]}, "match must be a table", ""),
    ({**ENHANCE, "settings": {"ct-nlm": 3}}, "settings must be one table an engine", "rule.settings"),
]


@pytest.mark.parametrize(("table", "message", "hint"), WRONG, ids=[str(case[0]) for case in WRONG])
def test_a_wrong_rule_does_not_load(table: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(ConfigError) as refused:
        _rules(table)
    assert message in str(refused.value)
    assert "rule 'r1'" in str(refused.value)
    assert hint in refused.value.hint


def test_names_are_needed_and_used_once() -> None:
    with pytest.raises(ConfigError, match="'r' is there twice"):
        load_rules([RuleSpec("r", ANY, send=("pacs",))] * 2, DESTINATIONS, ENGINES)
    with pytest.raises(ConfigError, match="rule number 2: name is missing"):
        rule_spec({"match": ANY, "send": ["pacs"]}, number=2)
    with pytest.raises(ConfigError, match="rule number 1: name must be text"):
        rule_spec({"name": " ", "match": ANY} | {"name": 3})


def test_an_engine_may_be_named_with_its_version_and_its_settings_without() -> None:
    table = {**ENHANCE, "engines": ["ct-nlm@1.0"], "deliver": ["ct-nlm"], "settings": {"ct-nlm": {"strength": 1.0}}}
    (rule,) = _rules(table).rules
    assert rule.deliver == (Leaving("ct-nlm@1.0"),)
    assert rule.settings == {"ct-nlm@1.0": {"strength": 1.0}}


# --- the documents ---


def _blocks(document: str) -> list[str]:
    return re.findall(r"```toml\n(.*?)```", (DOCS / document).read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("block", _blocks("rules.md"))
def test_every_example_in_the_document_loads(block: str) -> None:
    tables = tomllib.loads(block)
    for table in tables["rule"]:
        if isinstance(table.get("needs"), list):  # as `dicomnode.config` puts them together
            table["needs"] = {name: tables["need"][name]["match"] for name in table["needs"]}
    specs = [rule_spec(table, number) for number, table in enumerate(tables["rule"], 1)]
    assert specs
    installed = (*ENGINES, "liver-denoise", "ct-two-stages")
    load_rules(specs, DESTINATIONS, installed, peers=("ct1", "ct2", "pacs"))


def test_every_clause_in_the_documents_tables_loads() -> None:
    text = (DOCS / "rules.md").read_text(encoding="utf-8")
    examples = re.findall(r"^\|.*\| (`\w+ = .*`) \|$", text, re.MULTILINE)
    clauses = [clause for line in examples for clause in re.findall(r"`(\w+ = [^`]*)`", line)]
    assert len(clauses) >= 14
    for clause in clauses:
        spec = RuleSpec("example", tomllib.loads(clause), send=("pacs",))
        load_rules([spec], DESTINATIONS, ENGINES, peers=("ct1", "ct2"))


def test_the_document_names_every_key() -> None:
    text = (DOCS / "rules.md").read_text(encoding="utf-8")
    for key in RuleSpec.__dataclass_fields__:
        assert f"`{key}`" in text


def test_the_documents_confidences_are_the_codes() -> None:
    text = (DOCS / "completeness.md").read_text(encoding="utf-8")
    for basis, confidence in CONFIDENCE.items():
        assert f"| {basis} | {confidence} |" in text
