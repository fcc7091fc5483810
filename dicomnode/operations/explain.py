"""`dicomnode rules explain`: judge a file by the rules as they are now, clause by clause, and store nothing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dicomnode.config import Config
from dicomnode.core.headers import value
from dicomnode.core.rules import Facts, Forwarding, RoutingPlan, explain, explain_needs, forward, plan
from dicomnode.core.stacks import STACK_KEYWORDS, slice_of, split_stacks
from dicomnode.core.types import Header, Sender
from dicomnode.operations.index import has_index, reading
from dicomnode.operations.terminal import printable_lines
from dicomnode.pixels.read import read_header
from dicomnode.store.index import overview


@dataclass(frozen=True)
class FileExplanation:
    """What the rules say of one file. `judged_as` says which sender was taken."""

    judged_as: str
    rules: tuple[str, ...]
    forwarding: Forwarding
    plan: RoutingPlan

    def to_json(self) -> dict[str, Any]:
        return {"judged_as": self.judged_as, "forwarding": asdict(self.forwarding), "plan": asdict(self.plan)}

    def lines(self) -> Sequence[str]:
        told = (
            f"judged as {self.judged_as}",
            *self.rules,
            "as an original:",
            *(f"  {line}" for line in self.forwarding.lines()),
            "for engines, as a stack of this one slice:",
            *(f"  {line}" for line in self.plan.lines()),
        )
        return printable_lines(told)


def explain_file(config: Config, path: Path) -> FileExplanation:
    """Judge a DICOM file. Raises InputError where it is none.

    Sender keys are those of the object as the node received it, where it has; else no sender is known.
    """
    rules = config.rules()
    header = read_header(path, STACK_KEYWORDS | rules.keywords | {"SOPClassUID", "SOPInstanceUID"})
    sender, judged_as = _sender(config, header)
    hour = time.localtime(sender.received_at).tm_hour
    facts = Facts(header, sender, hour)
    one = slice_of(0, value(header, "SOPInstanceUID"), value(header, "SOPClassUID"), header)
    return FileExplanation(
        judged_as=judged_as,
        rules=(*(line for rule in explain(rules, facts) for line in rule.lines()), *explain_needs(rules, facts)),
        forwarding=forward(rules, facts),
        plan=plan(rules, split_stacks([one]), sender, hour),
    )


def _sender(config: Config, header: Header) -> tuple[Sender, str]:
    unknown = Sender("", "", "", "", time.time())
    told = "from no known sender, now: clauses on peer, AE titles and address see nothing"
    if not has_index(config):
        return unknown, told
    with reading(config) as session:
        found = overview.active_instance(session, value(header, "SOPInstanceUID"))
    if found is None:
        return unknown, told
    sender = Sender(found.peer, found.calling_ae, found.called_ae, found.source_address, found.received_at)
    return sender, f"received from {found.calling_ae} ({found.peer or 'no configured peer'}, {found.source_address})"
