"""Planning a closed series: headers of its instances -> stacks -> rules -> plan and jobs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from dicomnode.core.lateness import Lateness, Member, groups
from dicomnode.core.routing import PRIORITIES, Routing
from dicomnode.core.rules import Fulfilled, RoutingPlan, fulfilled, plan
from dicomnode.core.stacks import STACK_KEYWORDS, slice_of, split_stacks
from dicomnode.core.types import Header, Sender, Slice, Stack
from dicomnode.errors import InputError
from dicomnode.faults import kill_point
from dicomnode.flow.rooms import Rooms
from dicomnode.store.index import jobs as job_index
from dicomnode.store.index import needs, purges, rejections, replacing
from dicomnode.store.index import series as series_index
from dicomnode.store.index.lateness import late_instances
from dicomnode.store.schema import Instance, Job, Series
from dicomnode.telemetry import event

Unreadable = list[dict[str, Any]]
"""Instances that cannot be read (`instance_id`), and why (`reason`)."""


@dataclass(frozen=True)
class _Closed:
    """A closed series, those of its instances that are not rejected, and by row which of these came late."""

    series: Series
    instances: Sequence[Instance]
    late: Mapping[int, Lateness]


@dataclass(frozen=True)
class _Decision:
    """What the rules say of a closed series, what of it cannot be read, the instance rows of each stack, and what it
    does for rules that need several series."""

    plan: RoutingPlan
    unreadable: Unreadable
    members: dict[str, list[int]]
    fulfilled: tuple[Fulfilled, ...]


class Planner:
    """Applies the rules to closed series. `routing` gives the configuration as it is now."""

    def __init__(self, rooms: Rooms, routing: Callable[[], Routing]) -> None:
        self._rooms = rooms
        self._routing = routing

    def plan(self, series_row: int, generation: int) -> list[list[int]]:
        """Apply the rules to a closed series; (job row, priority) of each job that follows from it."""
        kill_point("route.before_plan")
        closed = self._closed(series_row)
        decision = self._decide(closed)
        jobs = self._record(closed.series, generation, decision)
        _tell(closed.series, decision.plan, any(instance.matched for instance in closed.instances))
        kill_point("route.after_plan")
        return [[job.id, PRIORITIES[job.content["priority"]]] for job in jobs]

    def fail(self, series_row: int, generation: int, reason: str) -> None:
        """Record that no plan could be made."""
        content = {"jobs": [], "stacks": [], "unreadable": [], "failed": reason}
        with self._rooms.database.write() as session:
            job_index.record_plan(session, series_row, generation, content, [], time.time())
            needs.give_up(session, series_row)

    def _closed(self, series_row: int) -> _Closed:
        with self._rooms.database.read() as session:
            series = session.get_one(Series, series_row)
            instances = rejections.not_rejected(session, series_index.active_instances(session, series_row))
            late = late_instances(session, series_row)
            gone = purges.purged_instances(session, series_row)
        if gone:
            raise InputError(
                f"retention has deleted {gone} of its {len(instances)} instances: nothing is made of a part",
                "if it is to be enhanced again, send the whole series to the node again",
            )
        return _Closed(series, instances, late)

    def _decide(self, closed: _Closed) -> _Decision:
        """Apply the rules to the instances of a closed series."""
        if not closed.instances:  # newer versions of all of them belong to other series
            return _Decision(RoutingPlan((), ()), [], {}, ())
        routing = self._routing()
        stacks, unreadable = self._stacks(closed, routing)
        sender = _sender_of(closed.instances[0])
        hour = time.localtime(sender.received_at).tm_hour
        return _Decision(
            plan(routing.rules, stacks, sender, hour),
            unreadable,
            {stack.key: [one.instance_id for one in stack.slices] for stack in stacks},
            fulfilled(routing.rules, stacks, sender, hour),
        )

    def _stacks(self, closed: _Closed, routing: Routing) -> tuple[list[Stack], Unreadable]:
        """The stacks of a series, those of what came late apart where that is asked for."""
        by_row = {instance.id: instance for instance in closed.instances}
        members = [Member(row, one.sop_instance_uid, closed.late.get(row)) for row, one in by_row.items()]
        stacks: list[Stack] = []
        unreadable: Unreadable = []
        for group in groups(members):
            slices, unread = self._slices([by_row[row] for row in group.instance_rows], routing)
            stacks.extend(replace(stack, key=stack.key + group.key) for stack in split_stacks(slices))
            unreadable.extend(unread)
        return stacks, unreadable

    def _slices(self, instances: Sequence[Instance], routing: Routing) -> tuple[list[Slice], Unreadable]:
        """What the rules and the splitting into stacks read of instances."""
        headers = self._rooms.headers(self._rooms.paths(instances), STACK_KEYWORDS | routing.keywords)
        slices: list[Slice] = []
        unreadable: Unreadable = []
        for instance, read in zip(instances, headers, strict=True):
            if "reason" in read:
                unreadable.append({"instance_id": instance.id, "reason": read["reason"]})
                continue
            header: Header = {keyword: tuple(values) for keyword, values in read["header"].items()}
            slices.append(slice_of(instance.id, instance.sop_instance_uid, instance.sop_class_uid, header))
        return slices, unreadable

    def _record(self, series: Series, generation: int, decision: _Decision) -> list[Job]:
        """Store the plan; its jobs, and those for which other series had waited for this one."""
        incomplete = series_index.incompleteness(series)
        content = _content_of(decision, incomplete)
        planned = [
            ({**asdict(job), "source_incomplete": incomplete}, decision.members[job.stack_key])
            for job in decision.plan.jobs
        ]
        closing = needs.Closing(series, generation, decision.members)
        with self._rooms.database.write() as session:
            content["needs"] = needs.note_closing(session, closing, decision.fulfilled, time.time())
            made = job_index.record_plan(session, series.id, generation, content, planned, time.time())
            fired = needs.fire(session, series.study_row, time.time())
            jobs = list({job.id: job for job in (*made, *fired)}.values())
            pointless = replacing.supersede_unfinished(session, jobs, time.time())
        for result in pointless:
            self._rooms.results.forget(result)
        return jobs


def _content_of(decision: _Decision, incomplete: Sequence[str]) -> dict[str, Any]:
    """The plan as it is stored; `needs` is still to come."""
    decided = json.loads(decision.plan.to_json())
    return {**decided, "unreadable": decision.unreadable, "source_incomplete": incomplete}


def _sender_of(instance: Instance) -> Sender:
    return Sender(instance.peer, instance.calling_ae, instance.called_ae, instance.source_address, instance.received_at)


def _tell(series: Series, decided: RoutingPlan, forwarded: bool) -> None:
    rules = sorted({rule for job in decided.jobs for rule in job.rules})
    told: dict[str, str | int] = {"series_id": series.id, "series_instance_uid": series.series_instance_uid}
    if decided.unrouted and not forwarded:
        near = next((stack.nearest.rule for stack in decided.stacks if stack.nearest is not None), "")
        event("series_unrouted", **told, rule=near, reason="no rule matches; see `dicomnode why`")
    else:
        event("series_routed", **told, rules=len(rules), rule=", ".join(rules))
