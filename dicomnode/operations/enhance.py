"""`dicomnode enhance`: files to files, by the same stacks, gates, engines and derivation as in the node."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from dicomnode.core.guards import HEADER_KEYWORDS
from dicomnode.core.review import FLAG, flag_note
from dicomnode.core.rules import is_derived_by_us
from dicomnode.core.stacks import STACK_KEYWORDS
from dicomnode.errors import DicomNodeError, EngineError, UsageError
from dicomnode.inference.service import run_chain
from dicomnode.operations.enhance_pages import Ran, write_pages
from dicomnode.operations.stacks import StackFiles, stacks_in
from dicomnode.operations.terminal import printable_lines
from dicomnode.operations.wording import gate_sentences
from dicomnode.pixels.encode import derive_stack
from dicomnode.pixels.read import quiet_pydicom
from dicomnode.pixels.service import decode_stack
from dicomnode.settings import DerivedSettings
from engines.card import EngineCard, SettingValue
from engines.chaining import IMAGE, Link, check_links
from engines.errors import EngineInputError
from engines.registry import default_registry

Progress = Callable[[str, int, int], None]

_LEAVING: Final = ("",)
"""The first output."""

_KEYWORDS: Final = STACK_KEYWORDS | HEADER_KEYWORDS


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
    pages: tuple[str, ...] = ()


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

    files: StackFiles
    folder: Path


_DERIVED: Final = DerivedSettings()


@dataclass(frozen=True)
class Look:
    """What a person wants to see beside what passes.

    pages     folder for a page and a table of what was measured; None: none
    withheld  write what a gate withholds for its figures too, marked as that
    """

    pages: Path | None = None
    withheld: bool = False


_NOTHING_MORE: Final = Look()


@dataclass(frozen=True)
class Site:
    """What of a node's configuration is used: what derived series say of themselves, and the folder of its bundles; and
    what a person wants to see."""

    derived: DerivedSettings = _DERIVED
    bundles: Path | None = None
    look: Look = _NOTHING_MORE


_NOWHERE: Final = Site()


def enhance_folder(
    source: Path,
    target: Path,
    engine: str,
    settings: Mapping[str, SettingValue],
    progress: Progress,
    site: Site = _NOWHERE,
) -> EnhanceReport:
    """Run one engine on every stack in a file or folder, and write a derived series for each into `target`.

    Raises EngineNotFoundError, SettingError; UsageError where the engine wants more than one series or makes no images
    of it, or `target` is not empty; NotFoundError where there is nothing to read.
    """
    quiet_pydicom()
    registry = default_registry(site.bundles)
    card = registry.card(engine)
    resolved = card.resolve(settings)
    _check_fits(card)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{target} is not empty", "name a folder that is new or empty: nothing is overwritten")
    stacks, unreadable = stacks_in(source, _KEYWORDS)
    reports: list[StackReport] = []
    works = _works(stacks, target)
    target.mkdir(parents=True, exist_ok=True)  # where it cannot be made, say so before the work
    for done, work in enumerate(works):
        progress(f"{card.reference}", done, len(works))
        stage = {"engine": registry.source(engine), "settings": resolved, "leaving": _LEAVING}
        reports.append(_enhance(work, stage, site))
    progress(f"{card.reference}", len(works), len(works))
    return EnhanceReport(card.reference, tuple(reports), unreadable)


def _check_fits(card: EngineCard) -> None:
    """What is known of an engine is no failure of each series."""
    try:
        check_links([Link.of(card.reference, card, _LEAVING)], (IMAGE,))
    except EngineInputError as error:
        raise UsageError(str(error), error.hint) from None


def _works(stacks: Sequence[StackFiles], target: Path) -> list[_Work]:
    return [_Work(one, target / f"series-{number:03d}") for number, one in enumerate(stacks, 1)]


def _enhance(work: _Work, stage: Mapping[str, Any], site: Site) -> StackReport:
    started = time.monotonic()
    files, stack = work.files, work.files.stack
    told = {"source_series": files.series, "stack": stack.key, "slices": len(files.paths)}
    reason = stack.excluded or (
        "derived by this software: never enhanced again"
        if any(is_derived_by_us(one.header) for one in stack.slices)
        else ""
    )
    if reason:
        return StackReport(**told, state="skipped", reasons=(reason,))  # type: ignore[arg-type]
    try:
        with tempfile.TemporaryDirectory() as scratch:
            report = _run(work, stage, site, Path(scratch))
    except (DicomNodeError, EngineError) as error:
        return StackReport(**told, state="failed", reasons=(str(error), error.hint))  # type: ignore[arg-type]
    return StackReport(**told, **report, seconds=time.monotonic() - started)  # type: ignore[arg-type]


def _run(work: _Work, stage: Mapping[str, Any], site: Site, scratch: Path) -> dict[str, Any]:
    volume, out = scratch / "volume", scratch / "out"
    volume.mkdir()
    out.mkdir()
    paths, stack = [str(path) for path in work.files.paths], work.files.stack
    decoded = decode_stack(paths=paths, out=str(volume))
    header = {keyword: list(values) for keyword, values in stack.header.items()}
    look = site.look
    ran = run_chain(
        chain=[stage], inputs={IMAGE: str(volume)}, headers={IMAGE: header}, out=str(out), released=look.withheld
    )
    told = {
        "reasons": tuple(ran["reasons"]),
        "gates": tuple(one.line for each in ran["stages"] for one in gate_sentences(each)),
    }
    if look.pages is not None:
        told["pages"] = write_pages(look.pages, Ran(work.folder.name, work.files.series, stack.key, ran, volume, out))
    if ran["state"] != "done":
        return {"state": ran["state"], **told}
    work.folder.mkdir(parents=True)
    made = derive_stack(
        sources=paths,
        digests=decoded["digests"],
        stack_key=stack.key,
        result=str(out / ran["stages"][-1]["folder"]),
        stages=ran["stages"],
        equipment={"manufacturer": site.derived.manufacturer, "institution": site.derived.institution},
        created_at=time.time(),
        out=str(work.folder),
        **_marks(ran, site.derived),
    )
    state = "withheld" if ran["reasons"] else "derived"
    return {"state": state, "derived_series": made["series_instance_uid"], "folder": str(work.folder), **told}


def _marks(ran: Mapping[str, Any], derived: DerivedSettings) -> dict[str, Any]:
    """What derived objects say of themselves; of those that a gate withholds, that it did not pass."""
    label = {"description_prefix": derived.description_prefix, "number_offset": derived.series_number_offset}
    if not ran["reasons"]:
        return {"series": label, "content_qualification": derived.content_qualification}
    note = flag_note(ran)
    return {
        "series": {**label, "description_suffix": FLAG},
        "content_qualification": "RESEARCH",
        "note": note,
        "comment": note,
    }


def _stack_lines(stack: StackReport) -> Sequence[str]:
    reasons = f": {'; '.join(reason for reason in stack.reasons if reason)}" if stack.reasons else ""
    head = f"{stack.state:<8} {stack.slices} slices of series {stack.source_series}{reasons}"
    marked = ", marked [gate failed]: to be looked at, not to be sent" if stack.state == "withheld" else ""
    where = f"  -> {stack.folder} (series {stack.derived_series}, {stack.seconds:.1f} s){marked}"
    made = (where,) if stack.folder else ()
    return (head, *(f"  {gate}" for gate in stack.gates), *made, *(f"  page {page}" for page in stack.pages))
