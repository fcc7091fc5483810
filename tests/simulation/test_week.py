"""A week of a hospital in seconds: whatever happens, nothing is lost, closed twice, forgotten or starved.

A state machine lets scanners, destinations and time do what they like, and compares with a simple model: what was sent.
"""

from __future__ import annotations

import random
import tempfile
from itertools import pairwise
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dicomnode.core.types import AssociationEnd
from dicomnode.store.schema import OutboxState, SeriesState
from tests.simulation.hospital import HOUR_S, MONDAY, OPENINGS, Closing, Hospital, slice_of

DAY_S = 24 * HOUR_S
CLOSED_S = 11 * HOUR_S
"""How long the archive takes nothing on a working day; outages are shorter."""

DESTINATIONS = st.sampled_from(sorted(OPENINGS))
SERIES = st.integers(1, 12)
NUMBERS = st.lists(st.integers(1, 8), min_size=1, max_size=8, unique=True)
GAPS_S = st.sampled_from([0.05, 0.5, 20.0, 90.0, 700.0])
ENDS = st.sampled_from(list(AssociationEnd))


def check_never_closed_twice_for_the_same(hospital: Hospital) -> None:
    """Each closing of a series rests on other instances than the one before."""
    before: dict[int, Closing] = {}
    for closing in hospital.closings:
        last = before.get(closing.series_row)
        assert last is None or closing.instances != last.instances
        assert closing.generation == 1 + (0 if last is None else last.generation)
        before[closing.series_row] = closing


def check_everything_has_an_end(hospital: Hospital) -> None:
    """Once all works again: all that was sent is closed, and lies at each destination as it was sent last."""
    assert all(series.state == SeriesState.CLOSED for series in hospital.series())
    said = hospital.receipts()
    for row, instance in hospital.rows():
        if row.state == OutboxState.CANCELLED:
            assert row.reason, "what is not to be sent says why"
            assert not instance.active, "and is not what was sent last"
            continue
        refused = instance.sop_instance_uid in hospital.pacs[row.destination].never
        assert row.state == (OutboxState.FAILED if refused else OutboxState.SENT)
        assert row.id in said, "what did not arrive says why, what did says so"
    for name, pacs in hospital.pacs.items():
        assert pacs.received.keys() == hospital.sent.keys() - pacs.never
        for uid, files in pacs.received.items():
            assert files[-1].endswith(hospital.sent[uid]), f"{name} holds an older version of {uid} than was sent"


def check_nothing_starves(hospital: Hospital, longest_s: float) -> None:
    """Nothing waits longer than that, whatever else there is to do."""
    waited = [row.finished_at - row.created_at for row, _ in hospital.rows() if row.finished_at is not None]
    assert max(waited) <= longest_s


def check_nothing_is_sent_twice(hospital: Hospital) -> None:
    """The same bytes never come twice in a row: here no answer is ever lost."""
    for pacs in hospital.pacs.values():
        for files in pacs.received.values():
            assert all(one != other for one, other in pairwise(files))


def put_right(hospital: Hospital) -> None:
    """Everything works again, and a person retries what was given up."""
    for name, pacs in hospital.pacs.items():
        pacs.is_up = True
        pacs.busy.clear()
        hospital.resume(name)
    hospital.advance(4 * DAY_S)
    hospital.retry_failed()
    hospital.advance(4 * DAY_S)


