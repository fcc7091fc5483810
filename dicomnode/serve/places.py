"""Which processes a machine runs, and which roles each of them has."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from dicomnode.errors import UsageError

PROCESSES: Final = {
    "receive": ("receive",),
    "deliver": ("deliver",),
    "retrieve": ("retrieve",),
    "flow": ("route", "enhance", "derive"),
}
"""Each kind of process and the roles that it may have. There may be several receivers, `receive-1` and so on."""

RECEIVE: Final = "receive-"


@dataclass(frozen=True, slots=True)
class Place:
    """One process of this machine, and the roles that it has here."""

    name: str
    roles: tuple[str, ...]


METRICS: Final = Place("metrics", ())


def places(only: Collection[str] | None, receivers: int, *, apart: bool) -> tuple[Place, ...]:
    """The processes that have the roles asked for; none are named for all of them. Raises UsageError.

    only   roles, several may be joined by commas
    apart  whether the roles of one kind of process may run on different machines: SQLite keeps no limits across
           several processes, so there all workflows run in one
    """
    wanted = _checked({role.strip() for each in only for role in each.split(",")}) if only else None
    found: list[Place] = []
    for kind, roles in PROCESSES.items():
        here = roles if wanted is None else tuple(role for role in roles if role in wanted)
        if not here:
            continue
        if here != roles and not apart:
            raise UsageError(
                f"without {', '.join(role for role in roles if role not in here)} the others of {', '.join(roles)} "
                "cannot run",
                "on SQLite these roles share one process: name them together",
            )
        names = [receiver(index) for index in range(receivers)] if kind == "receive" else [kind]
        found += [Place(name, here) for name in names]
    return tuple(found)


def receiver(index: int) -> str:
    """The name of one of the receivers, counted from 0."""
    return f"{RECEIVE}{index + 1}"


def _checked(wanted: set[str]) -> set[str]:
    known = {role for roles in PROCESSES.values() for role in roles}
    unknown = sorted(wanted - known)
    if unknown:
        raise UsageError(f"there is no role {unknown[0]!r}", f"roles are: {', '.join(sorted(known))}")
    return wanted
