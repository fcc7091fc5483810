"""Does a destination hold what it was sent? What to ask next, and what the answers come to. Pure: time comes in.

A receipt is what a destination said when it took an instance; a proof is what it says when asked afterwards: Storage
Commitment (PS3.4 J), where it has that, else a C-FIND at IMAGE level. What it took with success and does not hold when
it is asked twice is sent again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from dicomnode.core.identity import named_uid

LARGEST_TRANSACTION: Final = 500
"""Instances of one Storage Commitment request: some archives time out over thousands."""

_UNANSWERED_BEFORE_FIND: Final = 3
"""Commitments without a report before C-FIND is asked instead."""

_SAID_BEFORE_SENT_AGAIN: Final = 2
"""A destination may index late: what it does not hold is believed when it says so for the second time."""

_MOST_RESENDS: Final = 3
_LONGEST_PAUSE_S: Final = 3600.0
_NOT_FOUND_HINT: Final = (
    'look at its log; if its C-FIND never shows what it takes, set proof = "receipts" in its [destination.NAME]'
)
NO_SUCH_INSTANCE: Final = 0x0112


class ProofKind(StrEnum):
    """The `proof` of a destination's configuration: the best that it is asked for."""

    AUTO = "auto"
    COMMITMENT = "commitment"
    FIND = "find"
    RECEIPTS = "receipts"


class Method(StrEnum):
    """What has proved that a destination holds an instance, the strongest first."""

    COMMITMENT = "commitment"
    FIND = "find"
    RECEIPTS = "receipts"


@dataclass(frozen=True, slots=True)
class FailureReason:
    """A Failure Reason (0008,1197) in words. `is_missing`: the destination says that it does not hold the instance."""

    meaning: str
    hint: str
    is_missing: bool = False


_FAILURE_REASONS: Final[Mapping[int, FailureReason]] = {
    0x0110: FailureReason("processing failure", "look at the destination's log; it is asked again"),
    NO_SUCH_INSTANCE: FailureReason("it does not hold this instance", "it is sent again", is_missing=True),
    0x0118: FailureReason("no such SOP class", "it does not commit to this kind of object: proof = \"find\" may do"),
    0x0119: FailureReason(
        "it holds the UID as another SOP class", "look at the object there: it is not the one that was sent"
    ),
    0x0122: FailureReason(
        "it does not commit to this kind of object", "it may do so by C-FIND: set proof = \"find\" for it"
    ),
    0x0131: FailureReason("it has such a transaction already", "it is asked again under another Transaction UID"),
    0x0213: FailureReason("resource limitation", "it is busy or full; it is asked again"),
}  # fmt: skip
"""PS3.3 table C.14-1."""


def failure_reason(code: int) -> FailureReason:
    """What a Failure Reason means; one that no standard knows is a failure of which nothing more is known."""
    unknown = FailureReason(f"unknown reason 0x{code:04X}", "look at the destination's log and conformance statement")
    return _FAILURE_REASONS.get(code, unknown)


@dataclass(frozen=True, slots=True)
class ProofPolicy:
    """How one destination is asked.

    after_s     pause after the last instance of a series that was sent: what follows is asked for together
    report_s    how long a result is waited for on the association that asked
    answer_s    how long a result may take at all before it is asked for again
    again_s     pause before the second question; doubled for each further one
    patience_s  after so long without proof it is given up
    """

    kind: ProofKind = ProofKind.AUTO
    after_s: float = 5.0
    report_s: float = 5.0
    answer_s: float = 600.0
    again_s: float = 60.0
    patience_s: float = 24 * 3600.0

    def pause_s(self, asks: int) -> float:
        """Pause after so many questions without a full answer."""
        return min(self.again_s * 2.0 ** min(max(asks, 1) - 1, 32), max(_LONGEST_PAUSE_S, self.again_s))

    def wants(self, method: Method) -> bool:
        """Whether a destination may be asked by this method."""
        match self.kind:
            case ProofKind.RECEIPTS:
                return False
            case ProofKind.FIND:
                return method is Method.FIND
            case _:
                return method is not Method.RECEIPTS


@dataclass(frozen=True, slots=True)
class Sight:
    """What is known of one series at one destination when it is looked at.

    unproved       SOP Instance UIDs that arrived there and are not confirmed
    last_sent_at   when the last of them arrived
    began_at       since when it has been asked
    asked_at       when the answer that is waited for was asked for, None where none is
    answered_at    when the latest answer came, None where none has
    method, asks   how it was asked last ("" never), and how often without a full answer
    resends        how often something had to be sent again
    failures       Failure Reason of those that the latest answer does not confirm
    """

    unproved: tuple[str, ...]
    last_sent_at: float
    began_at: float
    asked_at: float | None = None
    answered_at: float | None = None
    method: str = ""
    asks: int = 0
    resends: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)


class Action(StrEnum):
    NOTHING = "nothing"
    WAIT = "wait"
    ASK = "ask"
    CONFIRM = "confirm"
    SEND_AGAIN = "send-again"
    GIVE_UP = "give-up"


@dataclass(frozen=True, slots=True)
class Step:
    """What to do about a series now.

    until            of WAIT
    sop_instance_uids  of SEND_AGAIN: what the destination does not hold
    meaning, hint    of SEND_AGAIN and GIVE_UP
    """

    action: Action
    until: float = 0.0
    sop_instance_uids: tuple[str, ...] = ()
    meaning: str = ""
    hint: str = ""


