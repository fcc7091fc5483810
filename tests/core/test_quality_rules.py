"""What rules say of gates, reports, phantoms and versions that are tried out."""

from __future__ import annotations

from typing import Any

import pytest

from dicomnode.core.rules import RoutingPlan, RuleSet, load_rules, plan, rule_spec
from dicomnode.core.types import Header, Sender, Slice, Stack
from dicomnode.errors import ConfigError

CT: Header = {"Modality": ("CT",), "BodyPartExamined": ("CHEST",)}
SCANNER = Sender("ct1", "CT1", "DICOMNODE", "10.1.2.3", 0.0)
ENHANCE = {"match": {"Modality": "CT"}, "engines": ["ct-nlm"], "send_results": ["pacs"]}
PHANTOM = {"match": {"PatientID": "QA*"}, "constancy": True}


def rules(*tables: dict[str, Any]) -> RuleSet:
    specs = [rule_spec({"name": f"r{number}", **table}) for number, table in enumerate(tables, 1)]
    return load_rules(specs, {"pacs": "pacs", "archive": "archive"}, ("ct-nlm", "contrast-glcae"))


def planned(*tables: dict[str, Any], header: Header = CT, stacks: int = 1, peer: str = "ct1") -> RoutingPlan:
    one = Slice(1, "1.2.3", "1.2.840.10008.5.1.4.1.1.2", header, 512, 512, None, None, None)
    given = [Stack(f"s{number}", (one,), "", None, regular=True) for number in range(stacks)]
    sender = Sender(peer, "CT1", "DICOMNODE", "10.1.2.3", 0.0)
    found = plan(rules(*tables), given, sender, received_hour=9)
    assert RoutingPlan.from_json(found.to_json()) == found
    return found


@pytest.mark.parametrize(
    ("given", "expected"),
    [(["flag"], "flag"), ([None], "withhold"), (["flag", "flag"], "flag"), (["flag", "withhold"], "withhold")],
)
def test_what_is_out_of_bounds_is_flagged_only_where_every_rule_says_so(given: list[str | None], expected: str) -> None:
    tables = [{**ENHANCE, **({} if one is None else {"on_gate": one})} for one in given]
    (job,) = planned(*tables).jobs
    assert (job.on_gate, job.kind) == (expected, "job")


def test_reports_go_where_the_rules_that_want_them_send_results() -> None:
    (job,) = planned({**ENHANCE, "report": ["sr"]}, {**ENHANCE, "send_results": ["archive"]}).jobs
    assert job.reports == ("sr",)
    assert [target.destination for target in job.report_targets] == ["pacs"]
    assert [target.destination for target in job.outputs[0].targets] == ["pacs", "archive"]


def test_reports_do_not_go_back_to_where_the_series_came_from() -> None:
    (job,) = planned({**ENHANCE, "send_results": ["archive"], "report": ["sr"], "send_originals": ["pacs"]}).jobs
    assert [target.destination for target in job.report_targets] == ["archive"]
    (phantom,) = planned(
        {"match": {"Modality": "CT"}, "constancy": True, "report": ["sr"], "send_results": ["pacs"]}, peer="pacs"
    ).jobs
    assert phantom.report_targets == ()


def test_a_phantom_is_measured_and_never_enhanced() -> None:
    found = planned(ENHANCE, PHANTOM, header={**CT, "PatientID": ("QA-1",)})
    (job,) = found.jobs
    assert (job.kind, job.engines, job.outputs, job.rules) == ("constancy", (), (), ("r2",))
    assert found.lines()[0] == "stack s0: measured as a phantom by rule 'r2'"
    (job,) = planned(ENHANCE, PHANTOM).jobs
    assert job.kind == "job"


def test_what_is_tried_out_comes_last_and_goes_nowhere() -> None:
    tried = {**ENHANCE, "settings": {"ct-nlm": {"strength": 0.5}}, "shadow": "ct-nlm@9.9.9"}
    found = planned(tried, {**ENHANCE, "engines": ["contrast-glcae"]}, stacks=2)
    assert [(job.kind, job.engines, job.stack_key) for job in found.jobs] == [
        ("job", ("ct-nlm",), "s0"),
        ("job", ("contrast-glcae",), "s0"),
        ("job", ("ct-nlm",), "s1"),
        ("job", ("contrast-glcae",), "s1"),
        ("shadow", ("ct-nlm@9.9.9",), "s0"),
        ("shadow", ("ct-nlm@9.9.9",), "s1"),
    ]
    shadow = found.jobs[-1]
    assert (shadow.outputs, shadow.destinations, shadow.on_gate) == ((), (), "flag")
    assert shadow.settings == {"ct-nlm@9.9.9": {"strength": 0.5}}
    assert "is tried out by rule 'r1': nothing leaves" in found.lines()[-1]


def test_two_rules_that_try_out_the_same_run_it_once() -> None:
    tried = {**ENHANCE, "shadow": "ct-nlm@9.9.9"}
    assert [job.kind for job in planned(tried, {**tried, "send_results": ["archive"]}).jobs] == ["job", "shadow"]


def test_nothing_is_tried_out_where_nothing_is_delivered() -> None:
    tried = {**ENHANCE, "shadow": "ct-nlm@9.9.9"}
    assert planned(tried, peer="pacs").jobs == ()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({**ENHANCE, "on_gate": "drop"}, "on_gate must be"),
        ({"match": {"Modality": "CT"}, "send": ["pacs"], "on_gate": "flag"}, "on_gate without engines"),
        ({"match": {"Modality": "CT"}, "send": ["pacs"], "shadow": "ct-nlm@2"}, "shadow without engines"),
        ({**ENHANCE, "shadow": "ct-nlm"}, "no other version"),
        ({**ENHANCE, "engines": ["ct-nlm@2"], "shadow": "ct-nlm@2"}, "no other version"),
        ({**ENHANCE, "shadow": "contrast-glcae@1"}, "is not one of its engines"),
        ({**ENHANCE, "shadow": "ct-nlm@2", "needs": {"thin": {"Modality": "CT"}}}, "shadow with needs"),
        ({**PHANTOM, "engines": ["ct-nlm"], "send": ["pacs"]}, "constancy with engines"),
        ({**PHANTOM, "needs": {"thin": {"Modality": "CT"}}}, "constancy with needs"),
        ({**PHANTOM, "report": ["sr"]}, "its reports go nowhere"),
        ({**PHANTOM, "send_results": ["pacs"]}, "send_results of a phantom without a report"),
        ({**ENHANCE, "report": ["pdf"]}, "report must be"),
        ({"match": {"Modality": "CT"}, "send": ["pacs"], "report": ["sr"]}, "report without engines"),
    ],
)
def test_a_wrong_rule_does_not_load(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        rules(table)


def test_rules_that_decide_otherwise_have_another_digest() -> None:
    tables = [ENHANCE, {**ENHANCE, "on_gate": "flag"}, {**ENHANCE, "shadow": "ct-nlm@2"}, {**ENHANCE, "report": ["sr"]}]
    assert len({rules(table).digest for table in tables}) == 4
