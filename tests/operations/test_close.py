"""`dicomnode close`: a person ends the waiting, beside a running node; and what is told of a series meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicomnode.core.types import Expectation
from dicomnode.errors import NotFoundError
from dicomnode.flow.closing import Closer
from dicomnode.operations.close import close
from dicomnode.operations.status import status
from dicomnode.operations.why import why
from dicomnode.store.index.actions import user
from dicomnode.store.index.expectations import expect
from dicomnode.store.schema import Action, Series
from tests.flow.rooms import Flow
from tests.operations.sites import index_of, site
from tests.store.receiving import ct_header

HOLDING = {"completeness": {"on_deadline": "hold"}}


def judge(flow: Flow, now: float) -> int:
    return Closer(flow.reception.database, lambda *_: None).judge_due(now)


def states(flow: Flow) -> list[str]:
    return [series.state for series in flow.reception.rows(Series)]


def completeness(config: object, subject: str = "1.2.3.4") -> str:
    (story,) = why(config, subject).series  # type: ignore[arg-type]
    return "\n".join(story.completeness)


def test_what_still_arrives_is_closed_at_once(tmp_path: Path) -> None:
    config = site(tmp_path)
    with index_of(config) as flow:
        flow.reception.receive(ct_header(1), at=1000.0)
        assert judge(flow, 1001.5) == 0
        assert "waiting for 60 s of silence since the last instance" in completeness(config)
        answer = close(config, "1.2.3.4", "the scanner is switched off")
        assert (answer.closing, answer.closed) == (("1.2.3.4",), ())
        assert f"{user()} wants it closed now" in completeness(config)
        assert judge(flow, 9e9) == 1
        (action,) = flow.reception.rows(Action)
        assert (action.what, action.subject, action.reason) == ("close", "1.2.3.4", "the scanner is switched off")
        assert f"closed by {user()}; 1 association that carried it is still open" in completeness(config)
        assert close(config, "1.2.3.4").lines() == ("series 1.2.3.4: is closed already",)


def test_a_held_series_is_a_problem_until_a_person_closes_it(tmp_path: Path) -> None:
    config = site(tmp_path, **HOLDING)
    with index_of(config) as flow:
        flow.receive([ct_header(number) for number in (1, 2, 4)])
        assert judge(flow, 9e9) == 0
        assert states(flow) == ["held"]
        (held,) = [problem for problem in status(config).problems if problem.kind == "held"]
        assert held.about == "1.2.3.4"
        assert "1 slice is missing by position: 1 at 6.00 mm" in held.reason
        assert "dicomnode close 1.2.3.4" in held.reason
        assert "and held: 1 slice is missing" in completeness(config)
        close(config, "1.2.3.4")
        assert judge(flow, 9e9) == 1
        assert "incomplete at" in completeness(config)
        assert [problem for problem in status(config).problems if problem.kind == "held"] == []


def test_a_study_is_closed_with_all_its_series(tmp_path: Path) -> None:
    config = site(tmp_path)
    with index_of(config) as flow:
        for number in (1, 2):
            flow.reception.receive(ct_header(number, SeriesInstanceUID=f"1.2.3.{number}"), at=1000.0)
        assert close(config, "1.2.3").closing == ("1.2.3.1", "1.2.3.2")
        assert judge(flow, 9e9) == 2


def test_what_others_say_is_told(tmp_path: Path) -> None:
    config = site(tmp_path)
    with index_of(config) as flow:
        flow.reception.receive(ct_header(1), at=1000.0)
        with flow.reception.database.write() as session:
            expect(session, Expectation("1.2.3.4", "1.2.3", "IAN", "ris", None, ("1.2.3.4.1", "1.2.3.4.2")), 1001.0)
        assert "IAN by ris told of 2 instances" in completeness(config)
        judge(flow, 1001.5)
        assert "not here, though listed (IAN by ris): 1.2.3.4.2" in completeness(config)


def test_what_is_not_known_is_said_so(tmp_path: Path) -> None:
    config = site(tmp_path)
    with index_of(config), pytest.raises(NotFoundError):
        close(config, "1.2.9")
