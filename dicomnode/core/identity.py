"""Who we are, and which UID a derived object has: computed from what it is made of, never drawn (PS3.5 B.2).

Equal sources, engines, runtime and settings give equal UIDs, on any machine and at any time: a retry, a re-send or a
lost index cannot put a second copy into a PACS. A job, an attempt, a time or a machine never enters; nor does anything
of the patient or the study, so that a corrected name changes no UID.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from dicomnode import __version__
from engines.card import SettingValue

Influence = Literal["slice", "volume"]

INSTANCE_CREATOR_UID: Final = "2.25.27985235285766896132734069681833276190"
"""Instance Creator UID (0008,0014) of everything that this software derives, whatever the installation or version."""

IMPLEMENTATION_CLASS_UID: Final = "2.25.161037842985034690909949933189164720058"
IMPLEMENTATION_VERSION_NAME: Final = f"DICOMNODE_{__version__}"[:16]
"""At most 16 characters (PS3.7 D.3.3.2.3)."""

DEVICE_UID: Final = "2.25.337438070003620550375295643927267767962"
"""Device UID (0018,1002) of an installation that was not given its own."""

CODING_SCHEME_UID: Final = "2.25.79601373882658830496905771841980744559"
"""Coding Scheme UID (0008,010C) of the codes that DICOM lacks and we had to make."""

IMAGE_ROLE: Final = "image"
"""Output role of a derived image series."""

_NAMESPACE: Final = uuid.UUID("71d02f3b-a989-4545-ab6f-32a5df99019b")
"""Fixed for ever: another value would give everything ever derived a second UID."""

_UID: Final = re.compile(r"[0-9]+(?:\.[0-9]+)*")
_UID_CHARACTERS: Final = 64


@dataclass(frozen=True, slots=True, order=True)
class SourceInstance:
    """One source of a derived object.

    digest  SHA-256 of its decoded stored values and of the attributes an engine reads: the same after transcoding
    """

    sop_instance_uid: str
    digest: str


@dataclass(frozen=True, slots=True)
class StageIdentity:
    """One engine of a chain, as far as it decides what comes out.

    digest     of the bundle as its maker sealed it, whatever our own limits and defaults are by now; of a classical
               engine, which comes with us, of its card
    influence  slice: an output slice depends on its own input slice alone; volume: on all of them
    runtime    what computes it, with its precision
    settings   resolved: every setting with its value
    """

    digest: str
    influence: Influence
    runtime: str
    settings: Mapping[str, SettingValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OtherSeries:
    """A stack that engines took beside the one that they enhance.

    input   which input of theirs it was
    series  its (Series Instance UID, stack key)
    stack   its slices: of one object those that can influence it, of a series all
    """

    input: str
    series: tuple[str, str]
    stack: tuple[SourceInstance, ...]


def is_valid_uid(text: str) -> bool:
    """True for 1 to 64 digits and single dots (PS3.5 9.1). Leading zeros are let pass: real scanners write them."""
    return len(text) <= _UID_CHARACTERS and _UID.fullmatch(text) is not None


def chain_influence(stages: Sequence[StageIdentity]) -> Influence:
    """slice when every stage works slice by slice; one volume engine anywhere makes the whole chain volume."""
    return "volume" if any(stage.influence == "volume" for stage in stages) else "slice"


def derived_sop_instance_uid(
    own: SourceInstance,
    stack: Collection[SourceInstance],
    role: str,
    stages: Sequence[StageIdentity],
    others: Sequence[OtherSeries] = (),
) -> str:
    """SOP Instance UID of the object at `own`'s place.

    own     the source slice that lies where the derived slice lies
    stack   all sources of the stack, in any order; they enter only if a stage's influence is volume
    role    which output this is, such as `IMAGE_ROLE`
    others  with the slices that can influence this object
    """
    sources = stack if chain_influence(stages) == "volume" else (own,)
    parts = {"own": _source(own), "role": role, "sources": _sources(sources), "stages": _stages(stages)}
    return named_uid(parts | _others([[one.input, _sources(one.stack)] for one in others]))


def derived_series_instance_uid(
    source_series: tuple[str, str],
    stack: Collection[SourceInstance],
    role: str,
    stages: Sequence[StageIdentity],
    others: Sequence[OtherSeries] = (),
) -> str:
    """Series Instance UID of what is derived from one stack.

    source_series  (Series Instance UID, stack key) of the sources
    stack          all sources of the stack, in any order. They enter only if a stage's influence is volume: so a late
                   slice joins a slice-wise series, and makes a new series where it changes every slice
    others         with all their slices, which enter like those of `stack`
    """
    by_volume = chain_influence(stages) == "volume"
    sources = stack if by_volume else ()
    parts = {"series": source_series, "role": role, "sources": _sources(sources), "stages": _stages(stages)}
    told = [[one.input, one.series, _sources(one.stack if by_volume else ())] for one in others]
    return named_uid(parts | _others(told))


def rejection_note_uids(title: str, sop_instance_uids: Collection[str]) -> tuple[str, str]:
    """Series and SOP Instance UID of the note that rejects these instances under a title (a code value): said again, to
    the same or another destination, it is the same object."""
    parts = {"title": title, "rejected": sorted(set(sop_instance_uids))}
    return named_uid({"role": "rejection series", **parts}), named_uid({"role": "rejection", **parts})


def _source(source: SourceInstance) -> list[str]:
    return [source.sop_instance_uid, source.digest]


def _sources(sources: Collection[SourceInstance]) -> list[list[str]]:
    return [_source(source) for source in sorted(set(sources))]


def _others(told: list[list[Any]]) -> dict[str, Any]:
    """Nothing where there are none: what was derived before engines took several series keeps its UIDs."""
    return {"others": sorted(told)} if told else {}


def _stages(stages: Sequence[StageIdentity]) -> list[dict[str, Any]]:
    return [
        {"digest": stage.digest, "runtime": stage.runtime, "settings": dict(stage.settings)} for stage in stages
    ]  # influence is part of what the digest covers


def named_uid(parts: Mapping[str, Any]) -> str:
    """2.25 and the decimal of a name-based UUID (RFC 9562, version 5) of the parts in canonical JSON."""
    name = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return f"2.25.{uuid.uuid5(_NAMESPACE, name).int}"
