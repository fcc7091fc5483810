"""What is told of the proof that destinations hold a series: confirmed by what, or what lacks, and what comes next."""

from __future__ import annotations

import time

from sqlalchemy.orm import Session

from dicomnode.core.proof import ProofState, SeriesProof
from dicomnode.operations.wording import counted
from dicomnode.store.index import proofs
from dicomnode.store.schema import Proof, Series

_NAMED = 5
"""So many SOP Instance UIDs are told of those that lack."""


def proof_lines(session: Session, series: Series) -> tuple[str, ...]:
    """Lines for each destination that has answered for an instance of the series."""
    return tuple(
        line
        for proof, asked in proofs.proofs_of(session, series.id)
        for line in (_state(proof, asked), *_lacking(proof), *_next(proof, asked))
    )


def _state(proof: SeriesProof, asked: Proof) -> str:
    by = ", ".join(f"{count} by {method}" for method, count in proof.by.items())
    confirmed = f"{proof.confirmed} of {counted(proof.instances, 'instance')} confirmed"
    return f"proof at {asked.destination}: {proof.state}, {confirmed}{f' ({by})' if by else ''}"


def _lacking(proof: SeriesProof) -> tuple[str, ...]:
    if not proof.lacking:
        return ()
    more = len(proof.lacking) - _NAMED
    return (f"  lacks {', '.join(proof.lacking[:_NAMED])}{f' and {more} more' if more > 0 else ''}",)


def _next(proof: SeriesProof, asked: Proof) -> tuple[str, ...]:
    if proof.state is ProofState.CONFIRMED:
        return ()
    times = f"asked by {asked.method} {counted(asked.asks, 'time')}; " if asked.asks else ""
    again = f"sent again {counted(asked.resends, 'time')}; " if asked.resends else ""
    told = "; ".join(filter(None, (asked.meaning, asked.hint)))
    if asked.due_at is None:
        return (f"  {times}{again}not asked any more{f': {told}' if told else ''}",)
    return (f"  {times}{again}{f'{told}; ' if told else ''}looked at again at {_when(asked.due_at)}",)


def _when(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
