"""From an engine's result at rest to derived DICOM files: one for each source slice, all of one series."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import ExplicitVRLittleEndian

from dicomnode.core.derive.derivation import (
    ContentQualification,
    Derivation,
    Equipment,
    OtherSources,
    SeriesLabel,
    SourceReference,
    Stage,
)
from dicomnode.core.derive.grid import factor_of
from dicomnode.core.derive.image import PRESENTATION_BITS, PixelGrid, presentation_padding
from dicomnode.core.derive.series import DerivedSeries
from dicomnode.core.headers import value
from dicomnode.core.identity import (
    IMAGE_ROLE,
    OtherSeries,
    SourceInstance,
    StageIdentity,
    chain_influence,
    derived_series_instance_uid,
    derived_sop_instance_uid,
    is_valid_uid,
)
from dicomnode.core.types import Header
from dicomnode.core.volumes import PIXEL_KEYWORDS, SlicePixels, Stored, slice_pixels, to_stored, valid_mask
from dicomnode.errors import InputError
from dicomnode.pixels.decode import decode
from dicomnode.pixels.read import read_dataset, read_header
from engines.volume import HU, load_volume

_KEYWORDS: Final = (*PIXEL_KEYWORDS, "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID")
_HIGHEST: Final = (1 << PRESENTATION_BITS) - 1


@dataclass(frozen=True, slots=True)
class _Source:
    """One source slice: its file, what its pixels mean, and who it is."""

    path: Path
    header: Header
    instance: SourceInstance

    @property
    def reference(self) -> SourceReference:
        return SourceReference(value(self.header, "SOPClassUID"), self.instance.sop_instance_uid)


@dataclass(frozen=True, slots=True)
class _Other:
    """Another stack that the engines took, a slice at the place of each source."""

    input: str
    stack_key: str
    stack: tuple[_Source, ...]

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> _Other:
        stack = zip(told["sources"], told["digests"], strict=True)
        return cls(told["input"], told["stack_key"], tuple(_source(Path(path), digest) for path, digest in stack))

    @property
    def series_instance_uid(self) -> str:
        return value(self.stack[0].header, "SeriesInstanceUID")

    def identity(self, slices: Sequence[_Source]) -> OtherSeries:
        series = self.series_instance_uid, self.stack_key
        return OtherSeries(self.input, series, tuple(one.instance for one in slices))

    def sources(self, index: int, slices: Sequence[_Source]) -> OtherSources:
        """What the object at the place of slice `index` says of those of `slices` that influenced it."""
        references = tuple(one.reference for one in slices)
        return OtherSources(self.series_instance_uid, self.stack[index].reference, references)


@dataclass(frozen=True, slots=True)
class _Chain:
    """The engines that made the result, as identity and as provenance see them."""

    identity: tuple[StageIdentity, ...]
    stages: tuple[Stage, ...]
    presentation: bool

    @property
    def engines(self) -> str:
        return "+".join(stage.reference.partition("@")[0] for stage in self.stages)


def derive_stack(
    *,
    sources: Sequence[str],
    digests: Sequence[str],
    stack_key: str,
    result: str,
    stages: Sequence[Mapping[str, Any]],
    series: Mapping[str, Any],
    equipment: Mapping[str, Any],
    content_qualification: str,
    created_at: float,
    out: str,
    note: str = "",
    comment: str = "",
    replaces: Sequence[str] = (),
    output: str = "",
    others: Sequence[Mapping[str, Any]] = (),
    part: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """Write the derived files of one stack into the existing folder `out`; arguments and result are JSON values.

    sources     files of the source slices, sorted by position; `digests`: `source_digest` of each
    stack_key   of the stack that they are
    result      folder of the engines' output (`engines.volume.save_volume`), a slice for each source
    output      the output's name, where it is not the last engine's first
    stages      what ran, in order: engine, version, card_digest, bundle (its digest; empty for a classical engine),
                runtime, operation, influence, settings, presentation
    series      description_prefix, to which the engines' names and the output's are added, and number_offset (see
                `SeriesLabel`); description_suffix and preset, a few words after these names, are optional
    equipment   fields of `Equipment`, each optional
    created_at  seconds since the epoch; with the node's time zone all that changes bytes from one run to the next
    note        more for the Derivation Description, without PHI; `comment`: more for Image Comments
    replaces    Series Instance UIDs of what was derived of the stack before; the derived series' own is passed over
    others      each other stack that the engines took: input, stack_key, sources and digests, a slice for each source
    part        the slices to write, from the first to before the second; None: all. Parts may be written side by side

    Returns series_instance_uid, and instances: path, sop_instance_uid, sop_class_uid, transfer_syntax_uid and
    source_sop_instance_uid of each that was written; whoever stores the files forces them to the disk. Raises
    InputError and UnsupportedError where a source cannot be derived from.
    """
    chain = _chain(stages)
    stack = tuple(_source(Path(path), digest) for path, digest in zip(sources, digests, strict=True))
    volume = load_volume(Path(result))
    if volume.voxels.shape[0] != len(stack):
        raise InputError(
            f"the result has {volume.voxels.shape[0]} slices, its stack {len(stack)}", "this is a defect: report it"
        )
    beside = [_Other.of(one) for one in others]
    instances, role = [one.instance for one in stack], output or IMAGE_ROLE
    series_instance_uid = derived_series_instance_uid(
        (value(stack[0].header, "SeriesInstanceUID"), stack_key), instances, role, chain.identity,
        [one.identity(one.stack) for one in beside],
    )  # fmt: skip
    common = Derivation(
        sop_instance_uid="",  # of each slice its own
        series_instance_uid=series_instance_uid,
        series=_label(series, chain, output, stack[0].header),
        stages=chain.stages,
        presentation=chain.presentation,
        sources=tuple(one.reference for one in stack),
        created_at=datetime.fromtimestamp(created_at, UTC).astimezone(),
        equipment=Equipment(**equipment),
        content_qualification=cast(ContentQualification, content_qualification),
        replaces=tuple(uid for uid in replaces if uid != series_instance_uid),
        note=note,
        comment=comment,
    )
    by_slice = chain_influence(chain.identity) == "slice"
    images, made = DerivedSeries(), []
    for index in range(*(part or (0, len(stack)))):
        one = stack[index]
        taken = [(other, other.stack[index : index + 1] if by_slice else other.stack) for other in beside]
        identities = [other.identity(slices) for other, slices in taken]
        derivation = replace(
            common,
            sop_instance_uid=derived_sop_instance_uid(one.instance, instances, role, chain.identity, identities),
            sources=(one.reference,) if by_slice else common.sources,
            others=tuple(other.sources(index, slices) for other, slices in taken),
        )
        path = Path(out) / f"{index:06d}.dcm"
        _write_image(path, one, volume.voxels[index], derivation, images)
        made.append(_written(path, derivation, one))
    return {"series_instance_uid": common.series_instance_uid, "instances": made}


def _written(path: Path, derivation: Derivation, source: _Source) -> dict[str, str]:
    return {
        "path": str(path),
        "sop_instance_uid": derivation.sop_instance_uid,
        "sop_class_uid": source.reference.sop_class_uid,  # same class in, same class out
        "transfer_syntax_uid": str(ExplicitVRLittleEndian),
        "source_sop_instance_uid": source.instance.sop_instance_uid,
    }


def _chain(stages: Sequence[Mapping[str, Any]]) -> _Chain:
    return _Chain(
        identity=tuple(
            StageIdentity(_digest(stage), stage["influence"], stage["runtime"], stage["settings"]) for stage in stages
        ),
        stages=tuple(
            Stage(
                reference=f"{stage['engine']}@{stage['version']}",
                digest=_digest(stage),
                runtime=stage["runtime"],
                operation=stage["operation"],
                settings=stage["settings"],
            )
            for stage in stages
        ),
        presentation=any(stage["presentation"] for stage in stages),  # what lost its unit never finds it again
    )


def _digest(stage: Mapping[str, Any]) -> str:
    """What an engine is known by: the bundle that its maker sealed. The card as we read it holds the house's limits and
    defaults too, which may change from one release to the next; a classical engine changes with it."""
    return str(stage.get("bundle") or stage["card_digest"])  # a result of an earlier release tells no bundle


def _source(path: Path, digest: str) -> _Source:
    header = read_header(path, _KEYWORDS)
    sop_instance_uid = value(header, "SOPInstanceUID")
    if not is_valid_uid(sop_instance_uid):
        raise InputError(
            "a source has no valid SOP Instance UID", "the object breaks PS3.5 9.1: report it to its vendor"
        )
    return _Source(path, header, SourceInstance(sop_instance_uid, digest))


def _label(series: Mapping[str, Any], chain: _Chain, output: str, header: Header) -> SeriesLabel:
    """The engines are named, for two series of one source are told apart by it; and what looks like HU but is not."""
    not_hu = "not HU " if chain.presentation and slice_pixels(header).unit == HU else ""
    made = f"{chain.engines} {output}".rstrip()
    return SeriesLabel(
        description_prefix=f"{series['description_prefix']}{made} {series.get('preset', '')}{not_hu}",
        number_offset=int(series["number_offset"]),
        description_suffix=series.get("description_suffix", ""),
    )


def _write_image(
    path: Path, source: _Source, voxels: NDArray[np.float32], derivation: Derivation, series: DerivedSeries
) -> None:
    """Write the file of one derived image; to force it to the disk is left to whoever stores it."""
    dataset, pixels = read_dataset(source.path, with_pixels=True), slice_pixels(source.header)
    grid = PixelGrid(voxels.shape, np.dtype(np.uint16) if derivation.presentation else _stored_type(source.header))
    padding = presentation_padding(dataset)
    start = series.encode_start(dataset, grid, derivation)  # before decoding: the source's bytes are to be copied
    stored = decode(dataset)
    factor = factor_of((stored.shape[0], stored.shape[1]), voxels.shape)
    if factor > 1:  # each pixel of the source says of those that it became whether they were measured
        stored = stored.repeat(factor, axis=0).repeat(factor, axis=1)
    if derivation.presentation:
        values: NDArray[Any] = presentation_values(voxels, stored, pixels, padding)
    else:
        values = to_stored(voxels, stored, pixels)
    with path.open("xb") as file:
        file.write(start)
        file.write(np.ascontiguousarray(values, grid.dtype.newbyteorder("<")).data.cast("B"))
        file.write(bytes(file.tell() % 2))


def _stored_type(header: Header) -> np.dtype[Any]:
    bits = 8 if value(header, "BitsAllocated") == "8" else 16
    return np.dtype(f"{'i' if value(header, 'PixelRepresentation') == '1' else 'u'}{bits // 8}")


def presentation_values(
    levels: NDArray[np.float32], source: Stored, pixels: SlicePixels, padding: int
) -> NDArray[np.uint16]:
    """12-bit stored values of a presentation image from levels of 0 to 4095, larger is brighter.

    source, pixels  the stored values that the slice came with, and what they mean
    padding         written where the source is padded, and nowhere else if the source declares any padding

    Raises InputError where a level is not finite.
    """
    if not np.isfinite(levels).all():
        raise InputError("values that are not finite cannot be stored", "the engine's output is broken: report it")
    values: NDArray[np.uint16] = np.rint(levels.clip(0, _HIGHEST)).astype(np.uint16)
    if pixels.inverted:
        values = _HIGHEST - values
    if pixels.padding is not None:
        values = values.clip(*((1, _HIGHEST) if padding == 0 else (0, _HIGHEST - 1)))
    measured = valid_mask(source, pixels)
    if measured is not None:
        values[~measured] = padding
    return values


def write_file(image: Dataset, path: Path) -> None:
    """Write a Part 10 file that is on the disk when this returns."""
    with path.open("xb") as file:
        dcmwrite(file, image, enforce_file_format=True)
        file.flush()
        os.fsync(file.fileno())
