"""Weights and operations of a 512 x 512 slice, against counts of the papers' nets made elsewhere."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from trainers.errors import RecipeError
from trainers.nets import build
from trainers.nets.base import cost


@pytest.mark.parametrize(
    ("kind", "arguments", "millions", "gflop"),
    [
        ("srresnet", {"blocks": 9}, 0.715, 373),
        ("srresnet", {"blocks": 16}, 1.234, 643),
        ("drl", {}, 0.225, 117),
        ("plain", {"channels": 48, "blocks": 3, "noise": False}, 0.128, 17),
        ("redcnn", {}, 1.85, 917),
        ("dncnn", {}, 0.556, 290.5),
    ],
)
def test_what_a_net_weighs_and_computes(kind: str, arguments: dict[str, Any], millions: float, gflop: float) -> None:
    found = cost(build(kind, arguments))
    assert found.parameters / 1e6 == pytest.approx(millions, abs=0.002)
    assert found.gflop == pytest.approx(gflop, rel=0.015)


def test_the_default_stays_below_its_budget() -> None:
    assert cost(build("plain", {"highpass_px": 3.0})).gflop <= 25


@pytest.mark.parametrize("kind", ["drl", "srresnet"])
def test_an_image_leaves_in_full_precision(kind: str) -> None:
    """In eight bits lung would come in steps of 4 HU."""
    net = build(kind, {}).eval()
    image = torch.full((1, 1, 32, 32), -0.8) + torch.linspace(0, 0.002, 32)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        made = net(image)
    assert made.dtype == torch.float32
    assert (made != made.bfloat16().float()).float().mean() > 0.9


def test_an_unknown_net_or_argument_names_the_nearest() -> None:
    with pytest.raises(RecipeError) as unknown:
        build("srresnt", {})
    assert "srresnet" in unknown.value.hint
    with pytest.raises(RecipeError, match="blcks"):
        build("srresnet", {"blcks": 3})
