"""The original, the denoised and the enhanced slice as one image: here, and in a card of the node's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from engines.bundle.provenance import Provenance, Training
from engines.card import Scale, Stage, TensorInput, TensorOutput
from engines.chaining import Link, check_links
from engines.model.engine import ModelEngine
from engines.prompt import Recist
from engines.runtimes.base import Tensors
from engines.volume import ARBITRARY, HU, Volume
from tests.engines.phantoms import body, noisy
from tests.trainers.made import miniature
from trainers.nets import build
from trainers.nets.base import Net
from trainers.recipes.reading import read_recipe
from trainers.recipes.recipe import Recipe
from trainers.shipping.channels import channels
from trainers.shipping.export import Trained, card_of, network_of


@pytest.fixture
def trained() -> tuple[Recipe, dict[str, Net]]:
    torch.manual_seed(0)
    recipe = miniature(read_recipe("sgan")).recipe
    return recipe, {stage.name: build(stage.net.kind, stage.net.arguments).eval() for stage in recipe.stages}


class _Session:
    identity = "test/float32"

    def __init__(self, net: Net | None, seen: list[np.ndarray]) -> None:
        self._net, self._seen = net, seen

    def run(self, tensors: Tensors) -> Tensors:
        image = torch.from_numpy(np.array(tensors["x"]))
        self._seen.append(tensors["x"])
        with torch.no_grad():
            return {"y": (image[:, :1] if self._net is None else self._net(image)).numpy()}

    def close(self) -> None:
        pass


def test_three_channels_here_and_for_a_network_of_the_node(trained: tuple[Recipe, dict[str, Net]]) -> None:
    recipe, nets = trained
    source = noisy(body(64), 10.0)
    found = channels(recipe, nets, source)
    assert found.shape == (3, 64, 64)
    np.testing.assert_array_equal(found[0], source)

    whole = Trained(recipe, nets, Provenance("x", "x", Training("x")))
    card = card_of(whole)
    back = Scale(offset=1024.0)  # of the presentation image to HU
    inputs = (TensorInput("x", "image"), TensorInput("x", "denoised"), TensorInput("x", "enhanced", back))
    third = Stage("segment.onnx", inputs, (TensorOutput("y", "segmented"),))
    seen: list[np.ndarray] = []
    sessions = [*(_Session(network_of(whole, entry), []) for entry in recipe.shipping.stages), _Session(None, seen)]
    engine = ModelEngine(replace(card, stages=(*card.stages, third)), sessions)
    engine.run({"image": Volume(source[None], np.eye(4), HU)}, {"strength": 1.0})
    np.testing.assert_allclose(seen[0][0], found, atol=0.1)


def test_both_images_and_the_original_go_into_another_engine_of_a_rule(trained: tuple[Recipe, dict[str, Net]]) -> None:
    recipe, nets = trained
    card = card_of(Trained(recipe, nets, Provenance("x", "x", Training("x"))))
    segment = Link("segment@1", dict.fromkeys(("original", "denoised", "enhanced"), "volume"), {"mask": "mask"})
    check_links([Link.of(card.reference, card, ("denoised", "enhanced")), segment], ["image"])
    assert (card.outputs["denoised"].unit, card.outputs["enhanced"].unit) == (HU, ARBITRARY)
    assert card.outputs["enhanced"].presentation


def test_a_lesion_alone(trained: tuple[Recipe, dict[str, Net]]) -> None:
    recipe, nets = trained
    source = noisy(body(128), 10.0)
    mark = Recist(0, ((50.0, 60.0), (66.0, 60.0)), ((58.0, 56.0), (58.0, 64.0)))
    found = channels(recipe, nets, source, mark)
    assert found.shape == (3, 32, 32)
    np.testing.assert_array_equal(found[0], source[44:76, 42:74])
