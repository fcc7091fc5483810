"""Several machines that deliver: who drains what, what is left to others, and that each instance is sent once."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from dicomnode.bell import Bell
from dicomnode.core.ports import Deliverer
from dicomnode.core.rules import RuleSpec
from dicomnode.core.types import Outcome, Outgoing, Receipt
from dicomnode.flow.delivering import Route
from dicomnode.flow.drainers import Drainers
from dicomnode.flow.leasing import LEASE_S, Leases
from dicomnode.store.database import Database
from dicomnode.store.index import leases as lease_index
from dicomnode.store.index.retrying import RetryPolicy
from dicomnode.store.schema import Process
from dicomnode.testing.processes import wait_until
from tests.store.receiving import Reception, ct_header, receiving, routing

DESTINATIONS = ("pacs", "archive")
TIMEOUT_S = 30.0
RETRY = RetryPolicy(patience_s=1e10)

pytestmark = pytest.mark.both_databases


class Times:
    """The database's clock and a machine's own, moved by hand."""

    now = 1000.0

    def leases(self, database: Database, machine: str) -> Leases:
        return Leases(database, lease_index.owner_on(machine, "1"), lambda _: self.now, lambda: self.now)


@pytest.fixture(name="reception")
def _reception(tmp_path: Path) -> Iterator[Reception]:
    with receiving(tmp_path, routing(RuleSpec("all", {"Modality": "*"}, send=DESTINATIONS))) as reception:
        yield reception


def beat(reception: Reception, *machines: str, at: float) -> None:
    """Signs of life of machines that deliver."""
    with reception.database.write() as session:
        session.add_all(
            Process(
                role="deliver",
                host=machine,
                home=machine,
                pid=1,
                executor_id=machine,
                roles=["deliver"],
                version="1",
                started_at=at,
                beat_at=at,
            )
            for machine in machines
        )


def test_two_machines_never_hold_one_lease(reception: Reception) -> None:
    times = Times()
    one, two = times.leases(reception.database, "one"), times.leases(reception.database, "two")
    assert one.hold("pacs")
    assert not two.hold("pacs")
    one.let_go(["pacs"])
    assert two.hold("pacs")
    times.now += LEASE_S
    assert one.hold("pacs"), "whoever held it last must have stopped by now"
    two.keep()
    assert not two.is_good("pacs")


def holders(reception: Reception, times: Times) -> dict[str, str]:
    with reception.database.read() as session:
        return lease_index.holders(session, times.now)


def test_a_machine_leaves_what_is_more_than_its_share_to_others(reception: Reception) -> None:
    times = Times()
    one, two = times.leases(reception.database, "one"), times.leases(reception.database, "two")
    names = [f"d{number}" for number in range(5)]
    assert all(one.hold(name) for name in names)
    times.now += 5.0
    beat(reception, "one", "two", at=times.now)
    one.balance(busy=["d0", "d1", "d2", "d3", "d4"])
    if not reception.database.is_shared:
        assert len(holders(reception, times)) == 5, "there are no others"
        return
    assert len(holders(reception, times)) == 5, "busy ones are left between two batches"
    kept = [name for name in names if one.hold(name)]
    assert len(kept) == 3
    assert all(two.hold(name) for name in names if name not in kept)
    times.now += 5.0
    one.balance(busy=kept)
    two.balance(busy=[name for name in names if name not in kept])
    assert Counter(holders(reception, times).values()) == {"one/1": 3, "two/1": 2}


def test_a_lease_that_is_not_used_is_left_to_others(reception: Reception) -> None:
    times = Times()
    one = times.leases(reception.database, "one")
    assert one.hold("pacs")
    for _ in range(5):
        times.now += 8.0
        one.keep()
        one.balance(busy=[])
    assert holders(reception, times) == ({} if reception.database.is_shared else {"pacs": "one/1"})


class Counting(Deliverer):
    """Takes everything, and counts it."""

    def __init__(self, taken: Counter[tuple[str, str]], name: str) -> None:
        self._taken = taken
        self._name = name
        self._is_finishing = False

    def deliver(self, batch: Sequence[Outgoing]) -> Iterator[Sequence[Receipt]]:
        for each in batch:
            if self._is_finishing:
                return
            self._taken[self._name, each.sop_instance_uid] += 1
            yield (Receipt(each.outbox_id, Outcome.SENT, 0, "success", "", transient=False),)

    def probe(self, calling_ae: str) -> bool:
        return True

    def finish(self) -> None:
        self._is_finishing = True

    interrupt = finish

    def close(self) -> None:
        """There is nothing to end."""


def make_counting(taken: Counter[tuple[str, str]], name: str) -> Callable[[], Deliverer]:
    return lambda: Counting(taken, name)


def test_machines_share_the_destinations_and_send_everything_once(reception: Reception) -> None:
    taken: Counter[tuple[str, str]] = Counter()
    with closing(Database(reception.database.url, "none")) as other:
        machines = [
            Drainers(database, reception.files, lease_index.owner_on(name, "1"), Bell())
            for name, database in (("one", reception.database), ("two", other))
        ]
        for machine in machines:
            machine.follow([Route(name, "", RETRY, make_counting(taken, name)) for name in DESTINATIONS])
            machine.start()
        stopping = threading.Thread(target=machines[0].stop)
        for number in range(30):
            reception.receive(ct_header(number))
            if number == 15:
                stopping.start()
        try:
            wait_until(lambda: {state for _, _, state in reception.outbox()} == {"sent"}, TIMEOUT_S, "all was sent")
        finally:
            stopping.join()
            machines[1].stop()
    assert set(taken.values()) == {1}
    assert len(taken) == 30 * len(DESTINATIONS)


def test_what_is_received_wakes_its_drainer_by_the_bell(reception: Reception) -> None:
    """Looks of its own would come far later than the test waits."""
    taken: Counter[tuple[str, str]] = Counter()
    bell = Bell()
    machine = Drainers(reception.database, reception.files, "one/1", bell)
    machine.follow([Route(name, "", RETRY, make_counting(taken, name)) for name in DESTINATIONS])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dicomnode.flow.drainers._LOOK_S", 3600.0)
        bell.wait(0.0)
        machine.start()
        try:
            reception.receive(ct_header())
            bell.ring()
            wait_until(lambda: len(taken) == len(DESTINATIONS), TIMEOUT_S, "both were sent to")
        finally:
            machine.stop()
