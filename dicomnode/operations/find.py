"""find: what does a peer hold?"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from dicomnode.config import Config
from dicomnode.core.types import Header
from dicomnode.errors import UsageError
from dicomnode.net.query import FIND_CONTEXTS, Level, find
from dicomnode.net.scu import Opening, Timeouts, associate
from dicomnode.operations.peers import address_of
from dicomnode.operations.terminal import printable_lines
from dicomnode.operations.trace import peer_trace

__all__ = ["FindAnswer", "Level", "Query", "search"]

_TIMEOUTS: Final = Timeouts(connect_s=10.0, associate_s=10.0, response_s=120.0)
_DATE: Final = re.compile(r"(\d{8})?-?(\d{8})?")
_SHOWN: Final = {
    Level.PATIENT: ("PatientID", "PatientName", "PatientBirthDate"),
    Level.STUDY: (
        "StudyDate", "AccessionNumber", "PatientID", "PatientName", "ModalitiesInStudy", "StudyDescription",
        "NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances", "StudyInstanceUID",
    ),
    Level.SERIES: (
        "SeriesNumber", "Modality", "SeriesDescription", "NumberOfSeriesRelatedInstances", "SeriesInstanceUID",
    ),
    Level.IMAGE: ("InstanceNumber", "SOPClassUID", "SOPInstanceUID"),
}  # fmt: skip
"""What is asked for and shown of each match, in this order."""
_NOUNS: Final = {
    Level.PATIENT: ("patient", "patients"),
    Level.STUDY: ("study", "studies"),
    Level.SERIES: ("series", "series"),
    Level.IMAGE: ("image", "images"),
}
_MODALITY: Final = {Level.STUDY: "ModalitiesInStudy", Level.SERIES: "Modality"}


@dataclass(frozen=True, slots=True)
class Query:
    """What to look for: values as C-FIND takes them, with `*` and `?`; "" matches anything.

    date  YYYYMMDD, or a range of them: 20261101-20261130, 20261101-, -20261130
    most  how many matches to tell
    """

    level: Level = Level.STUDY
    patient_id: str = ""
    patient_name: str = ""
    accession: str = ""
    study: str = ""
    series: str = ""
    modality: str = ""
    date: str = ""
    most: int = 200

    def keys(self) -> dict[str, str]:
        """Keys of the query. Raises UsageError where its level needs others (PS3.4 C.4.1.2.1)."""
        if not _DATE.fullmatch(self.date):
            raise UsageError(f"{self.date!r} is no date", "write 20261121, 20261101-20261130, 20261101- or -20261130")
        if self.level in (Level.SERIES, Level.IMAGE) and not self.study:
            raise UsageError(f"a query for {self.level.lower()}s needs a study", "add --study UID")
        if self.level is Level.IMAGE and not self.series:
            raise UsageError("a query for images needs a series", "add --series UID")
        asked = {
            "PatientID": self.patient_id,
            "PatientName": self.patient_name,
            "AccessionNumber": self.accession,
            "StudyInstanceUID": self.study,
            "SeriesInstanceUID": self.series,
            "StudyDate": self.date,
            _MODALITY.get(self.level, "Modality"): self.modality,
        }
        return dict.fromkeys(_SHOWN[self.level], "") | {keyword: text for keyword, text in asked.items() if text}


@dataclass(frozen=True, slots=True)
class FindAnswer:
    """What a peer told. `is_all` is False where there was more than was wanted."""

    peer: str
    level: Level
    matches: tuple[Header, ...]
    is_all: bool

    def to_json(self) -> Mapping[str, Any]:
        return {
            "peer": self.peer,
            "level": self.level.value,
            "matches": [{keyword: list(values) for keyword, values in match.items()} for match in self.matches],
            "is_all": self.is_all,
        }

    def lines(self) -> Sequence[str]:
        one, several = _NOUNS[self.level]
        head = f"{self.peer}: {len(self.matches)} {one if len(self.matches) == 1 else several}"
        more = () if self.is_all else ("there are more: narrow the query, or raise --most",)
        return printable_lines((head, *_table(self.level, self.matches), *more))


def search(config: Config, peer: str, query: Query) -> FindAnswer:
    """Ask a configured peer by C-FIND. Raises NotFoundError, ConfigError, UsageError, PeerError."""
    keys = query.keys()
    opening = Opening(_TIMEOUTS, trace=peer_trace(config, peer))
    address = address_of(config, peer)
    with associate(address, config.node.ae_title, FIND_CONTEXTS, opening) as association:
        answers = find(association, query.level, keys)
        with closing(answers):
            matches = tuple(islice(answers, query.most + 1))
    return FindAnswer(peer, query.level, matches[: query.most], len(matches) <= query.most)


def _table(level: Level, matches: Sequence[Header]) -> Sequence[str]:
    """The matches in columns, without those that no match has anything in."""
    rows = [["\\".join(match.get(keyword, ())) for keyword in _SHOWN[level]] for match in matches]
    kept = [number for number, _ in enumerate(_SHOWN[level]) if any(row[number] for row in rows)]
    table = [[_SHOWN[level][number] for number in kept], *([row[number] for number in kept] for row in rows)]
    if not rows:
        return ()
    widths = [max(len(row[column]) for row in table) for column in range(len(kept))]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in table]
