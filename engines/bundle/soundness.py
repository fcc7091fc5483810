"""What a card must say of itself to be usable: names that fit, stages that follow on each other, bounds in order."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from engines.bundle.tables import nearest
from engines.card import EngineCard, Scale, Stage
from engines.errors import BundleError, SettingError

_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,62}")
_VERSION: Final = re.compile(r"[0-9]{1,6}\.[0-9]{1,6}\.[0-9]{1,6}(?:[-+.][0-9A-Za-z]{1,16}){0,3}")
_PART: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")
_STAGE_FILE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\.onnx")
_LONGEST_LABEL: Final = 64
"""What DICOM's LO takes (PS3.5 6.2); a backslash would make two values of it."""

_MOST_ADJACENT: Final = 16
_LARGEST_PX: Final = 1024
_LARGEST_FACTOR: Final = 8


def check_card(card: EngineCard) -> None:
    """Raises BundleError with the first thing that does not fit."""
    for problem, hint in _problems(card):
        raise BundleError(f"card.toml: {problem}", hint)
    try:
        card.resolve({})
    except SettingError as error:
        raise BundleError(f"card.toml: {error}", "the default must be within its own bounds") from None


def name_problems(name: str) -> Iterator[tuple[str, str]]:
    """What is wrong with the name of an engine, and what to do."""
    if not _NAME.fullmatch(name):
        yield f"the name is {name[:80]!r}", "small letters, digits and '-', beginning with a letter"


def file_problems(file: str) -> Iterator[tuple[str, str]]:
    """What is wrong with the name of a network's file, and what to do."""
    if not _STAGE_FILE.fullmatch(file):
        yield (
            f"a stage's file is {file[:80]!r}",
            "a plain name in the bundle's folder: letters, digits, '_' and '-', then .onnx",
        )


def _problems(card: EngineCard) -> Iterator[tuple[str, str]]:
    yield from name_problems(card.name)
    if not _VERSION.fullmatch(card.version):
        yield f"the version is {card.version[:80]!r}", "write it like 1.2.0"
    for name in (*card.inputs, *card.outputs, *card.settings):
        if not _PART.fullmatch(name):
            yield f"{name[:80]!r} names an input, output or setting", "letters, digits, '_' and '-', 63 at most"
    if not card.inputs or not card.outputs or not card.stages:
        yield "it lacks inputs, outputs or stages", "an engine has at least one of each"
    if not card.precisions or ("int8" in card.precisions and card.task != "detect"):
        yield f"its precisions are {', '.join(card.precisions) or 'none'}", "int8 shifts HU: it is for detectors only"
    if "int8" in card.precisions and len(card.precisions) > 1:
        yield "it has int8 beside other precisions", "a network is quantised, or it is not: make two versions"
    for label in (label for port in (*card.inputs.values(), *card.outputs.values()) for label in port.labels):
        if not label.isprintable() or not 0 < len(label.strip()) <= _LONGEST_LABEL or "\\" in label:
            yield f"a label is {label[:80]!r}", f"1 to {_LONGEST_LABEL} printable characters, without a backslash"
    if bool(card.method) != (card.task == "contrast"):
        yield f"its method is {card.method!r}", "a contrast task names one, and no other task does"
    yield from _range_problems(card)
    yield from _stage_problems(card)


def _range_problems(card: EngineCard) -> Iterator[tuple[str, str]]:
    envelope = card.envelope
    ranges = {
        "envelope.kvp": envelope.kvp,
        "envelope.slice_thickness_mm": envelope.slice_thickness_mm,
        "envelope.pixel_spacing_mm": envelope.pixel_spacing_mm,
        "envelope.rows_columns": envelope.rows_columns,
        "limits.noise_ratio": card.limits.noise_ratio,
    }
    for name, bounds in ranges.items():
        if bounds is not None and not 0 <= bounds[0] <= bounds[1]:
            yield f"{name} is {list(bounds)}", "write the lowest first; neither is below 0"


def _stage_problems(card: EngineCard) -> Iterator[tuple[str, str]]:
    known = set(card.inputs)
    files = [stage.file for stage in card.stages]
    if len(set(files)) != len(files):
        yield "two stages have one file", "name one file for each stage"
    for stage in card.stages:
        yield from _own_problems(stage)
        for entry in stage.inputs:
            if entry.source not in known:
                yield (
                    f"{stage.file} takes {entry.source[:80]!r}, which nothing before it gives",
                    nearest(entry.source, known),
                )
            if not 0 <= entry.adjacent <= _MOST_ADJACENT:
                yield f"{stage.file} takes {entry.adjacent} adjacent slices", f"0 to {_MOST_ADJACENT}"
        for output in stage.outputs:
            if output.residual_of and output.residual_of not in known:
                yield f"{stage.file}: residual_of is {output.residual_of[:80]!r}", nearest(output.residual_of, known)
        known |= {output.target for output in stage.outputs}


def _own_problems(stage: Stage) -> Iterator[tuple[str, str]]:
    yield from file_problems(stage.file)
    if not stage.inputs or not stage.outputs:
        yield f"{stage.file} has no inputs or no outputs", "name what goes in and what comes out"
    if not 0 <= stage.halo_px <= _LARGEST_PX or not 1 <= stage.multiple_px <= _LARGEST_PX:
        yield (
            f"{stage.file}: halo_px or multiple_px is out of bounds",
            f"a halo from 0, a multiple from 1, to {_LARGEST_PX}",
        )
    if not 1 <= stage.factor <= _LARGEST_FACTOR:
        yield f"{stage.file}: factor is {stage.factor}", f"1 to {_LARGEST_FACTOR}"
    targets = [output.target for output in stage.outputs]
    if len(set(targets)) != len(targets):
        yield f"{stage.file} gives one target twice", "name each of its outputs differently"
    for scale in (*(entry.scale for entry in stage.inputs), *(entry.scale for entry in stage.outputs)):
        yield from _scale_problems(stage, scale)


def _scale_problems(stage: Stage, scale: Scale) -> Iterator[tuple[str, str]]:
    if scale.divisor == 0:
        yield f"{stage.file}: a scale's divisor is 0", "(value - offset) / divisor is what the network sees"
    if scale.clip is not None and not scale.clip[0] < scale.clip[1]:
        yield f"{stage.file}: a scale clips to {list(scale.clip)}", "write the lowest first"
