"""The gate before an engine that takes several series: each by itself, and whether they lie on one grid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from dicomnode.core.guards.before import before
from dicomnode.core.guards.findings import GateFinding, GateReport
from dicomnode.core.headers import value
from dicomnode.core.types import Header
from engines.card import EngineCard
from engines.model.inputs import ONE_GRID_MM, apart_mm
from engines.volume import Volume

Place = Sequence[float] | None


def before_each(card: EngineCard, headers: Mapping[str, Header], volumes: Mapping[str, Volume]) -> GateReport:
    """Whether every volume lies within the card's envelope, on the grid of the first one.

    headers, volumes  by the card's inputs, the one that gives the grid first. Series of one study differ in their
                      contrast phase, so the envelope's contrast agent is asked of the first alone.
    """
    main, *others = volumes
    if not others:
        return before(card, headers[main], volumes[main], main)
    of_others = replace(card, envelope=replace(card.envelope, contrast_agent="any"))
    findings = list(_named(main, before(card, headers[main], volumes[main], main)))
    for name in others:
        findings += _named(name, before(of_others, headers[name], volumes[name], name))
        findings.append(_grid(name, volumes[name], main, volumes[main]))
        findings.append(_frame_of_reference(name, headers[name], main, headers[main]))
    return GateReport(tuple(findings))


def _named(name: str, report: GateReport) -> Iterator[GateFinding]:
    for finding in report.findings:
        yield replace(finding, sentence=f"{name}: {finding.sentence}")


def _grid(name: str, volume: Volume, main: str, wanted: Volume) -> GateFinding:
    """Nothing is resampled: who compares two series pixel by pixel must know that they lie upon each other."""
    alike = volume.shape == wanted.shape
    apart = apart_mm(volume, wanted) if alike else None
    same = apart is not None and apart <= ONE_GRID_MM
    said = f"{name}: its grid is that of {main}"
    if not same:
        said = f"{name}: its grid is {_words(volume)}, wanted is that of {main}, {_words(wanted)}"
        said += "" if apart is None else f": they lie up to {apart:.3g} mm apart"
    return GateFinding("one grid", apart, None, same, said)


def _words(volume: Volume) -> str:
    slices, rows, columns = volume.shape
    across, down, along = (float(np.linalg.norm(volume.affine[:3, axis])) for axis in range(3))
    first = ", ".join(f"{place:g}" for place in np.round(volume.affine[:3, 3], 2) + 0.0)
    return f"{slices} slices of {rows} x {columns}, {down:.4g} x {across:.4g} x {along:.4g} mm, from ({first}) mm on"


def _frame_of_reference(name: str, header: Header, main: str, wanted: Header) -> GateFinding:
    """Frame of Reference UID (PS3.3 C.7.4.1): in another one equal positions are not the same place of the patient."""
    own, other = value(header, "FrameOfReferenceUID"), value(wanted, "FrameOfReferenceUID")
    same = not own or not other or own == other
    said = "has the frame of reference of" if same else "has another frame of reference than"
    return GateFinding("frame of reference", None, None, same, f"{name}: it {said} {main}")


def misplaced(name: str, places: Sequence[Place], main: str, wanted: Sequence[Place]) -> str:
    """Why the slices of one series do not lie upon those of another, slice by slice; "" where they do.

    places, wanted  positions of the slices in mm (Image Position (Patient)), in order. Two series of one number of
                    slices and one commonest step may each lack another slice. What has another number of slices the
                    gate tells.
    """
    if len(places) != len(wanted):
        return ""
    pairs = [(one, other) for one, other in zip(places, wanted, strict=True) if one and other]
    apart = [float(np.abs(np.subtract(one, other)).max()) for one, other in pairs]
    off = [distance for distance in apart if not distance <= ONE_GRID_MM]
    said = f"{name}: {len(off)} of its {len(places)} slices are not where those of {main} are"
    return f"{said}, up to {max(off):.3g} mm off" if off else ""
