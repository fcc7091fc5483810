"""fetch: have the node pull a study or series from a peer, and tell how that goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from dicomnode.config import Config
from dicomnode.core.identity import is_valid_uid
from dicomnode.core.retrieving import RetrievalState, RetrieveMethod
from dicomnode.errors import UsageError
from dicomnode.operations.index import writing
from dicomnode.operations.peers import address_of
from dicomnode.store.database import Database, index_url
from dicomnode.store.index import processes, retrievals
from dicomnode.store.index.actions import record_action, user
from dicomnode.store.index.retrievals import Request
from dicomnode.store.schema import Process, Retrieval
from dicomnode.telemetry import event

_LOOK_S: Final = 0.5
_ALIVE_S: Final = 60.0
"""A process that gave no sign of life for so long is not there."""
_NAMED: Final = 20
"""Missing instances that are named in text; `--json` names all that are known."""
_LONGEST_ACCESSION: Final = 16  # VR SH (PS3.5 6.2)

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class FetchAnswer:
    """How a retrieval stands.

    is_worked_on  whether a process is there that does it
    """

    retrieval: int
    peer: str
    state: RetrievalState
    facts: Mapping[str, Any]
    is_worked_on: bool

    def to_json(self) -> Mapping[str, Any]:
        return {"retrieval": self.retrieval, "peer": self.peer, "state": self.state.value, **self.facts,
                "is_worked_on": self.is_worked_on}  # fmt: skip

    def lines(self) -> Sequence[str]:
        head = f"retrieval {self.retrieval} from {self.peer}: {_WORDS[self.state]}"
        reason, hint = self.facts["reason"], self.facts["hint"]
        missing: list[str] = self.facts["missing"]
        lines = [f"{head}{f': {reason}' if reason else ''}"]
        if self.state is RetrievalState.READY and not self.is_worked_on:
            lines.append(" next: it is fetched once the node runs here: dicomnode serve")
        lines += [f"missing: {uid}" for uid in missing[:_NAMED]]
        lines += [f"missing: {len(missing) - _NAMED} more (--json names them)"] if len(missing) > _NAMED else []
        return [*lines, f" next: {hint}"] if hint else lines


_WORDS: Final = {
    RetrievalState.READY: "waits",
    RetrievalState.COMPLETE: "complete",
    RetrievalState.PARTIAL: "partial",
    RetrievalState.FAILED: "failed",
}


def wanted(
    peer: str, study: str, accession: str, series: Sequence[str], method: Literal["auto", "get", "move"] = "auto"
) -> Request:
    """What a person asks for. Raises UsageError where it names nothing, or nothing that can be named."""
    if bool(study) == bool(accession):
        raise UsageError("either a study or an accession number is fetched", "add --study UID or --accession NUMBER")
    for uid in (*filter(None, [study]), *series):
        if not is_valid_uid(uid):
            raise UsageError(f"{uid!r} is no UID", "digits and dots, at most 64")
    if not accession.isprintable() or set(accession) & set("*?\\") or len(accession) > _LONGEST_ACCESSION:
        raise UsageError("this is no accession number", "at most 16 characters, without * ? and backslash")
    return Request(peer, study, accession.strip(), tuple(series), RetrieveMethod(method), user())


def fetch(config: Config, request: Request) -> int:
    """Have the node fetch something; the row id of the retrieval. The `retrieve` role does it, now or after a restart.

    Raises NotFoundError, ConfigError for a peer that cannot be called.
    """
    address_of(config, request.peer)
    with writing(config) as session:
        now = processes.clock(session)
        row = retrievals.request(session, request, now)
        subject = request.study_instance_uid or f"retrieval {row.id}"
        record_action(session, "fetch", subject, f"retrieval {row.id} from {request.peer}", now)
    event("retrieval_requested", retrieval_id=row.id, peer=request.peer)
    return row.id


def follow(config: Config, retrieval: int, progress: Progress | None) -> FetchAnswer:
    """How a retrieval stands; with `progress`, once it has ended or nobody is there to do it."""
    with closing(Database(index_url(config.database, config.node.data))) as database:
        while True:
            with database.read() as session:
                answer = _answer(session, session.get_one(Retrieval, retrieval))
            if progress is None or answer.state is not RetrievalState.READY or not answer.is_worked_on:
                return answer
            done = max(answer.facts["held"] or 0, answer.facts["sub_operations"].get("completed", 0))
            if (expected := answer.facts["expected"]) is not None:
                progress(f"from {answer.peer}", min(done, expected), expected)
            time.sleep(_LOOK_S)


def _answer(session: Session, row: Retrieval) -> FetchAnswer:
    facts = {
        "study_instance_uid": row.study_instance_uid,
        "accession_number": row.accession_number,
        "series_instance_uids": row.series_instance_uids,
        "by": row.used,
        "expected": row.expected,
        "held": row.held,
        "missing": row.missing,
        "sub_operations": row.sub_operations,
        "attempts": row.attempts,
        "requested_at": row.requested_at,
        "finished_at": row.finished_at,
        "reason": row.reason,
        "hint": row.hint,
    }
    return FetchAnswer(row.id, row.peer, RetrievalState(row.state), facts, _is_worked_on(session))


def _is_worked_on(session: Session) -> bool:
    lately = processes.clock(session) - _ALIVE_S
    alive = session.scalars(select(Process).where(Process.beat_at > lately))
    return any("retrieve" in process.roles for process in alive)
