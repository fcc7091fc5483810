"""One page of an evaluation, with everything that it shows inside."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from html import escape
from typing import Final

import cv2
import numpy as np

from trainers.evaluate.aims import verdicts
from trainers.evaluate.cases import Case
from trainers.evaluate.denoisers import LOW_DOSE, Denoiser
from trainers.evaluate.plots import plots, svg
from trainers.evaluate.table import FIGURES, Table
from trainers.evaluate.windows import ABDOMEN, LUNG, Pixels, Window
from trainers.evaluate.words import listed

_STYLE: Final = """
body{font-family:sans-serif;margin:2em auto;max-width:80em;color:#222}table{border-collapse:collapse;font-size:12px}
td,th{border-bottom:1px solid #ddd;padding:2px 8px;text-align:right;white-space:nowrap}td:first-child{text-align:left}
.MISSED{color:#b3261e;font-weight:bold}.reached{color:#1b6e3c}figure{display:inline-block;margin:4px;font-size:12px}
.wide{overflow-x:auto}
"""
_SHOWN_PX: Final = 256
_WORDS: Final = {True: "reached", False: "MISSED", None: "not measured"}


def page(table: Table, pictures: str = "") -> str:
    """A table with its aims and plots as HTML that needs nothing from outside.

    pictures  what `pictures` made
    """
    notes = "".join(f"<li>{escape(note)}</li>" for note in table.notes)
    body = [
        f"<h1>Denoisers of CT</h1><p>{table.patients} patients</p><ul>{notes}</ul>",
        *(_aims(table, name) for name, kind in table.kinds.items() if kind in ("ours", "partial")),
        *(f'<h2>Dose {100 * dose:g} %</h2><div class="wide">{_figures(table, dose)}</div>' for dose in table.doses),
        "<h2>Plots</h2>",
        *map(svg, plots(table)),
        pictures,
        "<h2>Patient by patient</h2>",
        *(f"<h3>Dose {100 * dose:g} %</h3>{_per_patient(table, dose)}" for dose in table.doses),
    ]
    head = f"<!doctype html><meta charset=utf-8><title>Denoisers of CT</title><style>{_STYLE}</style>"
    return head + "\n".join(body) + "\n"


def pictures(cases: Sequence[Case], denoisers: Sequence[Denoiser], dose: float) -> str:
    """The middle of the first slice at `dose`, as each denoiser leaves it, in windows of soft tissue and of lungs."""
    case = cases[0]
    low = case.low(case.full, dose, 0)
    shown = [("full dose", case.full)]
    shown += [(denoiser.name, denoiser.run(low)) for denoiser in (LOW_DOSE, *denoisers)]
    rows = "".join(
        f"<h3>{window.name} window</h3>" + "".join(_picture(name, hu, window) for name, hu in shown)
        for window in (ABDOMEN, LUNG)
    )
    return f"<h2>A slice at {100 * dose:g} % dose</h2>{rows}"


def _picture(name: str, hu: Pixels, window: Window) -> str:
    rows, columns = ((max(0, length - _SHOWN_PX) // 2) for length in hu.shape)
    middle = hu[rows : rows + _SHOWN_PX, columns : columns + _SHOWN_PX]
    _, png = cv2.imencode(".png", np.rint(window.shown(middle) * 255).astype(np.uint8))
    source = base64.b64encode(png.tobytes()).decode()
    return f'<figure><img src="data:image/png;base64,{source}"><figcaption>{escape(name)}</figcaption></figure>'


def _aims(table: Table, name: str) -> str:
    lines = "".join(
        f'<li class="{_WORDS[one.reached]}">{escape(" ".join(str(one).split()))}</li>' for one in verdicts(table, name)
    )
    return f"<h2>Aims: {escape(name)}</h2><ul>{lines}</ul>"


def _figures(table: Table, dose: float) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in table.kinds)
    return f"<table><tr><th></th>{head}</tr>{''.join(_lines(table, dose))}</table>"


def _lines(table: Table, dose: float) -> Iterator[str]:
    for title, shown in listed(table, dose, FIGURES):
        yield f"<tr><td>{escape(title)}</td>{''.join(f'<td>{one}</td>' for one in shown)}</tr>"


def _per_patient(table: Table, dose: float) -> str:
    """Averages hide much: PSNR and the bias of bone and soft tissue of each patient."""
    wanted = [FIGURES[name] for name in ("PSNR abdomen", "bias soft tissue", "bias bone")]
    head = "".join(f"<th>{escape(name)}: {escape(figure.name)}</th>" for name in table.kinds for figure in wanted)
    columns = [table.columns(figure, name, dose)[0] for name in table.kinds for figure in wanted]
    lines = "".join(
        f"<tr><td>{number + 1}</td>"
        + "".join("<td>-</td>" if np.isnan(column[number]) else f"<td>{column[number]:.2f}</td>" for column in columns)
        + "</tr>"
        for number in range(table.patients)
    )
    return f'<div class="wide"><table><tr><th>patient</th>{head}</tr>{lines}</table></div>'
