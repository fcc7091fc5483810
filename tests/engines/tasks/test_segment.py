"""Labels from scores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dicomnode.testing.bundles import engine_of, made
from engines.card import Port
from engines.errors import EngineInputError, RuntimeFailedError
from engines.prompt import Region
from engines.tasks.base import Computed, Piece
from engines.tasks.segment import labelled, values
from engines.volume import HU, Mask, Volume


def test_the_highest_score_counts() -> None:
    scores = np.zeros((1, 3, 2, 2), dtype=np.float32)
    scores[0, 2, 0, 1] = scores[0, 1, 1, 0] = 1.0
    assert labelled(scores, 2).tolist() == [[[0, 2], [1, 0]]]


def test_one_probability_counts_from_the_threshold_on() -> None:
    scores = np.array([0.1, 0.5, 0.8], dtype=np.float32).reshape(1, 1, 1, 3)
    assert labelled(scores, 1).ravel().tolist() == [0, 1, 1]
    assert labelled(scores, 1, threshold=0.7).ravel().tolist() == [0, 0, 1]


@pytest.mark.parametrize(("channels", "labels"), [(2, 2), (1, 2), (3, 1)])
def test_channels_that_are_no_labels_are_refused(channels: int, labels: int) -> None:
    with pytest.raises(EngineInputError, match="channels") as error:
        labelled(np.zeros((1, channels, 2, 2), np.float32), labels)
    assert "background" in error.value.hint


def test_scores_that_are_no_numbers_are_no_labels() -> None:
    scores = np.zeros((1, 2, 2, 2), dtype=np.float32)
    scores[0, 1, 0, 0] = np.nan
    with pytest.raises(RuntimeFailedError, match="no numbers"):
        labelled(scores, 1)


@pytest.mark.parametrize("order", [1, -1])
def test_marks_near_to_each_other_take_nothing_from_each_other(order: int) -> None:
    """Each network sees its own lesion; in the other's region there is background for it."""
    pieces = [
        Piece(range(1), Region(0, 6, left, left + 6), {"labels": np.full((1, 1, 6, 6), 0.1, np.float32)})
        for left in (0, 4)
    ]
    pieces[0].targets["labels"][0, 0, 2:4, 2:5] = pieces[1].targets["labels"][0, 0, 2:4, 2:5] = 0.9
    card = replace(made("segment-marked").card, outputs={"labels": Port("mask", labels=("lesion",))})
    source = Volume(np.zeros((1, 6, 10), np.float32), np.eye(4), HU)
    mask = values(Computed(card, {}, source, 1, pieces[::order]))["labels"]
    assert isinstance(mask, Mask)
    assert mask.labels[0, 2].tolist() == [0, 0, 1, 1, 1, 0, 1, 1, 1, 0]


def test_three_series_are_seen_together() -> None:
    """The mean of the three decides: 0.9 kHU is bone only where all three, or their mean, are above 0.3."""
    subject = made("segment")
    names = list(subject.card.inputs)
    plain = {name: Volume(np.full((1, 4, 3), -900.0, np.float32), np.eye(4), HU) for name in names}
    plain[names[0]].voxels[0, :, 1:] = 900.0
    plain[names[1]].voxels[0, :, 1:] = 900.0
    plain[names[2]].voxels[0, :, 2] = 900.0
    with engine_of(subject) as engine:
        mask = engine.run(plain, {})["mask"]
    assert isinstance(mask, Mask)
    assert mask.labels[0, 0].tolist() == [0, 1, 2]
    assert mask.names == {1: "body", 2: "bone"}
