"""Asking a destination about patient and study before derived objects leave for it: a thread for each that is asked.

A study may have been corrected there, or been moved to another patient, after its originals arrived. What differs is
kept back for a person; what cannot be asked waits, and is never sent unchecked where that was forbidden.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Final

from dicomnode.core.headers import scan_header
from dicomnode.core.patients import COMPARED, STUDY, Difference, differences
from dicomnode.core.types import Header
from dicomnode.errors import AssociationRejectedError, DicomNodeError, PeerError, RequestFailedError, StoreError
from dicomnode.flow.repeating import Repeating
from dicomnode.net.part10 import read_file_meta
from dicomnode.net.query import FIND_CONTEXTS, Level, find
from dicomnode.net.scu import Association, Interruption, Opening, PeerAddress, associate
from dicomnode.store.database import Database
from dicomnode.store.files import FileStore
from dicomnode.store.index import checks
from dicomnode.store.index.checks import ToCheck
from dicomnode.telemetry import event

_POLL_S: Final = 1.0
_ROWS_AT_ONCE: Final = 500
_CLAIM_S: Final = 300.0
"""How long a series is ours once we look at it: longer than any question takes."""

_PAUSE_S: Final = 30.0
_LONGEST_PAUSE_S: Final = 1800.0
_LAST_S: Final = 0.5
_FOUND_WITHIN_S: Final = 900.0
"""How long a study that arrived there may take to be found: archives index late."""

_MOST_MATCHES: Final = 20


@dataclass(frozen=True)
class CheckRoute:
    """One destination as it is asked. `if_possible`: what it cannot be asked leaves unchecked."""

    name: str
    address: PeerAddress
    calling_ae: str
    if_possible: bool
    opening: Opening = field(default_factory=Opening)


class Checker(Repeating):
    """Asks one destination until it is stopped."""

    def __init__(
        self, database: Database, files: FileStore, route: CheckRoute, now: Callable[[], float] = time.time
    ) -> None:
        super().__init__(f"check {route.name}", _POLL_S, lambda _: self.check())
        self._database = database
        self._files = files
        self.route = route
        self._now = now
        self._interruption = Interruption()
        self._is_stopping = False
        self._opening = replace(route.opening, interruption=self._interruption)
        self._failures = 0

    def ask_stop(self) -> None:
        """Break off what is being asked; it is asked again."""
        self._is_stopping = True
        self._interruption.interrupt()

    def check(self) -> int:
        """Ask about what is due; how many series that were."""
        now = self._now()
        with self._database.read() as session:
            if not checks.is_due(session, self.route.name, now):
                return 0
        with self._database.write() as session:
            due = checks.claim(session, self.route.name, now, now + _CLAIM_S, _ROWS_AT_ONCE)
        left = list(due)
        try:
            with associate(self.route.address, self.route.calling_ae, FIND_CONTEXTS, self._opening) as association:
                while left:
                    self._ask(association, left[0])
                    del left[0]
            self._failures = 0
        except PeerError as error:
            self._put_off(left, error)
        return len(due)

    def _ask(self, association: Association, check: ToCheck) -> None:
        """Ask about one series; what the destination cannot do with it says nothing of the others."""
        try:
            matches = self._matches(association, check)
        except RequestFailedError as error:
            self._put_off([check], error)
            return
        self._settle(check, matches)

    def _matches(self, association: Association, check: ToCheck) -> list[Header]:
        keys = {STUDY: check.study_instance_uid, **dict.fromkeys(COMPARED, "")}
        found = find(association, Level.STUDY, keys, _MOST_MATCHES)
        # a peer that ignores the key answers with studies of others
        return [one for one in found if check.study_instance_uid in one.get(STUDY, ())]

    def _settle(self, check: ToCheck, matches: list[Header]) -> None:
        now = self._now()
        if not matches and now - check.waiting_since < _FOUND_WITHIN_S:
            with self._database.write() as session:
                checks.record(session, check, "the study is not found there yet", (), now)
                checks.put_off(session, check, now + _PAUSE_S)
            return
        try:
            found = differences(self._header(check), matches)
        except StoreError as error:  # no word of the destination's
            with self._database.write() as session:
                checks.record(session, check, f"our file cannot be read: {error}", (), now)
                checks.put_off(session, check, now + _PAUSE_S)
            return
        except (DicomNodeError, OSError) as error:
            self._keep_back(check, (Difference("(our file cannot be read)", type(error).__name__, ""),), now)
            return
        if found:
            self._keep_back(check, found, now)
            return
        with self._database.write() as session:
            checks.record(session, check, "same", (), now)
            checks.passed(session, check, now)

    def _header(self, check: ToCheck) -> Header:
        """What a derived object says of its patient and study."""
        self._files.bring([check.file])
        with self._files.path(check.file).open("rb") as file:
            meta = read_file_meta(file)
            file.seek(meta.offset_bytes)
            return scan_header(file, meta.transfer_syntax_uid, {*COMPARED, STUDY})

    def _keep_back(self, check: ToCheck, found: Collection[Difference], now: float) -> None:
        with self._database.write() as session:
            checks.record(session, check, "differs", tuple(found), now)
            count = checks.failed(session, check, tuple(found))
        event(
            "patient_differs",
            destination=self.route.name,
            series_id=check.series_row,
            series_instance_uid=check.series_instance_uid,
            instances=count,
            reason=f"differs: {', '.join(one.keyword for one in found)}",
        )

    def _put_off(self, left: list[ToCheck], error: PeerError) -> None:
        """What could not be asked waits, or leaves unchecked where that is allowed. The first, which may be what the
        destination breaks off at, goes last the next time."""
        now = self._now()
        if self._is_stopping:  # it is we who broke it off
            with self._database.write() as session:
                for check in left:
                    checks.put_off(session, check, now)
            return
        self._failures += 1
        refuses = isinstance(error, AssociationRejectedError)
        pause_s = min(_PAUSE_S * 2.0 ** (self._failures - 1), _LONGEST_PAUSE_S)
        with self._database.write() as session:
            for place, check in enumerate(left):
                if self.route.if_possible:
                    checks.record(session, check, f"left unchecked: {error}", (), now)
                    checks.passed(session, check, now)
                else:
                    checks.record(session, check, f"it could not be asked: {error}", (), now)
                    checks.put_off(session, check, now + pause_s + (_LAST_S if place == 0 else 0.0))
        event(
            "patient_not_checked",
            destination=self.route.name,
            address=str(self.route.address),
            retry_s=None if self.route.if_possible else pause_s,
            error=type(error).__name__,
            reason=str(error),
            hint=error.hint if not refuses else f"{error.hint}; or set check_patient = false",
        )
