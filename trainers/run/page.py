"""A run as one page for people: what it learns of, how each term fell, the last pictures, what an evaluation found."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Final

from engines.bundle.provenance import Dataset
from trainers.progress import FIGURES
from trainers.recipes.recipe import OFF
from trainers.run.checkpoints import NET
from trainers.run.folder import Judged, datasets_of, judged_of, noted, plan_of

_LINE: Final = re.compile(r"(\d+),([^,]+),(nan|-?inf|-?\d+(?:\.\d+)?(?:e[-+]\d+)?)")
_WIDTH, _HEIGHT, _LEFT, _TOP = 640, 160, 64, 8


def page_of(run: Path) -> str:
    """A page of a run, with everything that it shows inside. Raises CheckpointError where there is no run."""
    named = noted(run)
    stages = [path.parent for path in sorted(run.rglob(FIGURES), key=lambda path: path.stat().st_mtime)]
    plan = plan_of(named)
    is_as_said = plan.is_whole and plan.features != OFF
    body = "" if is_as_said else f"<p>Not as the recipe says: {escape(str(plan))}.</p>"
    body += _images(datasets_of(run))
    body += "".join(_stage(run, folder) for folder in stages) or "<p>No step was noted yet.</p>"
    body += _told_of(judged_of(run))
    title = escape(f"{named['recipe']}, recipe {named['trained'][:16]}")
    style = "body{font-family:sans-serif;max-width:60em;margin:auto}img{max-width:100%}svg{background:#f4f4f4}"
    return f"<!doctype html><meta charset=utf-8><title>{title}</title><style>{style}</style><h1>{title}</h1>{body}\n"


def _images(datasets: Sequence[Dataset]) -> str:
    """Of whom it learns."""
    lines = "".join(
        f"<tr><td>{escape(one.name)}<td>{escape(one.role)}<td>{one.patients or ''}<td>{escape(one.licence)}"
        for one in datasets
    )
    head = "<tr><th>images<th>for<th>patients<th>licence"
    return f"<table>{head}{lines}</table>" if lines else ""


def _told_of(judged: Judged) -> str:
    """What an evaluation noted of the run, as its card will tell it."""
    lines = "".join(
        f"<tr><td>{escape(f'{one.name}, {one.subgroup}')}<td>{one.value:g} {escape(one.unit)}"
        f"<td>{'' if one.interval is None else f'{one.interval[0]:g} to {one.interval[1]:g}'}"
        f"<td>{'' if one.baseline is None else f'{one.baseline:g}'}<td>{one.patients}"
        for one in judged.metrics
    )
    head = "<tr><th>figure<th>value<th>95 %<th>low dose<th>patients"
    return f"<h2>Evaluation</h2><table>{head}{lines}</table>" if lines else ""


def _stage(run: Path, folder: Path) -> str:
    values = curves((folder / FIGURES).read_text().splitlines())
    last = max(points[-1][0] for points in values.values()) if values else 0
    is_done = f"{'finished' if (folder / NET).exists() else 'not finished'}, {last} steps"
    figures = "".join(
        f"<h3>{escape(term)}: {points[-1][1]:.4g}</h3>{_drawn(points)}" for term, points in values.items()
    )
    pictures = sorted((folder / "pictures").glob("*.png"))
    shown = f"<h3>{pictures[-1].stem}: given, made, wanted</h3>{_embedded(pictures[-1])}" if pictures else ""
    return f"<h2>{escape(str(folder.relative_to(run)))} ({is_done})</h2>{figures}{shown}"


def curves(lines: Iterable[str]) -> Mapping[str, list[tuple[int, float]]]:
    """(step, value) of each term by its name, in the order of the steps; of a step noted twice the later counts.

    Half a line, as a full disk or a kill leaves it, is passed over.
    """
    noted: dict[str, dict[int, float]] = {}
    for line in lines:
        if found := _LINE.fullmatch(line):
            noted.setdefault(found[2], {})[int(found[1])] = float(found[3])
    return {term: sorted(points.items()) for term, points in noted.items()}


def _drawn(points: Sequence[tuple[int, float]]) -> str:
    """A curve, from 0 to its highest value, over the steps."""
    known = [value for _, value in points if math.isfinite(value)]
    highest, last = max([*known, 1e-12]), max(points[-1][0], 1)
    places = " ".join(
        f"{_LEFT + step / last * _WIDTH:.1f},{_TOP + (1 - value / highest) * _HEIGHT:.1f}"
        for step, value in points
        if math.isfinite(value)
    )
    labels = (
        (_LEFT - 4, _TOP + 10, "end", f"{highest:.3g}"),
        (_LEFT - 4, _TOP + _HEIGHT, "end", "0"),
        (_LEFT, _TOP + _HEIGHT + 16, "start", "step 0"),
        (_LEFT + _WIDTH, _TOP + _HEIGHT + 16, "end", f"{last}"),
    )
    told = "".join(f'<text x="{x}" y="{y}" text-anchor="{side}">{text}</text>' for x, y, side, text in labels)
    frame = f'<path fill="none" stroke="#444" d="M{_LEFT},{_TOP}v{_HEIGHT}h{_WIDTH}"/>'
    line = f'<polyline fill="none" stroke="#246" points="{places}"/>'
    width, height = _LEFT + _WIDTH + _TOP, _TOP + _HEIGHT + 24
    return (
        f'<svg width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'font-family="sans-serif" font-size="11">{frame}{told}{line}</svg>'
    )


def _embedded(picture: Path) -> str:
    return f'<img src="data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}">'
