"""What comes late, and what comes again under a known UID: which rows there are, and what opens the series again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import update

from dicomnode.core.routing import DestinationPolicy, PeerPolicy, Routing
from dicomnode.core.rules import RuleSpec
from dicomnode.core.types import LatePolicy, SameUidPolicy, Sender
from dicomnode.store.index.lateness import late_instances
from dicomnode.store.schema import Instance, Late, Outbox, Rejection, Series, SeriesState
from tests.store.receiving import PACS, SCANNER, TO_PACS, WAITS, Reception, ct_header, receiving, routing

pytestmark = pytest.mark.both_databases

KEY_OBJECT = "1.2.840.10008.5.1.4.1.1.88.59"
WORKSTATION = Sender("workstation", "WORK", "DICOMNODE", "10.0.0.3", 3000.0)


def policy(late: LatePolicy, *rules: RuleSpec, when_complete: bool = False) -> Routing:
    policies = {"pacs": DestinationPolicy(when_complete=when_complete, calling_ae="DICOMNODE")}
    return routing(*(rules or (TO_PACS,)), policies=policies, waits=replace(WAITS, late=late))


def same_uid(rule: SameUidPolicy) -> Routing:
    return replace(routing(TO_PACS), peers={name: PeerPolicy(rule) for name in ("scanner", "workstation", "pacs")})


def close(reception: Reception) -> None:
    with reception.database.write() as session:
        session.execute(
            update(Series).values(state=SeriesState.CLOSED.value, due_at=None, generation=Series.generation + 1)
        )


def states(reception: Reception) -> list[tuple[str, int]]:
    return [(series.state, series.generation) for series in reception.rows(Series)]


def test_an_instance_in_time_is_not_late(tmp_path: Path) -> None:
    with receiving(tmp_path) as reception:
        reception.receive(ct_header(1))
        reception.receive(ct_header(2))
        assert reception.rows(Late) == []


@pytest.mark.parametrize("late", [LatePolicy.SUPERSEDE, LatePolicy.SEPARATE])
def test_a_late_instance_opens_its_series_again_and_is_marked(tmp_path: Path, late: LatePolicy) -> None:
    with receiving(tmp_path, policy(late)) as reception:
        reception.receive(ct_header(1))
        close(reception)
        reception.receive(ct_header(2), at=2000.0)
        reception.receive(ct_header(3), at=2001.0)
        assert states(reception) == [("receiving", 1)]
        assert [(row.instance_row, row.generation, row.policy) for row in reception.rows(Late)] == [
            (2, 1, late.value), (3, 1, late.value),
        ]  # fmt: skip
        close(reception)
        reception.receive(ct_header(4), at=3000.0)
        assert reception.rows(Late)[-1].generation == 2


@pytest.mark.parametrize("when_complete", [False, True])
def test_an_ignored_late_instance_is_stored_and_sent_and_opens_nothing(tmp_path: Path, when_complete: bool) -> None:
    with receiving(tmp_path, policy(LatePolicy.IGNORE, when_complete=when_complete)) as reception:
        reception.receive(ct_header(1))
        close(reception)
        reception.receive(ct_header(2), at=2000.0)
        assert states(reception) == [("closed", 1)]
        assert reception.outbox()[-1] == ("pacs", "1.2.3.4.2", "ready"), "nothing would ever release it"
        (series,) = reception.rows(Series)
        with reception.database.read() as session:
            assert late_instances(session, series.id)[2].is_ignored


def test_a_rule_only_makes_the_policy_tighter(tmp_path: Path) -> None:
    loose = replace(TO_PACS, late="supersede")
    tight = RuleSpec("tight", {"Modality": "CT"}, send=("pacs",), late="ignore")
    with receiving(tmp_path, policy(LatePolicy.SEPARATE, loose, tight)) as reception:
        for number, modality in enumerate(("CT", "MR", "CT", "MR")):
            if number == 2:
                close(reception)
            reception.receive(ct_header(number, Modality=modality, SeriesInstanceUID=f"1.2.{ord(modality[0])}"))
        assert [row.policy for row in reception.rows(Late)] == ["ignore", "separate"]


def test_a_new_version_of_an_ignored_instance_is_ignored_too(tmp_path: Path) -> None:
    with receiving(tmp_path, policy(LatePolicy.IGNORE)) as reception:
        reception.receive(ct_header(1))
        close(reception)
        reception.receive(ct_header(2), at=2000.0)
        reception.receive(ct_header(2, PatientName="Corrected"), at=2001.0)
        assert states(reception) == [("closed", 1)]
        assert [row.policy for row in reception.rows(Late)] == ["ignore", "ignore"]


def test_a_new_version_of_what_came_in_time_opens_the_series_whatever_the_policy(tmp_path: Path) -> None:
    with receiving(tmp_path, policy(LatePolicy.IGNORE)) as reception:
        reception.receive(ct_header(1))
        close(reception)
        reception.receive(ct_header(1, PatientName="Corrected"), at=2000.0)
        assert states(reception) == [("receiving", 1)]
        assert reception.rows(Late) == []


def test_the_newest_version_counts(tmp_path: Path) -> None:
    with receiving(tmp_path, same_uid(SameUidPolicy.NEWEST)) as reception:
        reception.receive(ct_header(1))
        reception.receive(ct_header(1, PatientName="Corrected"), WORKSTATION)
        assert [version.active for version in reception.versions(ct_header(1))] == [False, True]
        assert len(reception.rows(Outbox)) == 2


def test_the_first_version_counts_where_the_peer_is_not_to_change_it(tmp_path: Path) -> None:
    with receiving(tmp_path, same_uid(SameUidPolicy.FIRST)) as reception:
        reception.receive(ct_header(1))
        close(reception)
        changed = ct_header(1, PatientName="Corrected")
        reception.receive(changed)
        reception.receive(changed)
        first, second = reception.versions(ct_header(1))
        assert (first.active, second.active) == (True, False)
        assert "first version counts" in second.kept_back[0]
        assert reception.files.path(second.file).exists(), "both are kept"
        assert len(reception.rows(Outbox)) == 1
        assert states(reception) == [("closed", 1)]


def test_only_who_sent_the_first_sends_the_newest(tmp_path: Path) -> None:
    with receiving(tmp_path, same_uid(SameUidPolicy.SAME_SENDER)) as reception:
        reception.receive(ct_header(1))
        reception.receive(ct_header(1, PatientName="Not theirs"), WORKSTATION)
        reception.receive(ct_header(1, PatientName="Corrected"), SCANNER)
        assert [version.active for version in reception.versions(ct_header(1))] == [False, False, True]


def test_a_key_object_selection_is_noted_to_be_read(tmp_path: Path) -> None:
    with receiving(tmp_path) as reception:
        reception.receive(ct_header(1))
        note = ct_header(2, SOPClassUID=KEY_OBJECT, Modality="KO", SeriesInstanceUID="1.2.3.5")
        reception.receive(note)
        reception.receive(note)
        reception.receive(
            ct_header(2, SOPClassUID=KEY_OBJECT, Modality="KO", SeriesInstanceUID="1.2.3.5", PatientID="P2")
        )
        rows = reception.rows(Rejection)
        assert [(row.instance_row, row.state) for row in rows] == [(2, "unread"), (3, "unread")]
        assert [row.sop_class_uid for row in reception.rows(Instance)].count(KEY_OBJECT) == 2


def test_what_a_destination_sends_back_stays_beside_under_every_policy(tmp_path: Path) -> None:
    with receiving(tmp_path, same_uid(SameUidPolicy.NEWEST)) as reception:
        reception.receive(ct_header(1))
        with reception.database.write() as session:
            session.execute(update(Outbox).values(state="sent"))
        reception.receive(ct_header(1, PatientName="Coerced"), PACS)
        assert [version.active for version in reception.versions(ct_header(1))] == [True, False]


def test_of_two_versions_that_wait_only_the_newest_is_sent(tmp_path: Path) -> None:
    with receiving(tmp_path, same_uid(SameUidPolicy.NEWEST)) as reception:
        first = ct_header(1)
        reception.receive(first)
        reception.receive(ct_header(1, PatientName="Corrected"))
        assert [(row.state, row.reason) for row in reception.rows(Outbox)] == [
            ("cancelled", "a newer version takes its place"), ("ready", None),
        ]  # fmt: skip
        reception.receive(first)
        assert [row.state for row in reception.rows(Outbox)] == ["ready", "cancelled"]


def test_what_was_sent_of_an_older_version_stays_sent(tmp_path: Path) -> None:
    with receiving(tmp_path, same_uid(SameUidPolicy.NEWEST)) as reception:
        reception.receive(ct_header(1))
        with reception.database.write() as session:
            session.execute(update(Outbox).values(state="sent"))
        reception.receive(ct_header(1, PatientName="Corrected"))
        assert [row.state for row in reception.rows(Outbox)] == ["sent", "ready"]