class Week(RuleBasedStateMachine):
    """Anything in any order."""

    @initialize()
    def open_hospital(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.hospital = Hospital(Path(self._folder.name))
        self.hospital.__enter__()

    @rule(series=SERIES, numbers=NUMBERS, gap_s=GAPS_S, how=ENDS)
    def scan(self, series: int, numbers: list[int], gap_s: float, how: AssociationEnd) -> None:
        """New series, late slices, and the same bytes again."""
        part = "HEAD" if series % 3 == 0 else "CHEST"
        self.hospital.scan(series, numbers, gap_s, how, BodyPartExamined=part)

    @rule(series=SERIES, numbers=NUMBERS, comment=st.sampled_from(["one", "two"]))
    def scan_again_otherwise(self, series: int, numbers: list[int], comment: str) -> None:
        """The same UIDs with other bytes."""
        self.hospital.scan(series, numbers, 0.1, AssociationEnd.RELEASED, ImageComments=comment)

    @rule(seconds=st.sampled_from([0.0, 1.0, 30.0, 600.0, HOUR_S, 6 * HOUR_S, DAY_S]))
    def wait(self, seconds: float) -> None:
        self.hospital.advance(seconds)

    @rule(name=DESTINATIONS, is_up=st.booleans())
    def turn(self, name: str, is_up: bool) -> None:
        self.hospital.pacs[name].is_up = is_up

    @rule(name=DESTINATIONS, is_paused=st.booleans())
    def pause(self, name: str, is_paused: bool) -> None:
        (self.hospital.pause if is_paused else self.hospital.resume)(name)

    @rule(name=DESTINATIONS, series=SERIES, number=st.integers(1, 8), is_for_good=st.booleans())
    def refuse(self, name: str, series: int, number: int, is_for_good: bool) -> None:
        pacs, uid = self.hospital.pacs[name], str(slice_of(series, number).SOPInstanceUID)
        if uid not in pacs.received:
            (pacs.never if is_for_good else pacs.busy).add(uid)

    @precondition(lambda self: any(pacs.busy for pacs in self.hospital.pacs.values()))
    @rule()
    def take_again(self) -> None:
        for pacs in self.hospital.pacs.values():
            pacs.busy.clear()

    @invariant()
    def never_closed_twice_for_the_same(self) -> None:
        check_never_closed_twice_for_the_same(self.hospital)

    def teardown(self) -> None:
        if not hasattr(self, "hospital"):
            return
        try:
            put_right(self.hospital)
            check_never_closed_twice_for_the_same(self.hospital)
            check_everything_has_an_end(self.hospital)
            check_nothing_is_sent_twice(self.hospital)
        finally:
            self.hospital.__exit__(None, None, None)
            self._folder.cleanup()


Week.TestCase.settings = settings(
    max_examples=8,
    stateful_step_count=16,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),  # an example takes a second: shrinking one would take an hour
    suppress_health_check=list(HealthCheck),
)
TestWeek = Week.TestCase


def test_a_usual_week(tmp_path: Path) -> None:
    """Bursts in the mornings, an outage on two days, one each night, late slices and re-sends; nothing waits longer
    than an outage and the closed hours explain."""
    draw = random.Random(20260105)
    with Hospital(tmp_path) as hospital:
        numbers = iter(range(100, 10_000))
        for day in range(7):
            hospital.advance(7 * HOUR_S)
            for _ in range(5):
                series, slices = next(numbers), list(range(1, draw.randint(3, 7)))
                kept = slices[:-1] if draw.random() < 0.2 else slices
                part = "HEAD" if draw.random() < 0.2 else "CHEST"
                hospital.scan(
                    series, kept, draw.choice([0.05, 0.3, 5.0]), AssociationEnd.RELEASED, BodyPartExamined=part
                )
                hospital.advance(draw.expovariate(1 / 300.0))
                if draw.random() < 0.3:
                    hospital.scan(series, slices, 0.05, AssociationEnd.RELEASED, BodyPartExamined=part)
            hospital.pacs["pacs"].is_up = day not in (1, 4)
            hospital.advance(8 * HOUR_S)
            hospital.pacs["pacs"].is_up = True
            hospital.advance((day + 1) * DAY_S - (hospital.now - MONDAY))
        check_never_closed_twice_for_the_same(hospital)
        check_everything_has_an_end(hospital)
        check_nothing_is_sent_twice(hospital)
        check_nothing_starves(hospital, CLOSED_S + HOUR_S)
        assert len(hospital.closings) > 7 * 5, "late slices open their series again"
