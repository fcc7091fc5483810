"""Draining the outbox towards a destination that answers as a test tells it to."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from dicomnode import telemetry
from dicomnode.bell import Bell
from dicomnode.core.hours import WorkingHours, parse_hours
from dicomnode.core.ports import Deliverer
from dicomnode.core.routing import DestinationPolicy
from dicomnode.core.rules import RuleSpec
from dicomnode.core.types import Outcome, Outgoing
from dicomnode.core.types import Receipt as Answer
from dicomnode.errors import AssociationLostError, AssociationRejectedError, PeerUnreachableError
from dicomnode.flow.delivering import Drainer, Opening, Route
from dicomnode.flow.drainers import Drainers
from dicomnode.flow.leasing import LEASE_S, SEND_S, Leases
from dicomnode.store.index import health as index_health
from dicomnode.store.index import leases
from dicomnode.store.index.retrying import RetryPolicy
from dicomnode.store.schema import Destination, Outbox, Receipt
from dicomnode.testing.processes import wait_until
from tests.store.receiving import SCANNER, Reception, ct_header, receiving, routing

RETRY = RetryPolicy(initial_s=10.0, maximum_s=80.0, patience_s=1e10, probe_s=80.0)
NOW = 5000.0


class Scripted(Deliverer):
    """Answers success, unless `script` has something else for a SOP Instance UID: an outcome, or an error."""

    def __init__(self) -> None:
        self.script: dict[str, tuple[Outcome, bool] | Exception] = {}
        self.sent: list[Outgoing] = []
        self.before: Callable[[Outgoing], None] = lambda _: None
        self.interrupted = threading.Event()
        self.finishing = False
        self.closed = False
        self.probes: list[str] = []
        self.echo: bool | Exception = True

    def deliver(self, batch: Sequence[Outgoing]) -> Iterator[Sequence[Answer]]:
        assert len({each.calling_ae for each in batch}) == 1
        for each in batch:
            if self.finishing:
                return
            yield ()  # a sign of life
            self.before(each)
            self.sent.append(each)
            told = self.script.get(each.sop_instance_uid, (Outcome.SENT, False))
            if isinstance(told, Exception):
                raise told
            outcome, transient = told
            yield (Answer(each.outbox_id, outcome, 0 if outcome.arrived else 0xA700, "meaning", "hint", transient),)

    def probe(self, calling_ae: str) -> bool:
        self.probes.append(calling_ae)
        if isinstance(self.echo, Exception):
            raise self.echo
        return self.echo

    def finish(self) -> None:
        self.finishing = True

    def interrupt(self) -> None:
        self.interrupted.set()

    def close(self) -> None:
        self.closed = True


@pytest.fixture(name="reception")
def _reception(tmp_path: Path) -> Iterator[Reception]:
    rule = RuleSpec("all", {"Modality": "*"}, send=("pacs", "archive"))
    with receiving(tmp_path, routing(rule)) as reception:
        for number in range(1, 4):
            reception.receive(ct_header(number))
        yield reception


@pytest.fixture(name="scripted")
def _scripted() -> Scripted:
    return Scripted()


def route(deliverer: Deliverer, name: str = "pacs", retry: RetryPolicy = RETRY) -> Route:
    return Route(name, "127.0.0.1:104", retry, lambda: deliverer, calling_ae="NODE")


def drainer(reception: Reception, deliverer: Deliverer, name: str = "pacs", retry: RetryPolicy = RETRY) -> Drainer:
    return Drainer(
        reception.database, reception.files, route(deliverer, name, retry), Leases(reception.database, "one")
    )


def drainers(reception: Reception) -> Drainers:
    started = Drainers(reception.database, reception.files, "one", Bell())
    started.start()
    return started


def states(reception: Reception, name: str = "pacs") -> list[str]:
    return [state for destination, _, state in reception.outbox() if destination == name]


def down(reception: Reception) -> None:
    """The destination has not answered for long."""
    Leases(reception.database, "one").know(["pacs"])
    with reception.database.write() as session:
        index_health.failed(session, "pacs", ("no answer", "look"), RETRY, 1000.0)


def health(reception: Reception, name: str = "pacs") -> Destination:
    return next(row for row in reception.rows(Destination) if row.name == name)


def test_what_is_ready_is_sent_from_its_file(reception: Reception, scripted: Scripted) -> None:
    assert drainer(reception, scripted).drain(NOW)
    assert states(reception) == ["sent"] * 3
    assert states(reception, "archive") == ["ready"] * 3
    assert [each.sop_instance_uid for each in scripted.sent] == ["1.2.3.4.1", "1.2.3.4.2", "1.2.3.4.3"]
    assert all(each.path.exists() and each.calling_ae == "DICOMNODE" for each in scripted.sent)
    assert [receipt.outcome for receipt in reception.rows(Receipt)] == ["sent"] * 3


def test_when_all_is_sent_there_is_nothing_to_do(reception: Reception, scripted: Scripted) -> None:
    draining = drainer(reception, scripted)
    assert draining.drain(NOW)
    assert not draining.drain(NOW)
    assert len(scripted.sent) == 3


def test_each_receipt_is_committed_before_the_next_is_sent(reception: Reception, scripted: Scripted) -> None:
    seen: list[int] = []
    scripted.before = lambda _: seen.append(len(reception.rows(Receipt)))
    drainer(reception, scripted).drain(NOW)
    assert seen == [0, 1, 2]


def test_an_instance_that_fails_does_not_stop_the_others(reception: Reception, scripted: Scripted) -> None:
    scripted.script = {"1.2.3.4.1": (Outcome.FAILED, False), "1.2.3.4.2": (Outcome.REFUSED, True)}
    draining = drainer(reception, scripted)
    draining.drain(NOW)
    assert states(reception) == ["failed", "ready", "sent"]
    assert not draining.drain(NOW + 1.0), "what was refused waits"
    scripted.script = {}
    assert draining.drain(time.time() + 12.0)
    assert states(reception) == ["failed", "sent", "sent"]
    assert len(scripted.sent) == 4


def test_a_destination_that_breaks_off_is_parked_and_goes_on_where_it_was(
    reception: Reception, scripted: Scripted
) -> None:
    scripted.script = {"1.2.3.4.2": PeerUnreachableError("no connection", "start it")}
    draining = drainer(reception, scripted)
    assert draining.drain(NOW)
    assert states(reception) == ["sent", "ready", "ready"]
    row = health(reception)
    assert (row.failures, row.last_error, row.last_hint) == (1, "no connection", "start it")
    assert row.down_until is not None
    assert not draining.drain(row.down_until - 0.1)
    assert len(scripted.sent) == 2
    scripted.script = {}
    assert draining.drain(row.down_until)
    assert scripted.probes == ["DICOMNODE"]
    assert states(reception) == ["sent"] * 3
    assert [each.sop_instance_uid for each in scripted.sent].count("1.2.3.4.1") == 1
    assert (health(reception).failures, health(reception).down_until) == (0, None)


def test_a_destination_that_stays_down_is_asked_ever_more_seldom(reception: Reception, scripted: Scripted) -> None:
    scripted.script = {"1.2.3.4.1": PeerUnreachableError("no answer", "check the cable")}
    scripted.echo = PeerUnreachableError("no answer", "check the cable")
    draining, waits = drainer(reception, scripted), []
    for _ in range(5):
        before = time.time()
        down_until = health(reception).down_until if reception.rows(Destination) else None
        draining.drain(down_until or NOW)
        waits.append((health(reception).down_until or 0.0) - before)
    assert [plain <= wait <= 1.1 * plain + 1.0 for plain, wait in zip((10, 20, 40, 80, 80), waits, strict=True)] == [
        True
    ] * 5
    assert states(reception) == ["ready"] * 3


class Times:
    """The database's clock and this machine's, moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def leases(self, reception: Reception, owner: str) -> Leases:
        return Leases(reception.database, owner, lambda _: self.now, lambda: self.now)


