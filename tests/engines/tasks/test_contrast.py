"""A classical operation whose settings a network predicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from dicomnode.testing.bundles import made
from engines.bundle.examples import example_volume
from engines.card import Method
from engines.classical.glcae import ContrastGlcae, enhanced, equalised
from engines.errors import EngineInputError, RuntimeFailedError
from engines.model.chain import Portions
from engines.model.engine import ModelEngine
from engines.prompt import Region
from engines.tasks.base import Computed, Piece
from engines.tasks.contrast import predicted
from engines.volume import Volume

CARD = made("contrast").card
SOURCE = example_volume((3, 64, 70))


def computed(**numbers: list[float]) -> Computed:
    targets = {name: np.array(several, np.float32).reshape(-1, 1, 1, 1) for name, several in numbers.items()}
    return Computed(CARD, {}, SOURCE, 1, [Piece(range(3), Region(0, 64, 0, 70), targets)])


def test_the_median_of_the_slices_counts_within_what_the_method_takes() -> None:
    assert predicted(computed(clip=[1.0, 2.5, 9.0], grid=[3.2, 4.4, 7.0])) == {"clip": 2.5, "grid": 4}
    assert predicted(computed(clip=[99.0], grid=[-5.0])) == {"clip": 8.0, "grid": 2}


def test_no_number_and_an_image_of_numbers_are_refused() -> None:
    with pytest.raises(RuntimeFailedError, match="no numbers"):
        predicted(computed(clip=[np.nan], grid=[2.0]))
    image = Piece(range(1), Region(0, 2, 0, 2), {"clip": np.ones((1, 1, 2, 2), np.float32)})
    with pytest.raises(EngineInputError, match=r"gives clip as \(1, 2, 2\)"):
        predicted(Computed(CARD, {}, SOURCE, 1, [image]))


class Certain:
    """A network that gives the same numbers of every slice."""

    identity = "certain/float32"

    def __init__(self) -> None:
        self.slices = 0

    def run(self, tensors: Mapping[str, NDArray[np.float32]]) -> Mapping[str, NDArray[np.float32]]:
        count = len(tensors["image"])
        self.slices += count
        return {name: np.full((count, 1, 1, 1), 0.5, np.float32) for name in ("clip", "grid")}

    def close(self) -> None:
        """It holds nothing."""


@pytest.mark.parametrize("method", ["glcae", "clahe"])
def test_the_output_is_the_classical_one_with_the_predicted_settings(method: Method) -> None:
    network = Certain()
    engine = ModelEngine(replace(CARD, method=method), [network], Portions(slices=2))
    image = engine.run({"image": SOURCE}, engine.card.resolve({"window": "bone"}))["image"]
    assert isinstance(image, Volume)
    assert network.slices == 3
    classical = {"glcae": enhanced, "clahe": equalised}[method]
    expected = classical(SOURCE, ContrastGlcae.card.resolve({"window": "bone", "clip": 4.5, "grid": 9}))
    assert np.array_equal(image.voxels, expected.voxels)
    assert (image.unit, image.window) == (expected.unit, expected.window)
