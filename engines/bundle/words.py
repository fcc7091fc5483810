"""CARD.md, for people: what the card says, and below a line whatever its maker wants to add."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Final

from engines.bundle.provenance import Provenance
from engines.card import EngineCard
from engines.errors import BundleError

OWN_WORDS: Final = (
    "<!-- Above: what card.toml says, by `dicomnode engines make`. Below: your own words, which are kept. -->"
)

_LIMITS: Final[Mapping[str, tuple[str, str]]] = {
    "bias_hu": ("mean change of air, lung, fat, soft tissue or bone over all slices", " HU"),
    "slice_bias_hu": ("the same within any one slice", " HU"),
    "noise_ratio": ("noise after over noise before, in flat tissue", ""),
    "nps_excess": ("noise power added at any one frequency, over the source's mean power", ""),
    "edge_modulation": ("share of the modulation at edges that is left", ""),
    "edge_correlation": ("correlation of what was taken away with the source's edges, in any one slice", ""),
    "blob": ("how far a blob of a nodule's size stands out of what was taken away", ""),
    "slice_fit": ("misfit of a slice to its own source, over that to the next best", ""),
    "clipped_fraction": ("share of voxels newly at an end of the stored range", ""),
    "clipped_bone": ("share of a slice's bone that is cut off flat", ""),
}
"""The limits of `engines.card.Limits`: what each is of, and its unit."""


def in_words(card: EngineCard, provenance: Provenance, own: str = "") -> str:
    """CARD.md: what a person reads before an engine is used; `own` are its maker's further words."""
    training = [f"Run `{provenance.training.run}`. {provenance.training.recipe}".strip()]
    data = [f"- {item.name} ({item.role}, {item.licence}). {item.attribution}".rstrip() for item in provenance.data]
    metrics = [f"- {item.name}, {item.subgroup}: {item.value:g} {item.unit}".rstrip() for item in provenance.metrics]
    known = [f"- {sentence}" for sentence in provenance.limitations]
    parts = {
        "Intended use": [card.intended_use],
        "Maker and licence": [f"{provenance.maker}; {provenance.licence}"],
        "Training": training,
        "Images": data,
        "Measured": metrics,
        "Known limits": known,
    }
    text = "\n\n".join(f"## {title}\n" + "\n".join(lines) for title, lines in parts.items() if lines)
    return f"# {card.reference}\n\n{text}\n\n{OWN_WORDS}\n{own}"


def own_words(text: str) -> str:
    """What a maker added to a CARD.md. Raises BundleError where it cannot be told from what the card said."""
    _, line, own = text.partition(f"{OWN_WORDS}\n")
    if not line:
        raise BundleError(
            "CARD.md lacks the line that parts the card's words from your own",
            f"take CARD.md away, or put your own words below the line {OWN_WORDS}",
        )
    return own


def limits_in_words(card: EngineCard) -> tuple[str, ...]:
    """What the gate after an engine holds its output to, a sentence each; and what it does not judge."""
    if all(port.kind != "volume" or port.presentation for port in card.outputs.values()):
        return ("its output is no image in HU: the gate judges its form alone",)
    return tuple(_limit(name, value) for name, value in asdict(card.limits).items())


def _limit(name: str, bound: float | tuple[float, float] | None) -> str:
    meaning, unit = _LIMITS[name]
    if bound is None:
        return f"{name}: NOT judged: {meaning}"
    said = f"{bound[0]:g} to {bound[1]:g}" if isinstance(bound, tuple) else f"at most {bound:g}"
    return f"{name}: {said}{unit}: {meaning}"
