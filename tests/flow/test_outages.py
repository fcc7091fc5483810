"""A drainer through days of outages, pauses and closed hours, by a clock moved by hand, against a plain model."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomnode import telemetry
from dicomnode.core.hours import WorkingHours, parse_hours
from dicomnode.core.ports import Deliverer
from dicomnode.core.rules import RuleSpec
from dicomnode.core.types import Outcome, Outgoing, Receipt
from dicomnode.errors import PeerUnreachableError
from dicomnode.flow.delivering import Drainer, Opening, Route
from dicomnode.flow.leasing import Leases
from dicomnode.store.index import health
from dicomnode.store.index.retrying import RetryPolicy
from dicomnode.store.schema import Outbox
from tests.store.receiving import Reception, ct_header, receiving, routing

HOUR = 3600.0
RETRY = RetryPolicy(initial_s=30.0, maximum_s=1800.0, patience_s=5 * HOUR, probe_s=60.0)
OPEN = WorkingHours((parse_hours("06:00-22:00"),))
STEP_S = 1200.0

Phase = tuple[str, int]
"""What is so for how many steps: "up", "down", "paused"."""


@dataclass
class World:
    """The clock, and a destination that is up or down."""

    now: float = 10 * HOUR
    is_up: bool = True
    paused: bool = False
    sent_at: dict[str, float] = field(default_factory=dict)
    twice: list[str] = field(default_factory=list)
    against_orders: list[str] = field(default_factory=list)

    def deliverer(self) -> Deliverer:
        return _Archive(self)


class _Archive(Deliverer):
    def __init__(self, world: World) -> None:
        self._world = world

    def deliver(self, batch: Sequence[Outgoing]) -> Iterator[Sequence[Receipt]]:
        for each in batch:
            self.probe("")
            world = self._world
            if each.sop_instance_uid in world.sent_at:
                world.twice.append(each.sop_instance_uid)
            if world.paused or not OPEN.is_open(world.now):
                world.against_orders.append(each.sop_instance_uid)
            world.sent_at[each.sop_instance_uid] = world.now
            yield (Receipt(each.outbox_id, Outcome.SENT, 0, "success", "", transient=False),)

    def probe(self, calling_ae: str) -> bool:
        if not self._world.is_up:
            raise PeerUnreachableError("no answer", "start it")
        return True

    def finish(self) -> None:
        """Nothing is under way between two steps."""

    interrupt = close = finish


phases = st.lists(st.tuples(st.sampled_from(["up", "down", "paused"]), st.integers(1, 8)), min_size=1, max_size=4)


@settings(deadline=None, max_examples=6)
@given(phases)
def test_each_instance_goes_once_and_is_given_up_only_after_its_patience(drawn: list[Phase]) -> None:
    world = World()
    with tempfile.TemporaryDirectory() as folder:
        rule = RuleSpec("all", {"Modality": "*"}, send=("pacs",))
        with receiving(Path(folder), routing(rule)) as reception:
            could_go = live(world, reception, [*drawn, ("up", 72)])
            rows = reception.rows(Outbox)
    assert {row.state for row in rows} <= {"sent", "failed"}
    assert world.twice == []
    assert world.against_orders == []
    assert len(world.sent_at) == sum(row.state == "sent" for row in rows)
    for row in rows:
        waited_s = sum(STEP_S for at in could_go if row.created_at <= at < (row.finished_at or 0.0))
        if row.state == "failed":
            assert waited_s >= RETRY.patience_s - 2 * STEP_S, "closed hours and pauses do not count"
        else:
            assert waited_s <= RETRY.patience_s + 2 * STEP_S


def live(world: World, reception: Reception, plan: Sequence[Phase]) -> list[float]:
    """Go through the phases, one instance coming in at each step of the drawn ones; the steps at which one could have
    been sent, were the destination up."""
    route = Route("pacs", "", RETRY, world.deliverer, opening=Opening(OPEN))
    lease = Leases(reception.database, "one", lambda _: world.now, lambda: world.now)
    drainer = Drainer(reception.database, reception.files, route, lease, lambda: world.now)
    could_go = []
    steps = [(kind, place) for kind, count in plan for place in range(count)]
    arriving = len(steps) - plan[-1][1]
    for number, (kind, _) in enumerate(steps):
        world.is_up = kind != "down"
        set_paused(world, reception, kind == "paused")
        if number < arriving:
            reception.receive(ct_header(number), at=world.now)
        if not world.paused and OPEN.is_open(world.now):
            could_go.append(world.now)
        while drainer.drain(world.now) and world.is_up:
            pass
        world.now += STEP_S
    return could_go


def set_paused(world: World, reception: Reception, paused: bool) -> None:
    if paused != world.paused:
        with reception.database.write() as session:
            (health.pause(session, "pacs", "", world.now) if paused else health.resume(session, "pacs", world.now))
        world.paused = paused


def test_a_long_outage_is_two_lines_in_the_log_and_one_alert(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    telemetry.configure("json", "info")
    world = World()
    with receiving(tmp_path, routing(RuleSpec("all", {"Modality": "*"}, send=("pacs",)))) as reception:
        live(world, reception, [("up", 2), ("down", 30), ("up", 1)])
        told = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    told = [line for line in told if line["level"] != "info" or line["event"] == "destination_up"]
    assert [line["event"] for line in told] == ["destination_down", "delivery_held", "destination_up"]
    assert told[-1]["seconds"] == 30 * STEP_S
