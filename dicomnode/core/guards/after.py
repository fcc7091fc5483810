"""The gate after an engine: what it made, against what its card declares and limits."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite, prod
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dicomnode.core.guards.findings import GateFinding, GateReport, named, within
from dicomnode.core.guards.limits import judge_figures
from dicomnode.core.guards.values import is_finite
from engines import quality
from engines.base import Value
from engines.card import EngineCard, Port
from engines.findings import Finding, Findings
from engines.volume import PRESENTATION_MAXIMUM, Mask, Volume

_SAME_MM: Final = 1e-4


def after(
    card: EngineCard, source: Volume, output: Value, name: str = "image", measuring: quality.Measuring | None = None
) -> GateReport:
    """Whether what the engine made of `source` as its output `name` may leave.

    A volume is measured where its grid is the declared one and its values are finite. Masks and findings lie on the
    source's grid; nothing else of them can be judged. `measuring` is what has been measured by now, where the output
    came slab by slab.
    """
    port = card.outputs[name]
    if isinstance(output, Mask):
        return GateReport(tuple(_mask_form(port, source, output)))
    if isinstance(output, Findings):
        return GateReport(tuple(_findings_form(port, source, output)))
    if not isinstance(output, Volume) or port.kind != "volume":
        return GateReport((_kind(port, "volume" if isinstance(output, Volume) else "prompt"),))
    factor = prod(stage.factor for stage in card.stages) if card.task == "super-resolution" else 1
    findings = tuple(_form(port, source, output, factor))
    if not all(finding.passed for finding in findings) or port.presentation:
        return GateReport(findings)
    figures = _figures(source, output, factor, measuring)
    return GateReport((*findings, *judge_figures(card.limits, source.unit, figures)), figures)


def is_measurable(card: EngineCard, name: str) -> bool:
    """Whether an output may be measured slab by slab: it is to be measured, and lies on the source's grid."""
    port = card.outputs[name]
    return port.kind == "volume" and not port.presentation and card.task != "super-resolution"


def _figures(source: Volume, output: Volume, factor: int, measuring: quality.Measuring | None) -> quality.QualityReport:
    if measuring is None:
        return quality.measure(source, output if factor == 1 else _at_source_grid(source, output, factor))
    measuring.add(output, source.shape[0])
    return measuring.report()


def _form(port: Port, source: Volume, output: Volume, factor: int) -> Iterator[GateFinding]:
    grid = _grid(source, output.shape, output.affine, factor)
    yield grid
    wanted = source.unit if port.unit == "as-input" else port.unit
    fits = output.unit == wanted
    sentence = f"values are in {named(output.unit)}" + ("" if fits else f", {named(wanted)} was declared")
    yield GateFinding("unit", output.unit, (wanted,), fits, sentence)
    yield is_finite(output)
    low, high = quality.measured_range(output)
    yield GateFinding("variation", None, None, high > low, "values vary" if high > low else "the output is empty")
    if port.presentation:
        yield within("darkest value", "", low, (0.0, PRESENTATION_MAXIMUM))
        yield within("brightest value", "", high, (0.0, PRESENTATION_MAXIMUM))
    elif grid.passed and factor == 1 and source.valid is not None:
        kept = _is_padding_kept(source, output, source.valid)
        yield GateFinding("padding", None, None, kept, f"padding is {'as it was' if kept else 'altered'}")


def _is_padding_kept(source: Volume, output: Volume, valid: NDArray[np.bool_]) -> bool:
    """Slice by slice: all at once would copy the volumes."""
    slices = zip(output.voxels, source.voxels, valid, strict=True)
    return all(
        measured.all() or np.array_equal(new[~measured], old[~measured], equal_nan=True)
        for new, old, measured in slices
    )


def _grid(source: Volume, shape: tuple[int, ...], affine: NDArray[np.float64], factor: int = 1) -> GateFinding:
    """The source's grid, or exactly the one of `factor` times its rows and columns over the same field of view."""
    slices, rows, columns = source.shape
    same = shape == (slices, rows * factor, columns * factor) and bool(
        np.allclose(affine, _finer(source.affine, factor), rtol=0.0, atol=_SAME_MM if factor > 1 else 0.0)
    )
    wanted = "the source's" if factor == 1 else f"the source's, {factor} times as fine"
    sentence = f"the grid is {wanted}" if same else f"the grid has changed, wanted is {wanted}"
    return GateFinding("grid", None, None, same, sentence)


def _finer(affine: NDArray[np.float64], factor: int) -> NDArray[np.float64]:
    """Voxels of a fraction of the size that fill the same places: the first centre moves towards the corner."""
    shift = (1.0 / factor - 1.0) / 2.0
    scale = np.diag([1.0 / factor, 1.0 / factor, 1.0, 1.0])
    scale[:2, 3] = shift
    finer: NDArray[np.float64] = affine @ scale
    return finer


def _at_source_grid(source: Volume, output: Volume, factor: int) -> Volume:
    """The output as the source's voxels would see it: means over theirs."""
    slices, rows, columns = source.shape
    seen = np.empty(source.shape, dtype=np.float32)
    for index in range(slices):
        seen[index] = output.voxels[index].reshape(rows, factor, columns, factor).mean(axis=(1, 3))
    if source.valid is not None:
        seen[~source.valid] = source.voxels[~source.valid]
    return source.with_voxels(seen)


def _mask_form(port: Port, source: Volume, mask: Mask) -> Iterator[GateFinding]:
    yield _kind(port, "mask")
    yield _grid(source, mask.labels.shape, mask.affine)
    unknown = sorted(set(np.unique(mask.labels).tolist()) - {0, *mask.names})
    sentence = f"{len(unknown)} labels have no name" if unknown else "every label has a name"
    yield GateFinding("labels", float(len(unknown)), 0.0, not unknown, sentence)


def _findings_form(port: Port, source: Volume, findings: Findings) -> Iterator[GateFinding]:
    yield _kind(port, "findings")
    outside = sum(not _lies_within(finding, source.shape) for finding in findings.items)
    sentence = f"{outside} of {len(findings.items)} findings lie outside the images" if outside else "all lie within"
    yield GateFinding("grid", float(outside), 0.0, not outside, sentence)
    broken = sum(not 0.0 <= finding.score <= 1.0 for finding in findings.items)
    sentence = f"{broken} scores are not between 0 and 1" if broken else "scores are between 0 and 1"
    yield GateFinding("scores", float(broken), 0.0, not broken, sentence)


def _lies_within(finding: Finding, shape: tuple[int, int, int]) -> bool:
    slices, rows, columns = shape
    left, top, right, bottom = finding.box
    within_slice = all(map(isfinite, finding.box)) and 0 <= left < right <= columns and 0 <= top < bottom <= rows
    return within_slice and 0 <= finding.slice_index < slices


def _kind(port: Port, found: str) -> GateFinding:
    sentence = f"the output is a {found}" if found != "findings" else "the output is findings"
    fits = port.kind == found
    return GateFinding("kind", found, (port.kind,), fits, sentence + ("" if fits else f", {port.kind} was declared"))