def next_step(policy: ProofPolicy, sight: Sight, now: float) -> Step:
    """What to do before the destination is called."""
    if not sight.unproved:
        return Step(Action.NOTHING)
    if now < sight.last_sent_at + policy.after_s:
        return Step(Action.WAIT, sight.last_sent_at + policy.after_s)
    if policy.kind is ProofKind.RECEIPTS:
        return Step(Action.CONFIRM)
    missing = tuple(uid for uid in sight.unproved if _is_missing(sight.failures.get(uid)))
    if missing and sight.asks >= _SAID_BEFORE_SENT_AGAIN:
        return _send_again(sight, missing)
    if sight.asked_at is not None and now < sight.asked_at + policy.answer_s:
        return Step(Action.WAIT, sight.asked_at + policy.answer_s)
    if sight.answered_at is not None and now < (again_at := sight.answered_at + policy.pause_s(sight.asks)):
        return Step(Action.WAIT, again_at)
    if sight.asks and now >= sight.began_at + policy.patience_s:
        return _give_up(sight)
    return Step(Action.ASK)


def method_for(policy: ProofPolicy, sight: Sight, offered: frozenset[Method]) -> Method | None:
    """How to ask a destination that offers these; None where it offers nothing that is wanted.

    Receipts are all there can be where it offers nothing, and no more was demanded. A commitment that is asked for and
    never reported on gives way to C-FIND.
    """
    usable = [method for method in (Method.COMMITMENT, Method.FIND) if method in offered and policy.wants(method)]
    if not usable:
        return Method.RECEIPTS if policy.kind is ProofKind.AUTO else None
    gave_way = sight.method == Method.FIND and Method.FIND in usable
    tired = sight.method == Method.COMMITMENT and sight.asks >= _UNANSWERED_BEFORE_FIND
    return usable[-1] if gave_way or tired else usable[0]


def asks_of(sight: Sight, method: Method) -> int:
    """How often it will have been asked so, once it is asked now."""
    return sight.asks + 1 if method == sight.method else 1


def transaction_uid(destination: str, sop_instance_uids: Sequence[str], began_at: float, attempt: int) -> str:
    """The Transaction UID of one question: computed, so that one whose fate is not known is asked again as the same.

    began_at  when this series was first asked about: instances that come later begin anew
    attempt   counts questions that were put and not answered (a repeated question is another transaction, J.3.2.1.1)
    """
    parts = {"destination": destination, "instances": sorted(sop_instance_uids), "began": began_at, "attempt": attempt}
    return named_uid({"transaction": parts})


def _is_missing(reason: int | None) -> bool:
    return reason is not None and failure_reason(reason).is_missing


def _send_again(sight: Sight, missing: tuple[str, ...]) -> Step:
    meaning = f"{len(missing)} not held though they had been answered with success"
    if sight.resends >= _MOST_RESENDS:
        hint = "it was sent again several times: look at the destination's log, its disk and its rules for deletion"
        return Step(Action.GIVE_UP, sop_instance_uids=missing, meaning=meaning, hint=_lacking_hint(sight, hint))
    hint = _lacking_hint(sight, "look at the destination's log")
    return Step(Action.SEND_AGAIN, sop_instance_uids=missing, meaning=meaning, hint=hint)


def _lacking_hint(sight: Sight, by_commitment: str) -> str:
    """Gateways take images and answer C-FIND, but of others' images: nothing that is sent again would ever show."""
    return _NOT_FOUND_HINT if sight.method == Method.FIND else by_commitment


def _give_up(sight: Sight) -> Step:
    reasons = sorted({sight.failures[uid] for uid in sight.unproved if uid in sight.failures})
    if reasons:
        told = failure_reason(reasons[0])
        return Step(Action.GIVE_UP, meaning=told.meaning, hint=told.hint)
    hint = "have it report to our AE title, host and port, or set its proof to what it can do"
    return Step(Action.GIVE_UP, meaning=f"no answer to {sight.asks} questions by {sight.method}", hint=hint)


class ProofState(StrEnum):
    """What can be said of a series at a destination: still going there, there as it says itself, proved, or lacking."""

    SENDING = "sending"
    SENT = "sent"
    CONFIRMED = "confirmed"
    PARTIAL = "partial"


@dataclass(frozen=True, slots=True)
class Sent:
    """One instance for one destination, in as far as its proof goes. `fate` is waiting, sent, failed or apart.

    Apart is what is not meant to arrive: excluded, withheld, cancelled.
    """

    sop_instance_uid: str
    fate: str
    confirmed_by: Method | None = None
    is_missing: bool = False


@dataclass(frozen=True, slots=True)
class SeriesProof:
    """What a destination holds of a series. `lacking` are SOP Instance UIDs, those of PARTIAL.

    by  how many are confirmed by which proof
    """

    state: ProofState
    instances: int
    by: Mapping[Method, int]
    lacking: tuple[str, ...]

    @property
    def confirmed(self) -> int:
        return sum(self.by.values())


def series_proof(rows: Sequence[Sent]) -> SeriesProof | None:
    """What the rows of one series and destination come to; None where nothing is meant for it."""
    meant = [row for row in rows if row.fate != "apart"]
    if not meant:
        return None
    lacking = tuple(dict.fromkeys(row.sop_instance_uid for row in meant if row.fate == "failed" or row.is_missing))
    by = {method: sum(row.confirmed_by is method for row in meant) for method in Method}
    found = {method: count for method, count in by.items() if count}
    return SeriesProof(_state(meant, lacking), len(meant), found, lacking)


def _state(meant: Sequence[Sent], lacking: Sequence[str]) -> ProofState:
    if lacking:
        return ProofState.PARTIAL
    if any(row.fate == "waiting" for row in meant):
        return ProofState.SENDING
    return ProofState.CONFIRMED if all(row.confirmed_by for row in meant) else ProofState.SENT
