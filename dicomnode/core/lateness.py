"""Instances that come after their series was closed: what they are made into. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dicomnode.core.types import LatePolicy


class Lateness(NamedTuple):
    """After which closing of its series an instance came, and what becomes of it."""

    generation: int
    policy: LatePolicy

    @property
    def is_ignored(self) -> bool:
        return self.policy is LatePolicy.IGNORE


@dataclass(frozen=True, slots=True)
class Member:
    """An instance of a series; `late` is None where it came in time."""

    instance_row: int
    sop_instance_uid: str
    late: Lateness | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """Instances of a series that are handled together, as if there were no others.

    key  added to the keys of its stacks, so that what is derived of it has UIDs of its own; "" for the series itself
    """

    key: str
    instance_rows: tuple[int, ...]


def groups(members: Sequence[Member]) -> tuple[Group, ...]:
    """The series itself, with what came late to supersede; then what came late to be separate, by the closing after
    which it came. Groups without a member are left out; what is ignored is in none.

    A group's key is made of what it holds, not of when it came: the same instances give the same UIDs.
    """
    own = [one for one in members if one.late is None or one.late.policy is LatePolicy.SUPERSEDE]
    separate: dict[int, list[Member]] = {}
    for one in members:
        if one.late is not None and one.late.policy is LatePolicy.SEPARATE:
            separate.setdefault(one.late.generation, []).append(one)
    late = [_group(_key(group), group) for _, group in sorted(separate.items())]
    return (*([_group("", own)] if own else ()), *late)


def _group(key: str, members: Iterable[Member]) -> Group:
    return Group(key, tuple(one.instance_row for one in members))


def _key(members: Iterable[Member]) -> str:
    uids = "\n".join(sorted(one.sop_instance_uid for one in members))
    return f" late {hashlib.sha256(uids.encode()).hexdigest()[:16]}"
