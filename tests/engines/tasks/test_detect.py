"""Boxes from a network's grid, and which of them stay."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomnode.testing.bundles import engine_of, made
from engines.bundle.examples import example_volume
from engines.errors import EngineInputError, RuntimeFailedError
from engines.findings import Findings
from engines.prompt import Region
from engines.tasks.base import Computed, Piece
from engines.tasks.detect import decoded, suppressed, values
from engines.tiling import Tiling, computed
from engines.volume import HU, Volume

coordinates, sides_px = st.integers(0, 50), st.integers(0, 20)
boxes = st.lists(st.tuples(coordinates, coordinates, sides_px, sides_px), max_size=12)


def shared(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union, the plain way."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    common = max(width, 0.0) * max(height, 0.0)
    union = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)) - common
    return common / union if union > 0 else 0.0


@given(found=boxes, overlap=st.sampled_from([0.0, 0.3, 0.7]), seed=st.integers(0, 9))
@settings(deadline=None)
def test_of_boxes_that_overlap_the_best_stays(found: list[tuple[int, ...]], overlap: float, seed: int) -> None:
    sides = (
        np.array([(left, top, left + width, top + height) for left, top, width, height in found]).reshape(-1, 4) * 1.0
    )
    scores = np.random.default_rng(seed).permutation(len(sides)).astype(np.float64)
    kept = suppressed(sides, scores, overlap)
    assert [scores[place] for place in kept] == sorted((scores[place] for place in kept), reverse=True)
    for place in range(len(sides)):
        better = [other for other in kept if scores[other] > scores[place]]
        is_hidden = any(shared(sides[place], sides[other]) > overlap + 1e-12 for other in better)
        assert (place in kept) != is_hidden


def test_distances_become_boxes_around_the_centre_of_their_place() -> None:
    distances = np.zeros((4, 2, 3), dtype=np.float32)
    distances[:, 1, 2] = (1.0, 2.0, 3.0, 4.0)
    found = decoded(distances, 4.0)
    assert found.shape == (6, 4)
    assert found[0].tolist() == [1.5, 1.5, 1.5, 1.5]
    assert found[5].tolist() == [8.5, 3.5, 12.5, 9.5]
    assert decoded(-distances, 4.0)[5].tolist() == [9.5, 5.5, 9.5, 5.5]


def test_spots_are_found_where_they_are() -> None:
    subject = made("detect")
    source = example_volume((2, 61, 67))
    with engine_of(subject) as engine:
        findings = engine.run({"image": source}, engine.card.resolve({}))["findings"]
        none = engine.run({"image": source}, engine.card.resolve({"score": 1.0}))["findings"]
    assert isinstance(findings, Findings)
    bright = sorted((item.slice_index, item.box) for item in findings.items if item.label == "bright")
    centres = [((box[0] + box[2]) / 2, (box[1] + box[3]) / 2) for _, box in bright]
    assert [index for index, _ in bright] == [0, 0, 1, 1]
    assert np.allclose(centres, [(21.5, 29.5), (33.5, 21.5)] * 2, atol=0.1)
    assert all(0.5 <= item.score <= 1.0 for item in findings.items)
    assert none == Findings(())


def computed_of(scores: np.ndarray, distances: np.ndarray, rows: int, columns: int) -> Computed:
    piece = Piece(range(1), Region(0, rows, 0, columns), {"scores": scores, "boxes": distances})
    source = Volume(np.zeros((1, rows, columns), np.float32), np.eye(4), HU)
    return Computed(made("detect").card, {}, source, 1, [piece])


def test_what_lies_in_rows_that_were_only_added_is_no_finding() -> None:
    scores, distances = np.ones((1, 2, 2, 2), np.float32), np.full((1, 4, 2, 2), 1.0, np.float32)
    found = values(computed_of(scores, distances, 5, 8))["findings"]
    assert isinstance(found, Findings)
    assert {item.box for item in found.items} == {(0.5, 0.5, 2.5, 2.5), (4.5, 0.5, 6.5, 2.5)}


@pytest.mark.parametrize("rows", [61, 64])
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_a_place_is_where_the_network_saw_it(rows: int, stride: int) -> None:
    """Whatever was padded: its network divides by 4, and gives a place for each pixel, for two or for four."""
    place, wide = 40 // stride, 64 // stride
    scores, distances = np.zeros((1, 2, wide, wide), np.float32), np.full((1, 4, wide, wide), 2.0, np.float32)
    scores[0, 0, place, place] = 1.0
    given = {"scores": scores, "boxes": distances}
    targets = computed(lambda _: given, {"image": np.zeros((1, 1, rows, rows), np.float32)}, Tiling(multiple_px=4))
    found = values(computed_of(targets["scores"], targets["boxes"], rows, rows))["findings"]
    centre = place * stride + (stride - 1) / 2
    assert isinstance(found, Findings)
    assert [item.box for item in found.items] == [(centre - 2, centre - 2, centre + 2, centre + 2)]


def test_boxes_end_at_the_slice() -> None:
    scores, distances = np.ones((1, 2, 1, 1), np.float32), np.full((1, 4, 1, 1), 90.0, np.float32)
    found = values(computed_of(scores, distances, 4, 4))["findings"]
    assert isinstance(found, Findings)
    assert {item.box for item in found.items} == {(0.0, 0.0, 3.0, 3.0)}


@pytest.mark.parametrize(("labels", "sides", "columns"), [(1, 4, 2), (3, 4, 2), (2, 3, 2), (2, 4, 1)])
def test_scores_and_boxes_that_do_not_fit_are_refused(labels: int, sides: int, columns: int) -> None:
    scores, distances = np.ones((1, labels, 2, 2), np.float32), np.ones((1, sides, 2, columns), np.float32)
    with pytest.raises(EngineInputError, match="scores and") as error:
        values(computed_of(scores, distances, 8, 8))
    assert "labels" in error.value.hint


@pytest.mark.parametrize("score", [-0.5, 7.0])
def test_scores_that_are_no_probabilities_are_refused(score: float) -> None:
    scores, distances = np.full((1, 2, 2, 2), score, np.float32), np.ones((1, 4, 2, 2), np.float32)
    with pytest.raises(EngineInputError, match=r"not 0\.\.\.1"):
        values(computed_of(scores, distances, 8, 8))


@pytest.mark.parametrize("name", ["scores", "boxes"])
def test_what_is_no_number_is_not_taken_for_nothing_found(name: str) -> None:
    tensors = {"scores": np.zeros((1, 2, 2, 2), np.float32), "boxes": np.ones((1, 4, 2, 2), np.float32)}
    tensors[name][0, 1, 1, 1] = np.nan
    with pytest.raises(RuntimeFailedError, match=f"values of {name} that are no numbers"):
        values(computed_of(tensors["scores"], tensors["boxes"], 8, 8))


def test_a_network_that_finds_something_everywhere_is_bounded() -> None:
    scores = np.random.default_rng(0).uniform(0.9, 1.0, (1, 2, 64, 64)).astype(np.float32)
    found = values(computed_of(scores, np.full((1, 4, 64, 64), 0.1, np.float32), 256, 256))["findings"]
    assert isinstance(found, Findings)
    assert len(found.items) == 2000
