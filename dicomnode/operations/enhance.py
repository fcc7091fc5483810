"""`dicomnode enhance`: files to files, by the same stacks, gates, engines and derivation as in the node."""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from dicomnode.core.headers import value
from dicomnode.core.rules import is_derived_by_us
from dicomnode.core.rules.facts import GUARD_KEYWORDS
from dicomnode.core.stacks import STACK_KEYWORDS, slice_of, split_stacks
from dicomnode.core.types import Slice, Stack
from dicomnode.errors import DicomNodeError, EngineError, InputError, NotFoundError, UsageError
from dicomnode.inference.service import run_chain
from dicomnode.operations.files import dicom_files
from dicomnode.operations.terminal import printable_lines
from dicomnode.operations.wording import gate_sentences
from dicomnode.pixels.encode import derive_stack
from dicomnode.pixels.read import quiet_pydicom, read_header
from dicomnode.pixels.service import decode_stack
from dicomnode.settings import DerivedSettings
from engines.card import SettingValue
from engines.registry import default_registry

Progress = Callable[[str, int, int], None]

_DERIVED: Final = DerivedSettings()
_KEYWORDS: Final = STACK_KEYWORDS | GUARD_KEYWORDS | {"SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID"}


@dataclass(frozen=True)
class StackReport:
    """What became of one stack. `state`: derived, skipped, refused, withheld or failed."""

    source_series: str
    stack: str
    slices: int
    state: str
    reasons: tuple[str, ...] = ()
    derived_series: str = ""
    folder: str = ""
    gates: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class EnhanceReport:
    """What became of each stack found, and which files were no DICOM images."""

    engine: str
    stacks: tuple[StackReport, ...]
    unreadable: tuple[str, ...]

    @property
    def failed(self) -> bool:
        """Nothing was derived."""
        return not any(stack.state == "derived" for stack in self.stacks)

    @property
    def partly(self) -> bool:
        """Something was derived, and something else was not though it might have been."""
        return not self.failed and (
            bool(self.unreadable) or any(stack.state not in ("derived", "skipped") for stack in self.stacks)
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> Sequence[str]:
        return printable_lines(
            (
                *(line for stack in self.stacks for line in _stack_lines(stack)),
                *(f"not read: {reason}" for reason in self.unreadable),
            )
        )


@dataclass(frozen=True)
class _Work:
    """One stack to be enhanced into a folder of its own."""

    series: str
    stack: Stack
    paths: tuple[Path, ...]
    folder: Path


def enhance_folder(
    source: Path,
    target: Path,
    engine: str,
    settings: Mapping[str, SettingValue],
    progress: Progress,
    derived: DerivedSettings = _DERIVED,
) -> EnhanceReport:
    """Run one engine on every stack in a file or folder, and write a derived series for each into `target`.

    `derived` is what the derived series say of themselves.

    Raises EngineNotFoundError, SettingError; UsageError where `target` is not empty; NotFoundError where there is
    nothing to read.
    """
    quiet_pydicom()
    card = default_registry().get(engine).card
    resolved = card.resolve(settings)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{target} is not empty", "name a folder that is new or empty: nothing is overwritten")
    slices, unreadable = _read(dicom_files(source))
    if not slices:
        raise NotFoundError(f"there is no DICOM image in {source}", "name a folder of DICOM files")
    reports: list[StackReport] = []
    works = list(_works(slices, target))
    target.mkdir(parents=True, exist_ok=True)  # where it cannot be made, say so before the work
    for done, work in enumerate(works):
        progress(f"{card.reference}", done, len(works))
        reports.append(_enhance(work, {"engine": engine, "settings": resolved}, derived))
    progress(f"{card.reference}", len(works), len(works))
    return EnhanceReport(card.reference, tuple(reports), tuple(unreadable))


def _read(paths: Sequence[Path]) -> tuple[list[tuple[Path, Slice]], list[str]]:
    slices, unreadable = [], []
    for index, path in enumerate(paths):
        try:
            header = read_header(path, _KEYWORDS)
        except InputError as error:
            unreadable.append(f"{path.name}: {error}")
            continue
        uid, sop_class = value(header, "SOPInstanceUID"), value(header, "SOPClassUID")
        slices.append((path, slice_of(index, uid, sop_class, header)))
    return slices, unreadable


def _works(slices: Sequence[tuple[Path, Slice]], target: Path) -> Iterator[_Work]:
    by_series: dict[str, list[tuple[Path, Slice]]] = defaultdict(list)
    for path, one in slices:
        by_series[value(one.header, "SeriesInstanceUID")].append((path, one))
    number = 0
    for series, members in sorted(by_series.items()):
        path_of = {one.instance_id: path for path, one in members}
        for stack in split_stacks([one for _, one in members]):
            number += 1
            paths = tuple(path_of[one.instance_id] for one in stack.slices)
            yield _Work(series, stack, paths, target / f"series-{number:03d}")


def _enhance(work: _Work, stage: Mapping[str, Any], derived: DerivedSettings) -> StackReport:
    started = time.monotonic()
    told = {"source_series": work.series, "stack": work.stack.key, "slices": len(work.paths)}
    reason = work.stack.excluded or (
        "derived by this software: never enhanced again"
        if any(is_derived_by_us(one.header) for one in work.stack.slices)
        else ""
    )
    if reason:
        return StackReport(**told, state="skipped", reasons=(reason,))  # type: ignore[arg-type]
    try:
        with tempfile.TemporaryDirectory() as scratch:
            report = _run(work, stage, derived, Path(scratch))
    except (DicomNodeError, EngineError) as error:
        return StackReport(**told, state="failed", reasons=(str(error), error.hint))  # type: ignore[arg-type]
    return StackReport(**told, **report, seconds=time.monotonic() - started)  # type: ignore[arg-type]


def _run(work: _Work, stage: Mapping[str, Any], derived: DerivedSettings, scratch: Path) -> dict[str, Any]:
    volume, out = scratch / "volume", scratch / "out"
    volume.mkdir()
    out.mkdir()
    paths = [str(path) for path in work.paths]
    decoded = decode_stack(paths=paths, out=str(volume))
    header = {keyword: list(values) for keyword, values in work.stack.header.items()}
    ran = run_chain(chain=[stage], volume=str(volume), header=header, out=str(out))
    gates = tuple(told for one in ran["stages"] for _, told in gate_sentences(one))
    if ran["state"] != "done":
        return {"state": ran["state"], "reasons": tuple(ran["reasons"]), "gates": gates}
    work.folder.mkdir(parents=True)
    made = derive_stack(
        sources=paths,
        digests=decoded["digests"],
        stack_key=work.stack.key,
        result=str(out / ran["stages"][-1]["folder"]),
        stages=ran["stages"],
        series={"description_prefix": derived.description_prefix, "number_offset": derived.series_number_offset},
        equipment={"manufacturer": derived.manufacturer, "institution": derived.institution},
        content_qualification=derived.content_qualification,
        created_at=time.time(),
        out=str(work.folder),
    )
    return {
        "state": "derived",
        "derived_series": made["series_instance_uid"],
        "folder": str(work.folder),
        "gates": gates,
    }


def _stack_lines(stack: StackReport) -> Sequence[str]:
    reasons = f": {'; '.join(reason for reason in stack.reasons if reason)}" if stack.reasons else ""
    head = f"{stack.state:<8} {stack.slices} slices of series {stack.source_series}{reasons}"
    made = (f"  -> {stack.folder} (series {stack.derived_series}, {stack.seconds:.1f} s)",) if stack.folder else ()
    return (head, *(f"  {gate}" for gate in stack.gates), *made)
