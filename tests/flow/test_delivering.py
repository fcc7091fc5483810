"""Draining the outbox towards a destination that answers as a test tells it to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from dicomnode.core.ports import Deliverer
from dicomnode.core.routing import DestinationPolicy
from dicomnode.core.rules import RuleSpec
from dicomnode.core.types import Outcome, Outgoing
from dicomnode.core.types import Receipt as Answer
from dicomnode.errors import AssociationLostError, AssociationRejectedError, PeerUnreachableError
from dicomnode.flow.delivering import Drainer, Drainers, Route
from dicomnode.store.index import outbox
from dicomnode.store.index.outbox import RetryPolicy
from dicomnode.store.schema import Destination, Outbox, Receipt
from dicomnode.testing.processes import wait_until
from tests.store.receiving import SCANNER, Reception, ct_header, receiving, routing

RETRY = RetryPolicy(initial_s=10.0, maximum_s=80.0, patience_s=1e10)
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
    return Route(name, "127.0.0.1:104", retry, lambda: deliverer)


def drainer(reception: Reception, deliverer: Deliverer, name: str = "pacs", retry: RetryPolicy = RETRY) -> Drainer:
    return Drainer(reception.database, reception.files.path, route(deliverer, name, retry))


def states(reception: Reception, name: str = "pacs") -> list[str]:
    return [state for destination, _, state in reception.outbox() if destination == name]


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
    assert states(reception) == ["sent"] * 3
    assert [each.sop_instance_uid for each in scripted.sent].count("1.2.3.4.1") == 1
    assert (health(reception).failures, health(reception).down_until) == (0, None)


def test_a_destination_that_stays_down_is_asked_ever_more_seldom(reception: Reception, scripted: Scripted) -> None:
    scripted.script = {"1.2.3.4.1": PeerUnreachableError("no answer", "check the cable")}
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


def test_no_two_drainers_send_for_one_destination(reception: Reception, scripted: Scripted) -> None:
    first, second = drainer(reception, Scripted()), drainer(reception, scripted)
    assert first.drain(NOW)
    assert not second.drain(NOW + 1.0)
    reception.receive(ct_header(9))
    assert second.drain(time.time() + 61.0), "the lease of a drainer that died expires"
    assert [each.sop_instance_uid for each in scripted.sent] == ["1.2.3.4.9"]


def test_an_impatient_destinations_rows_fail(reception: Reception, scripted: Scripted) -> None:
    draining = drainer(reception, scripted, retry=RetryPolicy(10.0, 80.0, patience_s=100.0))
    assert not draining.drain(NOW)
    assert states(reception) == ["failed"] * 3
    assert scripted.sent == []


def test_a_stop_finishes_what_is_being_sent_and_gives_the_lease_up(reception: Reception, scripted: Scripted) -> None:
    sending, go_on = threading.Event(), threading.Event()

    def before(_: Outgoing) -> None:
        sending.set()
        go_on.wait(20)

    scripted.before = before
    draining = drainer(reception, scripted)
    draining.start()
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
    both = Drainers(reception.database, reception.files.path)
    both.follow([route(hangs), route(scripted, "archive")])
    try:
        wait_until(lambda: states(reception, "archive") == ["sent"] * 3, 20.0, "the other has everything")
        assert states(reception) == ["ready"] * 3
        assert both.are_alive
    finally:
        go_on.set()
        both.stop()


def test_the_drainers_follow_the_configuration(reception: Reception, scripted: Scripted) -> None:
    both = Drainers(reception.database, reception.files.path)
    both.follow([route(scripted, "archive")])
    wait_until(lambda: states(reception, "archive") == ["sent"] * 3, 20.0, "the first is served")
    other = Scripted()
    both.follow([route(other)])
    wait_until(lambda: states(reception) == ["sent"] * 3, 20.0, "then the second")
    both.stop()
    assert {row.lease_owner for row in reception.rows(Destination)} == {None}
    assert len(reception.rows(Outbox)) == 6


def test_a_destination_that_is_as_before_is_left_alone(reception: Reception, scripted: Scripted) -> None:
    both = Drainers(reception.database, reception.files.path)
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
    both = Drainers(reception.database, reception.files.path)

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
        outbox.release_leases(session, "somebody else")
    assert health(reception).lease_owner is not None
