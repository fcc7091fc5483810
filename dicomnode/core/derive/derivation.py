"""Derivation: all that is said of a derived object that its source does not say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from dicomnode import __version__
from dicomnode.core.identity import DEVICE_UID
from engines.card import SettingValue

ContentQualification = Literal["PRODUCT", "RESEARCH", "SERVICE"]


@dataclass(frozen=True, slots=True)
class SourceReference:
    """One source instance that influenced the object."""

    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class OtherSources:
    """Source instances of a series that an engine took beside the one that it enhances.

    at_place  the slice that lies where the object lies
    sources   all that influenced the object, that one among them
    """

    series_instance_uid: str
    at_place: SourceReference
    sources: tuple[SourceReference, ...]


@dataclass(frozen=True, slots=True)
class Stage:
    """One engine of the chain.

    reference  name@version
    digest     SHA-256 of its card or bundle, hex
    runtime    what computed it, with its precision
    operation  a key of `codes.DERIVATIONS`
    settings   resolved
    """

    reference: str
    digest: str
    runtime: str
    operation: str
    settings: Mapping[str, SettingValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Equipment:
    """What made the object (PS3.3 C.7.5.1). An empty text is not written.

    software_version  of the node; the engines' own follow it in Software Versions
    """

    manufacturer: str = "dicomnode"
    model_name: str = "dicomnode"
    software_version: str = __version__
    device_uid: str = DEVICE_UID
    device_serial_number: str = ""
    institution: str = ""
    station_name: str = ""


@dataclass(frozen=True, slots=True)
class SeriesLabel:
    """How the derived series shows in a list.

    description_prefix  put before the source's Series Description
    number_offset       Series Number = 1000 times the source's + this
    description_suffix  put after it; it is not cut off
    """

    description_prefix: str
    number_offset: int
    description_suffix: str = ""


@dataclass(frozen=True, slots=True)
class Derivation:
    """How one object was derived.

    stages                in the order they ran; at least one
    presentation          pixel values are for the eye only, 0 to 4095, whatever unit the source had
    sources               every instance of the enhanced series that influenced the object, its own slice among them
    others                of each other series that did
    content_qualification RESEARCH unless the deployment is a cleared device (PS3.3 C.8.13.2.1.1)
    created_at            with a time zone; written in the source's zone where that names one
    replaces              Series Instance UIDs of what this series takes the place of, after slices came late or changed
    note                  more for the derivation description, ASCII, without PHI
    comment               more for Image Comments, which viewers show, ASCII, without PHI
    """

    sop_instance_uid: str
    series_instance_uid: str
    series: SeriesLabel
    stages: tuple[Stage, ...]
    presentation: bool
    sources: tuple[SourceReference, ...]
    created_at: datetime
    equipment: Equipment = Equipment()
    content_qualification: ContentQualification = "RESEARCH"
    replaces: tuple[str, ...] = ()
    note: str = ""
    comment: str = ""
    others: tuple[OtherSources, ...] = ()