def test_no_two_drainers_send_for_one_destination(reception: Reception, scripted: Scripted) -> None:
    times = Times()
    first, second = (
        Drainer(reception.database, reception.files, route(deliverer), times.leases(reception, owner))
        for owner, deliverer in (("one", Scripted()), ("two", scripted))
    )
    assert first.drain(NOW)
    assert not second.drain(NOW)
    reception.receive(ct_header(9))
    times.now += LEASE_S - 0.1
    assert not second.drain(NOW)
    times.now += 0.1
    assert second.drain(NOW), "the lease of a drainer that died expires"
    assert [each.sop_instance_uid for each in scripted.sent] == ["1.2.3.4.9"]


def test_who_could_not_renew_its_lease_begins_nothing_well_before_another_may(reception: Reception) -> None:
    times = Times()
    held = times.leases(reception, "one")
    assert held.hold("pacs")
    times.now += SEND_S - 0.1
    assert held.is_good("pacs")
    times.now += 0.1
    assert not held.is_good("pacs")
    assert not held.is_over("pacs"), "what is on its way may be finished"
    times.now += LEASE_S - SEND_S
    assert held.is_over("pacs")


def test_a_lease_that_is_renewed_stays(reception: Reception) -> None:
    times = Times()
    held, other = times.leases(reception, "one"), times.leases(reception, "two")
    assert held.hold("pacs")
    for _ in range(20):
        times.now += 9.0
        held.keep()
        assert held.is_good("pacs")
        assert not other.hold("pacs")


