"""Where a derived object comes from: its derivation, its sources, the equipment (PS3.3 C.7.6.1, C.12.1)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import Final

from pydicom.dataset import Dataset

from dicomnode.core.derive.codes import (
    ACQUISITION_EQUIPMENT,
    DERIVATIONS,
    OWN_SCHEME,
    PROCESSING_EQUIPMENT,
    REPLACED_SERIES,
    SOURCE_IMAGE,
    Code,
    encoded_code,
    encoded_own_scheme,
)  # fmt: skip
from dicomnode.core.derive.derivation import Derivation, Equipment, SourceReference, Stage
from dicomnode.core.derive.elements import (
    ascii_text,
    character_encodings,
    encoded_item,
    followed_by,
    held,
    our_text,
    put_encoded,
    tag_of,
    value_bytes,
)  # fmt: skip
from dicomnode.errors import UnsupportedError

_DID: Final = {
    "denoise": "Noise reduction",
    "contrast": "Contrast enhancement",
    "enhance": "Image enhancement",
    "super-resolution": "Resampling to a finer grid",
}
_ST_CHARACTERS: Final = 1024
_LO_CHARACTERS: Final = 64
_ZONE: Final = re.compile(r"([+-])(\d\d)([0-5]\d)")
_MAX_ZONE_HOURS: Final = 14

OF_THE_SOURCE: Final = (
    "Manufacturer", "InstitutionName", "InstitutionAddress", "StationName", "InstitutionalDepartmentName",
    "InstitutionalDepartmentTypeCodeSequence", "ManufacturerModelName", "DeviceSerialNumber", "DeviceUID",
    "UDISequence", "SoftwareVersions", "SpatialResolution", "DateOfLastCalibration", "TimeOfLastCalibration",
    "DateOfManufacture", "DateOfInstallation",
)  # fmt: skip
"""What an item of Contributing Equipment Sequence may say of General Equipment (PS3.3 C.12.1)."""


def require_known(stages: tuple[Stage, ...]) -> None:
    """Raises UnsupportedError for an operation that no derivation code is known for."""
    for stage in stages:
        if stage.operation not in DERIVATIONS:
            raise UnsupportedError(
                f"{stage.reference} does {stage.operation!r}, which no derived image is described by",
                f"operations are: {', '.join(sorted(DERIVATIONS))}",
            )


def local_time(created_at: datetime, source: Dataset) -> datetime:
    """The moment in the time zone that the source's dates and times are in, where it names one (C.12.1.1.8)."""
    zone = _ZONE.fullmatch(ascii_text(source, "TimezoneOffsetFromUTC"))
    if zone is None or int(zone[2]) > _MAX_ZONE_HOURS:
        return created_at
    offset = timedelta(hours=int(zone[2]), minutes=int(zone[3]))
    return created_at.astimezone(timezone(-offset if zone[1] == "-" else offset))


def put_derivation(image: Dataset, source: Dataset, derivation: Derivation, remarks: Iterable[str]) -> None:
    """Derivation Description and Code Sequence. What the source says of its own derivation follows as history."""
    said = [_sentence(stage) for stage in derivation.stages]
    if derivation.presentation:
        said.append("Grey values are for viewing only: they have no physical unit and are not HU.")
    said.extend(f"Replaces series {uid}." for uid in derivation.replaces)
    text = our_text(" ".join([*said, *remarks, derivation.note]).strip(), _ST_CHARACTERS)
    history = value_bytes(source, "DerivationDescription")
    if history:
        text = f"{text} Source: "
    encodings = character_encodings(source)
    put_encoded(image, "DerivationDescription", followed_by(text, history, encodings, _ST_CHARACTERS))
    codes = [_code(stage) for stage in derivation.stages]
    put_encoded(image, "DerivationCodeSequence", b"".join(map(encoded_code, codes)))
    schemes = value_bytes(source, "CodingSchemeIdentificationSequence")
    if derivation.replaces or any(code.scheme == OWN_SCHEME for code in codes):
        put_encoded(image, "CodingSchemeIdentificationSequence", schemes + encoded_own_scheme())


def put_sources(image: Dataset, source: Dataset, derivation: Derivation, *, same_grid: bool) -> None:
    """Source Image Sequence: the slice at the image's own place first, and those of other series there; then all others
    that influenced it, whose pixels lie elsewhere. Referenced Series Sequence says in which series they are.

    same_grid  whether the image's pixels are the source's, one by one: else no place in a source is one in the image
    """
    own = ascii_text(source, "SOPInstanceUID")
    preserved = "YES" if same_grid else "NO"
    ours = [reference for reference in derivation.sources if reference.sop_instance_uid == own]
    here = [_reference(one, preserved) for one in (*ours, *(other.at_place for other in derivation.others))]
    away = _beside(derivation.sources, own)
    for other in derivation.others:
        away += _beside(other.sources, other.at_place.sop_instance_uid)
    put_encoded(image, "SourceImageSequence", b"".join([*here, *away]))
    by_series = {ascii_text(source, "SeriesInstanceUID"): derivation.sources}
    for other in derivation.others:
        by_series[other.series_instance_uid] = (*by_series.get(other.series_instance_uid, ()), *other.sources)
    series = [_in_series(uid, sources) for uid, sources in by_series.items()]
    already = value_bytes(source, "ReferencedSeriesSequence")  # of localizers, which stay referenced
    put_encoded(image, "ReferencedSeriesSequence", b"".join([already, *series]))


