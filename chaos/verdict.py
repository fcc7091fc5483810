"""Lost or doubled? A pure comparison of what was sent with what the destinations hold at the end."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Original:
    """An instance that a scanner sent and that was answered with success. `digest` is of its data set's bytes, or of
    its decoded pixels, whichever the destination keeps."""

    series_instance_uid: str
    digest: str


@dataclass(frozen=True, slots=True)
class Held:
    """One copy of an instance at a destination. `source` is the original that a derived one was made of, else ""."""

    sop_instance_uid: str
    series_instance_uid: str
    digest: str
    source: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Sentences without patient data; the first two have to be empty.

    lost        expected and not there
    doubled     there in two versions: one UID with two contents, or two derived objects of one original
    sent_twice  how many further copies with the same UID and the same content came: harmless, DICOM's own way
    """

    lost: tuple[str, ...]
    doubled: tuple[str, ...]
    sent_twice: int


def judged(expected: Mapping[str, Original], held: Sequence[Held]) -> Verdict:
    """What became of the expected originals at one destination; of each, one derived object is expected too.

    expected  by SOP Instance UID
    """
    copies: dict[str, list[Held]] = defaultdict(list)
    for copy in held:
        copies[copy.sop_instance_uid].append(copy)
    return Verdict(
        lost=tuple(_lost(expected, copies)),
        doubled=tuple(_doubled(expected, copies)),
        sent_twice=sum(len(each) - len({copy.digest for copy in each}) for each in copies.values()),
    )


def _lost(expected: Mapping[str, Original], copies: Mapping[str, Sequence[Held]]) -> list[str]:
    sources = {copy.source for each in copies.values() for copy in each if copy.source}
    said = []
    for uid, original in expected.items():
        digests = {copy.digest for copy in copies.get(uid, ())}
        if not digests:
            said.append(f"original {uid} of series {original.series_instance_uid} is not there")
        elif original.digest not in digests:
            said.append(f"original {uid} of series {original.series_instance_uid} is there, but changed")
        if uid not in sources:
            said.append(f"nothing derived of {uid} of series {original.series_instance_uid} is there")
    return said


def _doubled(expected: Mapping[str, Original], copies: Mapping[str, Sequence[Held]]) -> list[str]:
    said = [
        f"{uid} is there with {len(digests)} contents"
        for uid, each in copies.items()
        if len(digests := {copy.digest for copy in each}) > 1
    ]
    derived = {uid: each[0] for uid, each in copies.items() if each[0].source}
    for source, count in Counter(copy.source for copy in derived.values()).items():
        if count > 1:
            said.append(f"{count} objects were derived of {source}")
    series: dict[str, set[str]] = defaultdict(set)
    for copy in derived.values():
        if copy.source in expected:
            series[expected[copy.source].series_instance_uid].add(copy.series_instance_uid)
    said += [f"{len(each)} series were derived of series {uid}" for uid, each in series.items() if len(each) > 1]
    strangers = [uid for uid, each in copies.items() if not each[0].source and uid not in expected]
    return said + [f"{uid} is there, which nobody sent" for uid in strangers]