def test_a_lease_taken_while_others_are_renewed_stays(reception: Reception, monkeypatch: pytest.MonkeyPatch) -> None:
    times = Times()
    held = times.leases(reception, "one")
    assert held.hold("pacs")
    renew = leases.renew

    def and_meanwhile(*arguments: Any) -> frozenset[str]:
        held._renewed["archive"] = times.now  # as `hold` does in another thread
        return renew(*arguments)

    monkeypatch.setattr("dicomnode.flow.leasing.leases.renew", and_meanwhile)
    times.now += 9.0
    held.keep()
    assert held.is_good("pacs")
    assert held.is_good("archive")


def test_a_lease_that_another_has_taken_is_lost_at_the_next_renewal(reception: Reception) -> None:
    times = Times()
    held, other = times.leases(reception, "one"), times.leases(reception, "two")
    assert held.hold("pacs")
    with reception.database.write() as session:
        leases.break_all(session)
    assert other.hold("pacs")
    times.now += 9.0
    held.keep()
    assert not held.is_good("pacs")
    assert not held.hold("pacs")


def test_a_halted_drainer_goes_on_where_it_was_once_it_may(reception: Reception) -> None:
    made: list[Scripted] = []

    def make() -> Scripted:
        made.append(Scripted())
        return made[-1]

    lease = Leases(reception.database, "one")
    draining = Drainer(reception.database, reception.files, Route("pacs", "", RETRY, make), lease)
    made[0].before = lambda _: draining.halt()
    draining.drain(NOW)
    assert states(reception) == ["sent", "ready", "ready"]
    assert draining.drain(NOW)
    assert states(reception) == ["sent"] * 3
    assert made[0].closed
    assert health(reception).failures == 0


def test_a_paused_destination_gets_nothing_and_loses_no_patience(reception: Reception, scripted: Scripted) -> None:
    draining = drainer(reception, scripted, retry=replace(RETRY, patience_s=100.0))
    with reception.database.write() as session:
        index_health.pause(session, "pacs", "maintenance", 1000.0)
    assert not draining.drain(NOW)
    assert (states(reception), scripted.sent) == (["ready"] * 3, [])
    with reception.database.write() as session:
        index_health.resume(session, "pacs", NOW)
    assert draining.drain(NOW + 1.0)
    assert states(reception) == ["sent"] * 3