def _beside(sources: tuple[SourceReference, ...], own: str) -> list[bytes]:
    """All sources but the one at the image's place."""
    if len(sources) == 1:
        return []
    items = zip(sources, _elsewhere(sources), strict=True)
    return [item for reference, item in items if reference.sop_instance_uid != own]


def put_replaced(image: Dataset, source: Dataset, replaces: tuple[str, ...]) -> None:
    """Related Series Sequence (PS3.3 C.7.3.1): the series that this one takes the place of."""
    if not replaces:
        return
    items = []
    for uid in replaces:
        item = Dataset()
        item.StudyInstanceUID = ascii_text(source, "StudyInstanceUID")
        item.SeriesInstanceUID = uid
        put_encoded(item, "PurposeOfReferenceCodeSequence", encoded_code(REPLACED_SERIES))
        items.append(encoded_item(item))
    put_encoded(image, "RelatedSeriesSequence", value_bytes(source, "RelatedSeriesSequence") + b"".join(items))


def put_equipment(image: Dataset, source: Dataset, derivation: Derivation, created: datetime) -> None:
    """General Equipment is ours; the source's becomes an item of Contributing Equipment Sequence, before ours."""
    ours = _our_equipment(derivation.equipment, derivation.stages)
    image.update(ours)
    contribution = Dataset()
    contribution.update(ours)
    contribution.ContributionDateTime = created.strftime("%Y%m%d%H%M%S.%f%z")
    details = "; ".join(f"{stage.reference} on {stage.runtime}, SHA-256 {stage.digest}" for stage in derivation.stages)
    contribution.ContributionDescription = our_text(details, _ST_CHARACTERS)
    put_encoded(contribution, "PurposeOfReferenceCodeSequence", encoded_code(PROCESSING_EQUIPMENT))
    kept = value_bytes(source, "ContributingEquipmentSequence")
    put_encoded(image, "ContributingEquipmentSequence", kept + _equipment_of(source, kept) + encoded_item(contribution))


def _sentence(stage: Stage) -> str:
    settings = ", ".join(f"{name}={value}" for name, value in sorted(stage.settings.items()))
    return f"{_DID[stage.operation]} by {stage.reference} ({'; '.join(filter(None, [stage.runtime, settings]))})."


def _code(stage: Stage) -> Code:
    return DERIVATIONS[stage.operation]


def _reference(reference: SourceReference, spatial_locations_preserved: str) -> bytes:
    item = Dataset()
    _put_instance(item, reference)
    put_encoded(item, "SpatialLocationsPreserved", spatial_locations_preserved.encode("ascii"))
    put_encoded(item, "PurposeOfReferenceCodeSequence", encoded_code(SOURCE_IMAGE))
    return encoded_item(item)


@lru_cache(maxsize=8)  # all slices of a volume engine's output refer to the same sources
def _elsewhere(sources: tuple[SourceReference, ...]) -> tuple[bytes, ...]:
    return tuple(_reference(reference, "NO") for reference in sources)


@lru_cache(maxsize=8)
def _in_series(series_instance_uid: str, sources: tuple[SourceReference, ...]) -> bytes:
    instances = []
    for reference in sources:
        instance = Dataset()
        _put_instance(instance, reference)
        instances.append(encoded_item(instance))
    item = Dataset()
    put_encoded(item, "SeriesInstanceUID", series_instance_uid.encode("ascii"))
    put_encoded(item, "ReferencedInstanceSequence", b"".join(instances))
    return encoded_item(item)


def _put_instance(item: Dataset, reference: SourceReference) -> None:
    put_encoded(item, "ReferencedSOPClassUID", reference.sop_class_uid.encode("ascii"))
    put_encoded(item, "ReferencedSOPInstanceUID", reference.sop_instance_uid.encode("ascii"))


def _our_equipment(equipment: Equipment, stages: tuple[Stage, ...]) -> Dataset:
    versions = [f"dicomnode {equipment.software_version}", *(f"{one.reference} {one.digest[:16]}" for one in stages)]
    ours = Dataset()
    ours.Manufacturer = our_text(equipment.manufacturer, _LO_CHARACTERS)
    ours.ManufacturerModelName = our_text(equipment.model_name, _LO_CHARACTERS)
    ours.SoftwareVersions = [our_text(version, _LO_CHARACTERS) for version in versions]
    ours.DeviceUID = equipment.device_uid
    optional = {
        "DeviceSerialNumber": (equipment.device_serial_number, _LO_CHARACTERS),
        "InstitutionName": (equipment.institution, _LO_CHARACTERS),
        "StationName": (equipment.station_name, 16),
    }
    for keyword, (text, characters) in optional.items():
        if text:
            setattr(ours, keyword, our_text(text, characters))
    return ours


def _equipment_of(source: Dataset, contributed: bytes) -> bytes:
    """The source's General Equipment as an item: of the scanner, unless an earlier item already is the scanner's."""
    item = Dataset()
    for keyword in OF_THE_SOURCE:
        element = held(source, tag_of(keyword))
        if element is not None and value_bytes(source, keyword):
            item[element.tag] = element
    if "Manufacturer" not in item:
        item.Manufacturer = "unknown"  # type 1 here, type 2 in General Equipment
    scanner_is_known = ACQUISITION_EQUIPMENT.value.encode() in contributed
    purpose = PROCESSING_EQUIPMENT if scanner_is_known else ACQUISITION_EQUIPMENT
    put_encoded(item, "PurposeOfReferenceCodeSequence", encoded_code(purpose))
    return encoded_item(item)
