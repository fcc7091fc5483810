"""Quarantine, release and discard as commands see them, and what `status` and `why` tell of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from dicomnode.cli.app import run
from dicomnode.config import Config
from dicomnode.errors import InputError, NotFoundError
from dicomnode.flow.closing import Closer
from dicomnode.operations import quarantine, release
from dicomnode.operations.index import reading
from dicomnode.operations.quarantine import Which
from dicomnode.operations.status import status
from dicomnode.operations.why import why
from dicomnode.store.index import purges
from dicomnode.store.index.actions import actions_on
from dicomnode.store.schema import Action, Instance, Outbox, PatientCheck, Series
from tests.flow.rooms import Flow, engine_that, phantom
from tests.operations.sites import TREE, index_of, site


def engine(state: str, *reasons: str, folder: str | None = None) -> Mapping[str, Any]:
    """An engine worker whose gates end a chain so; `folder` is what it wrote."""
    operations = engine_that(state, list(reasons))

    def run_chain(**arguments: Any) -> Mapping[str, Any]:
        told = operations["run_chain"](**arguments)
        if folder is not None:
            (Path(arguments["out"]) / folder).mkdir()
            told["stages"][0]["folder"] = folder
        return told  # type: ignore[no-any-return]

    return {"run_chain": run_chain}


def chest() -> list[Any]:
    slices = phantom()
    for one in slices:
        one.BodyPartExamined = "CHEST"
    return slices


def text(lines: Sequence[str]) -> str:
    return "\n".join(lines)


def reopened(flow: Flow) -> bool:
    return flow.received.state == "receiving"


def test_before_the_first_start_there_is_no_quarantine(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        quarantine.quarantine(site(tmp_path))


def test_what_is_refused_is_listed_shown_and_done_again(tmp_path: Path) -> None:
    config = site(tmp_path)
    with index_of(config, engine("refused", "row spacing 3 mm, wanted is 0.3 to 1.5 mm")) as flow:
        assert quarantine.quarantine(config).lines() == ("nothing is in quarantine",)
        flow.receive(chest())
        flow.run()
        (entry,) = quarantine.quarantine(config).entries
        assert (entry.id, entry.kind, entry.engines, entry.instances) == ("job:1", "refused", ("ct-nlm",), 4)
        assert entry.about == flow.received.series_instance_uid
        shown = text(quarantine.show(config, "1").lines())
        assert "row spacing 3 mm" in shown
        assert "rule low-dose chest" in shown
        assert status(config).care.quarantine == {"refused": 1}
        assert "dicomnode quarantine list" in text(status(config).lines())
        assert quarantine.requeue(config, Which(("job:1",))).done == ("job:1",)
        assert reopened(flow)
        assert [(row.what, row.subject) for row in flow.reception.rows(Action)] == [("quarantine requeue", entry.about)]
        with pytest.raises(NotFoundError):
            quarantine.requeue(config, Which(("job:1",)))
        flow.engines.operations = {**flow.engines.operations, **engine("refused", "still")}
        calls: list[object] = []
        assert Closer(flow.reception.database, lambda _, call: calls.append(call)).judge_due(1e10) == 1
        flow.pipeline.plan(flow.received.id, flow.received.generation)
        assert [(job.id, job.generation, job.state) for job in flow.jobs][-1] == (2, 2, "planned")
        assert quarantine.quarantine(config).entries == ()


def test_a_plan_that_failed_and_instances_that_cannot_be_read_are_listed(tmp_path: Path) -> None:
    config = site(tmp_path)
    with index_of(config) as flow:
        flow.receive(chest())
        damaged = flow.reception.rows(Instance)[2]
        flow.reception.files.path(damaged.file).write_bytes(b"no DICOM")
        flow.pipeline.plan(*flow.close())
        (entry,) = quarantine.quarantine(config).entries
        assert (entry.id, entry.kind, entry.instances) == ("plan:1", "unreadable", 1)
        assert damaged.sop_instance_uid in text(quarantine.show(config, "plan:1").lines())
        flow.pipeline.fail_plan(*flow.close(), "the disk failed")
        (entry,) = quarantine.quarantine(config).entries
        assert (entry.id, entry.kind, entry.reason) == ("plan:2", "failed plan", "the disk failed")
        assert quarantine.requeue(config, Which(every=True, reason="DISK")).done == ("plan:2",)


def test_only_what_the_options_leave_is_done_again(tmp_path: Path) -> None:
    config = site(tmp_path)
    with index_of(config, engine("refused", "too thick")) as flow:
        flow.receive(chest())
        flow.run()
        for which in (Which(every=True, reason="thin"), Which(every=True, engine="ct-other"), Which(("job:9",))):
            with pytest.raises(NotFoundError):
                quarantine.requeue(config, which)
        assert not reopened(flow)
        assert quarantine.requeue(config, Which(every=True, reason="THICK", engine="ct-nlm")).done == ("job:1",)


def test_what_was_deleted_is_not_done_again(tmp_path: Path) -> None:
    config = site(tmp_path)
    with index_of(config, engine("refused", "too thick")) as flow:
        flow.receive(chest())
        flow.run()
        with flow.reception.database.write() as session:
            purges.note(session, session.get_one(Series, 1), "older than 30 days", 5000.0)
        answer = quarantine.requeue(config, Which(every=True))
        assert (answer.done, answer.is_partly) == ((), True)
        assert not reopened(flow)
        assert "deleted at" in text(why(config, flow.received.series_instance_uid).lines())


def test_strays_are_listed_and_asked_for_by_their_names_only(tmp_path: Path) -> None:
    config = site(tmp_path)
    with index_of(config):
        folder = config.files / "strays"
        folder.mkdir()
        (folder / "20260101-03-ab.dcm").write_bytes(b"torn")
        (entry,) = quarantine.quarantine(config).entries
        assert (entry.id, entry.kind) == ("stray:20260101-03-ab", "stray")
        assert "cannot be read" in text(quarantine.show(config, entry.id).lines())
        for hostile in ("stray:../node", "stray:/etc/passwd", "job:1 OR 1=1", "plan:", ""):
            with pytest.raises(NotFoundError):
                quarantine.show(config, hostile)
            with pytest.raises(NotFoundError):
                quarantine.requeue(config, Which((hostile,)))
        assert status(config).care.quarantine == {"stray": 1}
        assert quarantine.requeue(config, Which((entry.id,))).done == (entry.id,)
        assert (folder / "requeued" / "20260101-03-ab.dcm").exists()
        with reading(config) as session:
            (action,) = actions_on(session, entry.id)
        assert action.what == "quarantine requeue"


def test_what_is_dismissed_is_off_the_list_and_told(tmp_path: Path) -> None:
    config = site(tmp_path)
    with index_of(config, engine("refused", "too thick")) as flow:
        flow.receive(chest())
        flow.run()
        assert [problem.kind for problem in status(config).problems] == ["refused"]
        assert quarantine.dismiss(config, Which(("job:1",)), "known scanner").done == ("job:1",)
        assert quarantine.quarantine(config).entries == ()
        assert status(config).problems == ()
        told = text(why(config, flow.received.series_instance_uid).lines())
        assert "nobody need look at it any more" in told
        assert "known scanner" in told


@pytest.mark.parametrize("by", ["job", "id", "series"])
def test_a_withheld_result_is_released_with_a_reason_once(tmp_path: Path, by: str) -> None:
    config = site(tmp_path)
    with index_of(config, engine("withheld", "fat changes", folder="0-ct-nlm-image")) as flow:
        flow.receive(chest())
        flow.run()
        assert len(list((config.files / "results").iterdir())) == 1, "it is kept"
        assert "its result is kept" in text(quarantine.show(config, "job:1").lines())
        subject = {"job": "1", "id": "job:1"}.get(by) or flow.received.series_instance_uid
        with pytest.raises(InputError):
            release.release(config, subject, "  ")
        answer = release.release(config, subject, "looked at: a metal implant")
        assert answer.lines()[0].startswith("released: job")
        assert (answer.jobs, answer.deliveries, answer.refused) == ((1,), 0, ())
        assert [(job.state, job.review) for job in flow.jobs] == [("withheld", "released")]
        with pytest.raises(NotFoundError):
            release.release(config, subject, "again")
        (action,) = flow.reception.rows(Action)
        assert (action.what, action.subject, action.reason) == ("release", "job 1", "looked at: a metal implant")
        told = text(why(config, flow.received.series_instance_uid).lines())
        assert "its result was released after review" in told
        assert "a metal implant" in told


def test_what_was_not_kept_cannot_be_released_but_discarded(tmp_path: Path) -> None:
    config = site(tmp_path)
    with index_of(config, engine("withheld", "the grid has changed")) as flow:
        flow.receive(chest())
        flow.run()
        with pytest.raises(InputError, match="cannot be released"):
            release.release(config, "1", "let it go")
        assert flow.jobs[0].review == ""
        assert release.discard(config, "1", "broken").jobs == (1,)
        assert quarantine.quarantine(config).entries == ()


@pytest.mark.parametrize("subject", ["1.2.99", "99", "-1", "1e3", "", "9" * 40])
def test_nothing_is_released_of_what_nobody_knows(tmp_path: Path, subject: str) -> None:
    config = site(tmp_path)
    with index_of(config), pytest.raises(NotFoundError):
        release.release(config, subject, "reason")


def commissioned(folder: Path) -> Config:
    return site(folder, node={**TREE["node"], "commissioning": True})


def test_commissioning_is_loud_and_what_it_keeps_is_released_or_discarded_at_will(tmp_path: Path) -> None:
    config = commissioned(tmp_path)
    with index_of(config) as flow:
        flow.receive(chest())
        flow.run()
        told = status(config).lines()
        assert "COMMISSIONING" in told[0]
        assert any("withheld from pacs: 4 derived instances" in line and "--commissioning" in line for line in told)
        created = flow.derived_outbox()[0].created_at
        with pytest.raises(NotFoundError):
            release.release_commissioned(config, created + 60.0, "later ones")
        assert release.release_commissioned(config, created - 60.0, "all fine").deliveries == 4
        assert {row.state for row in flow.derived_outbox()} == {"ready"}
        with pytest.raises(NotFoundError):
            release.discard_commissioned(config, 0.0, "too late")
    with index_of(commissioned(tmp_path / "other")) as flow:
        flow.receive(chest())
        flow.run()
        assert release.discard_commissioned(commissioned(tmp_path / "other"), 0.0, "a try").deliveries == 4
        assert {row.state for row in flow.derived_outbox()} == {"cancelled"}


def test_a_rule_in_commissioning_is_named(tmp_path: Path) -> None:
    rules = [{**TREE["rule"][0], "commissioning": True}, TREE["rule"][1]]
    config = site(tmp_path, rule=rules)
    with index_of(config):
        assert "rule 'low-dose chest'" in status(config).lines()[0]


def test_a_patient_that_differs_is_told_with_both_values_in_why_only(tmp_path: Path) -> None:
    config = site(tmp_path)
    with index_of(config) as flow:
        flow.receive(chest())
        flow.run()
        with flow.reception.database.write() as session:
            session.execute(
                update(Outbox)
                .where(Outbox.origin == "derived")
                .values(state="withheld", reason="patient or study differs there: PatientName")
            )
            found = [{"keyword": "PatientName", "ours": "Doe^Jane", "theirs": "Roe^Jane"}]
            session.add(PatientCheck(study_row=1, destination="pacs", at=5.0, outcome="differs", differences=found))
        derived = next(one for one in flow.reception.rows(Series) if one.origin == "derived").series_instance_uid
        assert "PatientName: 'Doe^Jane' here, 'Roe^Jane' there" in text(why(config, derived).lines())
        told = text(status(config).lines())
        assert "patient or study differs there: PatientName" in told
        assert "Roe" not in told
        assert release.release(config, derived, "married").deliveries == 4


def test_the_commands_answer_in_words_and_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = site(tmp_path)
    ours = ["--config", str(config.source)]
    with index_of(config, engine("refused", "too thick")) as flow:
        flow.receive(chest())
        flow.run()
        assert run(["quarantine", "list", "--json", *ours]) == 0
        listed = json.loads(capsys.readouterr().out)
        assert [entry["id"] for entry in listed["entries"]] == ["job:1"]
        assert run(["quarantine", "show", "job:1", *ours]) == 0
        assert "too thick" in capsys.readouterr().out
        assert run(["quarantine", "requeue", *ours]) == 2, "no entry is named"
        assert run(["release", *ours]) == 2
        assert run(["release", "1", "--commissioning", *ours]) == 2
        assert run(["release", "--commissioning", "--since", "yesterday", "--reason", "x", *ours]) == 2
        assert run(["release", "1", "--reason", "x", *ours]) == 1
        assert "error:" in capsys.readouterr().err
        assert run(["quarantine", "requeue", "--all", *ours]) == 0
        assert "requeued: job:1" in capsys.readouterr().out
        assert reopened(flow)
