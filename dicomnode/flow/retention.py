"""Deleting what the configuration names, the oldest first, in small steps: nobody ever waits for it.

First a purge is noted, in a short transaction that judges once more; then the files are removed, without any lock; then
it is noted that they are gone. What was noted is finished, whatever the configuration says by then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from dicomnode.core.retention import RetentionPolicy, judge
from dicomnode.errors import StoreError
from dicomnode.flow.repeating import Repeating
from dicomnode.store.database import Database
from dicomnode.store.files import FileStore
from dicomnode.store.index import purges, reviews
from dicomnode.store.index.purges import Noted
from dicomnode.store.results import ResultStore
from dicomnode.store.schema import Series
from dicomnode.telemetry import event

_POLL_S: Final = 1.0
_LOOKED_AT: Final = 20
"""Series that one step looks at; a step deletes each of them at most."""

_PAUSE_S: Final = 3600.0
_PAUSE_WHILE_SCARCE_S: Final = 60.0
_PAUSE_AFTER_ERROR_S: Final = 300.0
_DAY_S: Final = 86400.0


@dataclass(frozen=True, slots=True)
class Keeping:
    """What the configuration says of keeping: which series, and how long results that a gate withheld."""

    policy: RetentionPolicy
    withheld_results_days: float


class Retention(Repeating):
    """Looks through all series, again and again with a pause between.

    is_scarce  tells whether less space is free than the policy wants
    keeping    may be set anew
    """

    def __init__(
        self, database: Database, stores: tuple[FileStore, ResultStore], keeping: Keeping, is_scarce: Callable[[], bool]
    ) -> None:
        super().__init__("retention", _POLL_S, self.step)
        self._database = database
        self._files, self._results = stores
        self.keeping = keeping
        self._is_scarce = is_scarce
        self._cursor = 0
        self._next_at = 0.0
        self._paused_until = 0.0

    def step(self, now: float) -> int:
        """Finish what was begun, then look at the next few series; how many were deleted."""
        if now < self._paused_until:
            return 0
        try:
            self._finish_all(now)
            return self._step(now) if now >= self._next_at else 0
        except StoreError as error:  # what was noted is finished then
            self._paused_until = now + _PAUSE_AFTER_ERROR_S
            event(
                "purge_failed",
                retry_s=_PAUSE_AFTER_ERROR_S,
                error=type(error).__name__,
                reason=str(error),
                hint=error.hint,
            )
            return 0

    def _step(self, now: float) -> int:
        if not self._cursor:
            self._forget_results(now - self.keeping.withheld_results_days * _DAY_S)
        policy, scarce = self.keeping.policy, self._is_scarce()
        if not policy.deletes:
            self._next_at = now + _PAUSE_WHILE_SCARCE_S
            return 0
        with self._database.read() as session:
            before = now - policy.youngest_s(is_scarce=scarce)
            series = purges.candidates(session, self._cursor, before, _LOOKED_AT)
            chosen = [
                one for one in series if judge(purges.holdings(session, one), policy, now, is_scarce=scarce).deletes
            ]
        self._cursor = series[-1].id if series else 0
        if not series:
            self._next_at = now + (_PAUSE_WHILE_SCARCE_S if scarce else _PAUSE_S)
        return sum(self._purge(one, now, is_scarce=scarce and self._is_scarce()) for one in chosen)

    def _purge(self, series: Series, now: float, *, is_scarce: bool) -> bool:
        with self._database.write() as session:
            current = session.get_one(Series, series.id)
            judged = judge(purges.holdings(session, current), self.keeping.policy, now, is_scarce=is_scarce)
            if not judged.deletes:
                return False
            noted = purges.note(session, current, judged.reason, now)
        self._finish(noted, now)
        event(
            "series_purged",
            series_id=series.id,
            series_instance_uid=series.series_instance_uid,
            instances=len(noted.files),
            bytes=noted.size_bytes,
            reason=judged.reason,
        )
        return True

    def _finish_all(self, now: float) -> None:
        with self._database.read() as session:
            begun = purges.unfinished(session, _LOOKED_AT)
        for noted in begun:
            self._finish(noted, now)

    def _finish(self, noted: Noted, now: float) -> None:
        self._files.remove_all(noted.files)
        with self._database.write() as session:
            purges.finish(session, noted, now)

    def _forget_results(self, before: float) -> None:
        """Results first, then their names: what is named and gone is computed again."""
        with self._database.read() as session:
            old = reviews.results_withheld_before(session, before)
        for job in old:
            self._results.forget(job.result or "")
        if old:
            with self._database.write() as session:
                reviews.forget_results(session, [job.id for job in old])