def test_outside_of_its_hours_only_what_is_urgent_goes(tmp_path: Path, scripted: Scripted) -> None:
    rules = (
        RuleSpec("urgent", {"Modality": "DX"}, send=("pacs",), priority="urgent"),
        RuleSpec("all", {"Modality": "*"}, send=("pacs",)),
    )
    at_night = WorkingHours((parse_hours("18:00-06:00"),))
    noon, evening = 12 * 3600.0, 18 * 3600.0
    with receiving(tmp_path, routing(*rules)) as reception:
        reception.receive(ct_header(1), at=0.0)
        reception.receive(ct_header(2, Modality="DX"), at=0.0)
        for anytime, sent in ((False, []), (True, ["1.2.3.4.2"])):
            opened = replace(route(scripted), opening=Opening(at_night, anytime))
            draining = Drainer(reception.database, reception.files, opened, Leases(reception.database, "one"))
            draining.drain(noon)
            assert [each.sop_instance_uid for each in scripted.sent] == sent
        assert draining.drain(evening)
        assert states(reception) == ["sent", "sent"]


def test_a_destination_that_is_down_is_probed_before_it_is_sent_anything(
    reception: Reception, scripted: Scripted
) -> None:
    scripted.script = {"1.2.3.4.1": PeerUnreachableError("no answer", "")}
    scripted.echo = PeerUnreachableError("no answer", "")
    draining = drainer(reception, scripted)
    draining.drain(NOW)
    for _ in range(3):
        assert draining.drain(health(reception).down_until or 0.0)
    assert len(scripted.sent) == 1, "the others were probes"
    assert health(reception).failures == 4


@pytest.mark.parametrize("echo", [False, AssociationRejectedError("no such service", "")])
def test_a_destination_that_takes_no_echo_is_tried_with_an_instance(
    reception: Reception, scripted: Scripted, echo: bool | Exception
) -> None:
    scripted.script = {"1.2.3.4.1": PeerUnreachableError("no answer", "")}
    draining = drainer(reception, scripted)
    draining.drain(NOW)
    scripted.script, scripted.echo = {}, echo
    assert draining.drain(health(reception).down_until or 0.0)
    assert states(reception) == ["sent"] * 3
    assert health(reception).failures == 0


def test_a_destination_that_breaks_off_at_instances_is_not_believed_when_it_answers_an_echo(
    reception: Reception, scripted: Scripted
) -> None:
    scripted.script = {"1.2.3.4.1": AssociationLostError("broken off", "")}
    draining = drainer(reception, scripted)
    draining.drain(NOW)
    for _ in range(3):
        draining.drain(health(reception).down_until or 0.0)
    assert (scripted.probes, health(reception).failures) == ([], 4)


def test_a_destination_is_found_again_though_all_that_waited_was_given_up(
    reception: Reception, scripted: Scripted
) -> None:
    scripted.script = {"1.2.3.4.1": PeerUnreachableError("no answer", "")}
    draining = drainer(reception, scripted)
    draining.drain(NOW)
    with reception.database.write() as session:
        session.execute(update(Outbox).values(state="failed"))
    scripted.echo = PeerUnreachableError("no answer", "")
    assert not draining.drain(health(reception).down_until or 0.0)
    assert health(reception).failures == 2
    scripted.echo = True
    assert not draining.drain(health(reception).down_until or 0.0)
    assert (health(reception).failures, health(reception).down_until) == (0, None)
    assert scripted.probes == ["NODE", "NODE"]


def test_an_outage_is_told_once_and_so_is_its_end(
    reception: Reception, scripted: Scripted, capsys: pytest.CaptureFixture[str]
) -> None:
    telemetry.configure("json", "warning")
    scripted.script = {"1.2.3.4.1": PeerUnreachableError("no answer", "")}
    scripted.echo = PeerUnreachableError("no answer", "")
    draining = drainer(reception, scripted)
    draining.drain(NOW)
    for _ in range(4):
        draining.drain(health(reception).down_until or 0.0)
    told = [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()]
    assert told == ["destination_down"]


