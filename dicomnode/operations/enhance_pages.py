"""What an engine did to files, for a person: a page for each output that was measured, and one table of all."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dicomnode.core.figures import FIGURES, figures_of
from dicomnode.core.scanners import preset_of
from dicomnode.pixels.pages import Shown, Told, page_of, slice_to_show
from dicomnode.pixels.sheet import draw, png
from engines.volume import load_volume

TABLE: Final = "quality.csv"
_COLUMNS: Final = (
    "page", "series", "stack", "engine", "preset", "runtime", "digest", "output", "passed", "reasons", *FIGURES,
)  # fmt: skip


@dataclass(frozen=True)
class Ran:
    """One stack that went through engines.

    name     what its pages are called by
    report   what `dicomnode.inference.service.run_chain` told
    source   folder of the volume that went in; `out`: where the outputs lie
    """

    name: str
    series: str
    stack: str
    report: Mapping[str, Any]
    source: Path
    out: Path


def write_pages(folder: Path, ran: Ran) -> tuple[str, ...]:
    """Write a PNG for each output that was measured, and its figures into the folder's table; the files' paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for stage in ran.report["stages"]:
        for output, told in stage["outputs"].items():
            if told["quality"]:
                beside = "" if output == stage["output"] else f"-{output}"
                path = folder / f"{ran.name}-{stage['engine']}{beside}.png"
                path.write_bytes(png(draw(page_of(_told(ran, stage, told), _shown(ran, stage, told)))))
                _add_row(folder / TABLE, {"page": path.name, "output": output, **_row(ran, stage, told)})
                written.append(str(path))
    return tuple(written)


def _told(ran: Ran, stage: Mapping[str, Any], told: Mapping[str, Any]) -> Told:
    gate = told["after"]
    said = "passed" if gate["passed"] else "DID NOT PASS: withheld"
    subjects = (f"series {ran.series}", f"{stage['runtime']}; {preset_of(stage['settings'])}".rstrip("; "), said)
    report = {**told["quality"], "unit": told["unit"]}
    failed_first = sorted(gate["findings"], key=lambda one: bool(one["passed"]))
    notes = tuple(f"{'ok   ' if one['passed'] else 'FAILS'} {one['sentence']}" for one in failed_first)
    return Told(f"{stage['engine']}@{stage['version']}", subjects, report, figures_of(report), notes)


def _shown(ran: Ran, stage: Mapping[str, Any], told: Mapping[str, Any]) -> Shown | None:
    """The slice that says most; None where nothing was kept, or it has another grid."""
    if told["folder"] is None:
        return None
    before, after = load_volume(_input(ran, stage)), load_volume(ran.out / told["folder"])
    if before.shape != after.shape:
        return None
    place = slice_to_show(told["quality"], before.shape[0])
    return Shown(place, before.voxels[place], after.voxels[place], before.unit, before.window)


def _input(ran: Ran, stage: Mapping[str, Any]) -> Path:
    """What a stage took: the main output of the one before it."""
    place = ran.report["stages"].index(stage)
    return ran.source if place == 0 else ran.out / str(ran.report["stages"][place - 1]["folder"])


def _row(ran: Ran, stage: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
    gate = told["after"]
    return {
        "series": ran.series,
        "stack": ran.stack,
        "engine": f"{stage['engine']}@{stage['version']}",
        "preset": preset_of(stage["settings"]),
        "runtime": stage["runtime"],
        "digest": stage.get("bundle") or stage["card_digest"],
        "passed": gate["passed"],
        "reasons": "; ".join(one["sentence"] for one in gate["findings"] if not one["passed"]),
        **figures_of(told["quality"]),
    }


def _add_row(path: Path, row: Mapping[str, Any]) -> None:
    is_new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, _COLUMNS)
        if is_new:
            writer.writeheader()
        writer.writerow(row)
