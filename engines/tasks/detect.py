"""detect: boxes with a label and a score.

A network gives, on a grid of one place for every few pixels, "scores" (a channel for each of the card's labels, 0...1)
and "boxes" (the distances in pixels from the centre of the place to the left, top, right and bottom of its box; Tian et
al., FCOS, ICCV 2019). Of boxes of one label that overlap by more than the setting `overlap` (intersection over union)
only the best stays; below the setting `score` none does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engines.base import Value
from engines.errors import EngineInputError
from engines.findings import Finding, Findings
from engines.tasks.base import Computed, Piece, check_numbers
from engines.tiling import multiple

SCORES: Final = "scores"
BOXES: Final = "boxes"
SCORE: Final = "score"
OVERLAP: Final = "overlap"

_DEFAULT_SCORE: Final = 0.5
_DEFAULT_OVERLAP: Final = 0.5
_MOST_CANDIDATES: Final = 1000
"""Of one label on one slice, the best: bounds what a network that finds something everywhere costs."""

Boxes = NDArray[np.float64]
Scores = NDArray[np.float64]


def values(computed: Computed) -> Mapping[str, Value]:
    """The card's one output: the findings, slices counted from the slab's first."""
    ((name, port),) = computed.card.outputs.items()
    least = float(computed.settings.get(SCORE, _DEFAULT_SCORE))
    overlap = float(computed.settings.get(OVERLAP, _DEFAULT_OVERLAP))
    for piece in computed.pieces:
        _check(piece, len(port.labels))
    found: list[Finding] = []
    for slice_index in range(computed.source.shape[0]):
        for channel, label in enumerate(port.labels):
            boxes, scores = _candidates(computed, slice_index, channel, least)
            kept = suppressed(boxes, scores, overlap)
            found.extend(_finding(slice_index, boxes[place], label, scores[place]) for place in kept)
    return {name: Findings(tuple(found))}


def decoded(distances: NDArray[np.float32], stride: float) -> Boxes:
    """Boxes (places, 4) as (left, top, right, bottom) in pixels from distances (4, rows, columns) of a grid.

    The centre of a pixel is a whole number, so the centre of the first place is at (stride - 1) / 2. A distance below 0
    counts as 0.
    """
    distances = np.maximum(distances, 0.0)
    _, rows, columns = distances.shape
    down, across = (np.arange(length) * stride + (stride - 1) / 2 for length in (rows, columns))
    centres = np.stack(np.broadcast_arrays(across[None, :], down[:, None])).astype(np.float64)
    return np.concatenate((centres - distances[:2], centres + distances[2:])).reshape(4, -1).T


def suppressed(boxes: Boxes, scores: Scores, overlap: float) -> list[int]:
    """Which boxes stay, the best first: none shares more than `overlap` with a better one that stays."""
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while order.size:
        best, order = order[0], order[1:]
        kept.append(int(best))
        order = order[_shared(boxes[best], boxes[order]) <= overlap]
    return kept


def _candidates(computed: Computed, slice_index: int, channel: int, least: float) -> tuple[Boxes, Scores]:
    """Boxes and scores of one label on one slice, of all pieces, cut to the slice."""
    step = computed.card.stages[-1].multiple_px
    pieces = [piece for piece in computed.pieces if slice_index in piece.slices]
    several = [_of_piece(piece, slice_index - piece.slices.start, channel, step) for piece in pieces]
    boxes = np.concatenate([np.empty((0, 4)), *(boxes for boxes, _ in several)])
    scores = np.concatenate([np.empty(0), *(scores for _, scores in several)])
    best = np.argsort(-scores, kind="stable")[:_MOST_CANDIDATES]
    best = best[scores[best] >= least]
    _, rows, columns = computed.source.shape
    return np.clip(boxes[best], 0, (columns - 1, rows - 1, columns - 1, rows - 1)), scores[best]


def _check(piece: Piece, labels: int) -> None:
    """Raises EngineInputError on other than scores of 0...1 for each label and 4 distances, on one grid;
    RuntimeFailedError on what is no number."""
    scores, distances = piece.targets[SCORES], piece.targets[BOXES]
    if scores.shape[1] != labels or distances.shape[1] != 4 or scores.shape[2:] != distances.shape[2:]:
        raise EngineInputError(
            f"the network gives {scores.shape[1:]} scores and {distances.shape[1:]} distances",
            "it must give a channel of scores for each of the card's labels, and 4 of distances, on one grid",
        )
    check_numbers(scores, SCORES)
    check_numbers(distances, BOXES)
    if scores.min(initial=0.0) < 0 or scores.max(initial=0.0) > 1:
        raise EngineInputError("the network gives scores that are not 0...1", "let it end in a sigmoid or a softmax")


def _of_piece(piece: Piece, place: int, channel: int, step: int) -> tuple[Boxes, Scores]:
    """Boxes on the slice's grid and scores, of the places whose centre lies in the piece."""
    region = piece.region
    scores, distances = piece.targets[SCORES], piece.targets[BOXES]
    stride = _stride(region.bottom - region.top, step, scores.shape[2])
    down, across = (np.arange(length) * stride + (stride - 1) / 2 for length in scores.shape[2:])
    inside = (down < region.bottom - region.top)[:, None] & (across < region.right - region.left)[None, :]
    boxes = decoded(distances[place], stride) + np.array((region.left, region.top) * 2)
    return boxes[inside.ravel()], scores[place, channel][inside].astype(np.float64)


def _stride(rows: int, step: int, places: int) -> float:
    """Pixels from one of the `places` down a region to the next. They cover what it was padded to, a multiple of
    `step`; where they are as fine as pixels, or finer, they were cut to the region again."""
    padded = multiple(rows, step)
    return (rows if places >= rows and padded % places else padded) / places


def _shared(best: NDArray[np.float64], others: Boxes) -> NDArray[np.float64]:
    """Intersection over union of one box with others; 0 where both have no area."""
    width = np.minimum(best[2], others[:, 2]) - np.maximum(best[0], others[:, 0])
    height = np.minimum(best[3], others[:, 3]) - np.maximum(best[1], others[:, 1])
    common = np.maximum(width, 0.0) * np.maximum(height, 0.0)
    area = (others[:, 2] - others[:, 0]) * (others[:, 3] - others[:, 1])
    union = (best[2] - best[0]) * (best[3] - best[1]) + area - common
    shares: NDArray[np.float64] = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    return shares


def _finding(slice_index: int, box: NDArray[np.float64], label: str, score: float) -> Finding:
    left, top, right, bottom = (float(side) for side in box)
    return Finding(slice_index, (left, top, right, bottom), label, float(score))