def test_what_is_not_taken_in_time_is_told_once_for_all(
    reception: Reception, scripted: Scripted, capsys: pytest.CaptureFixture[str]
) -> None:
    telemetry.configure("json", "warning")
    down(reception)
    draining = drainer(reception, scripted, retry=RetryPolicy(10.0, 80.0, patience_s=100.0))
    draining.drain(NOW)
    (told,) = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert (told["event"], told["level"], told["instances"]) == ("delivery_held", "error", 3)


def test_what_was_answered_while_the_database_was_away_is_recorded(
    reception: Reception, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = iter([True, True])
    write = reception.database.write

    def sometimes(**options: bool) -> AbstractContextManager[Session]:
        if scripted.sent and next(away, False):
            raise OperationalError("", {}, sqlite3.OperationalError("gone"))
        return write(**options)

    draining = drainer(reception, scripted)
    monkeypatch.setattr(reception.database, "write", sometimes)
    monkeypatch.setattr("dicomnode.flow.delivering._RECORD_AGAIN_S", 0.01)
    assert draining.drain(NOW)
    assert states(reception) == ["sent"] * 3
    assert len(scripted.sent) == 3


def test_an_impatient_destinations_rows_fail(reception: Reception, scripted: Scripted) -> None:
    down(reception)
    draining = drainer(reception, scripted, retry=RetryPolicy(10.0, 80.0, patience_s=100.0))
    assert not draining.drain(NOW)
    assert states(reception) == ["failed"] * 3
    assert scripted.sent == []


def test_what_waited_while_the_node_was_down_is_tried_before_it_fails(reception: Reception, scripted: Scripted) -> None:
    draining = drainer(reception, scripted, retry=RetryPolicy(10.0, 80.0, patience_s=100.0))
    assert draining.drain(NOW)
    assert states(reception) == ["sent"] * 3


def test_a_node_that_was_down_tries_a_destination_that_was_too(reception: Reception, scripted: Scripted) -> None:
    down(reception)
    retry = RetryPolicy(10.0, 80.0, patience_s=100.0)
    made = route(scripted, "pacs", retry)
    draining = Drainer(reception.database, reception.files, made, Leases(reception.database, "one"), lambda: NOW)
    assert draining.drain(NOW)
    assert states(reception) == ["sent"] * 3


def test_a_stop_finishes_what_is_being_sent_and_gives_the_lease_up(reception: Reception, scripted: Scripted) -> None:
    sending, go_on = threading.Event(), threading.Event()

    def before(_: Outgoing) -> None:
        sending.set()
        go_on.wait(20)

    scripted.before = before
    draining = drainer(reception, scripted)
    draining.start()
    draining.wake()
    assert sending.wait(20)
    stopping = threading.Thread(target=draining.stop, args=(time.monotonic() + 20.0,))
    stopping.start()
    wait_until(lambda: draining.is_stopping, 20.0, "it was asked to stop")
    go_on.set()
    stopping.join(20)
    assert states(reception) == ["sent", "ready", "ready"]
    assert health(reception).lease_owner is None
    assert not draining.is_alive


def test_a_destination_that_hangs_does_not_delay_another(reception: Reception, scripted: Scripted) -> None:
    hangs, go_on = Scripted(), threading.Event()
    hangs.before = lambda _: go_on.wait(20) and None
    both = drainers(reception)
    both.follow([route(hangs), route(scripted, "archive")])
    try:
        wait_until(lambda: states(reception, "archive") == ["sent"] * 3, 20.0, "the other has everything")
        assert states(reception) == ["ready"] * 3
        assert both.are_alive
    finally:
        go_on.set()
        both.stop()


def test_the_drainers_follow_the_configuration(reception: Reception, scripted: Scripted) -> None:
    both = drainers(reception)
    both.follow([route(scripted, "archive")])
    wait_until(lambda: states(reception, "archive") == ["sent"] * 3, 20.0, "the first is served")
    other = Scripted()
    both.follow([route(other)])
    wait_until(lambda: states(reception) == ["sent"] * 3, 20.0, "then the second")
    both.stop()
    assert {row.lease_owner for row in reception.rows(Destination)} == {None}
    assert len(reception.rows(Outbox)) == 6


def test_a_destination_that_is_as_before_is_left_alone(reception: Reception, scripted: Scripted) -> None:
    both = drainers(reception)
    both.follow([route(scripted), route(Scripted(), "archive")])
    before = {drainer.route.name: drainer for drainer in both.running}
    other = RetryPolicy(initial_s=11.0)
    both.follow([route(Scripted()), route(Scripted(), "archive", other)])
    after = {drainer.route.name: drainer for drainer in both.running}
    both.stop()
    assert after["pacs"] is before["pacs"]
    assert after["archive"] is not before["archive"]
    assert scripted.closed


def test_a_stop_does_not_wait_for_an_answer_that_never_comes(reception: Reception, scripted: Scripted) -> None:
    sending = threading.Event()

    def before(_: Outgoing) -> None:
        sending.set()
        assert scripted.interrupted.wait(20)
        raise AssociationLostError("broken off", "")

    scripted.before = before
    draining = drainer(reception, scripted)
    draining.start()
    draining.wake()
    assert sending.wait(20)
    draining.stop(time.monotonic())
    assert not draining.is_alive
    assert states(reception) == ["ready"] * 3
    assert health(reception).failures == 0, "it was us who broke it off"


def test_a_rejected_calling_ae_holds_up_no_other(tmp_path: Path) -> None:
    """A destination that passes the sender's title through may not know each sender."""

    class KnowsGood(Scripted):
        def deliver(self, batch: Sequence[Outgoing]) -> Iterator[Sequence[Answer]]:
            if batch[0].calling_ae != "GOOD":
                raise AssociationRejectedError("calling AE title not recognized", "add it")
            yield from super().deliver(batch)

    rule = RuleSpec("all", {"Modality": "*"}, send=("pacs",))
    passes_through = {"pacs": DestinationPolicy(calling_ae="")}
    with receiving(tmp_path, routing(rule, policies=passes_through)) as reception:
        for number in range(1, 7):
            reception.receive(ct_header(number), replace(SCANNER, calling_ae="BAD" if number < 4 else "GOOD"))
        pacs = KnowsGood()
        draining = drainer(reception, pacs)
        while draining.drain(NOW):
            pass
        assert states(reception) == ["ready"] * 3 + ["sent"] * 3
        assert draining.drain(time.time() + 12.0), "it is tried again"
        assert not draining.drain(time.time() + 12.0), "with back-off"
        assert health(reception).last_error == "calling AE title not recognized"


def test_all_are_asked_to_stop_before_any_is_waited_for(reception: Reception) -> None:
    """Else a stop takes as long as all the destinations that hang, one after another."""
    together = threading.Barrier(2, timeout=20)
    hanging = {name: Scripted() for name in ("pacs", "archive")}
    begun = {name: threading.Event() for name in hanging}
    both = drainers(reception)

    def hang(name: str) -> Callable[[Outgoing], None]:
        def before(_: Outgoing) -> None:
            begun[name].set()
            wait_until(lambda: all(one.is_stopping for one in both.running), 20.0, "all were asked")
            together.wait()

        return before

    for name, deliverer in hanging.items():
        deliverer.before = hang(name)
    both.follow([route(deliverer, name) for name, deliverer in hanging.items()])
    assert all(event.wait(20) for event in begun.values())
    both.stop()
    assert [len(deliverer.sent) for deliverer in hanging.values()] == [1, 1]


def test_release_of_leases_is_by_owner(reception: Reception, scripted: Scripted) -> None:
    draining = drainer(reception, scripted)
    draining.drain(NOW)
    with reception.database.write() as session:
        leases.release(session, "somebody else")
    assert health(reception).lease_owner is not None
