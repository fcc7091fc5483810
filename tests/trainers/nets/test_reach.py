"""A net's stated halo and multiple: tiles computed apart must be what the whole slice gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from engines.tiling import Tiling, computed
from trainers.nets import build
from trainers.nets.base import Net

_NETS = [
    ("plain", {"channels": 8, "blocks": 1, "highpass_px": 3.0}),
    ("plain", {"channels": 8, "blocks": 2, "noise": False}),
    ("drl", {"channels": 4, "edges": True}),
    ("srresnet", {"channels": 4, "blocks": 2}),
    ("dncnn", {"channels": 4, "layers": 4}),
    ("redcnn", {"channels": 4}),
]


def _net(kind: str, arguments: dict[str, Any]) -> Net:
    torch.manual_seed(1)
    net = build(kind, arguments)
    for weights in net.parameters():
        torch.nn.init.normal_(weights, std=0.3)
    return net.double().eval()


@pytest.mark.parametrize(("kind", "arguments"), _NETS)
def test_a_pixel_looks_no_farther_than_the_halo(kind: str, arguments: dict[str, Any]) -> None:
    net = _net(kind, arguments)
    size = 320 if net.halo_px > 60 else 96
    image = torch.randn(1, 1, size, size, dtype=torch.float64) * 0.03
    changed = image.clone()
    changed[..., size // 2, size // 2] += 1.0
    with torch.no_grad():
        apart = (net(changed) - net(image))[0, 0].abs() > 1e-12
    rows, columns = torch.nonzero(apart, as_tuple=True)
    reach = max(int((places - size // 2).abs().max()) for places in (rows, columns))
    assert 0 < reach <= net.halo_px
    assert reach > net.halo_px // 3  # what is stated beyond need costs tiles


@pytest.mark.parametrize(("kind", "arguments"), _NETS)
def test_tiled_is_whole(kind: str, arguments: dict[str, Any]) -> None:
    net = _net(kind, arguments).float()
    rows, columns = (4 * net.halo_px + 100) // 8 * 8 + 8, 64
    image = (torch.randn(1, 1, rows, columns) * 0.03 + torch.linspace(-1, 0.1, rows)[:, None]).numpy()

    def run(tensors: Any) -> Any:
        with torch.no_grad():
            return {"y": net(torch.from_numpy(tensors["x"].copy())).numpy()}

    tiled = computed(run, {"x": image}, Tiling(net.halo_px, net.multiple_px, 4 * net.halo_px))["y"]
    whole = run({"x": image})["y"]
    assert abs(tiled - whole).max() <= 1e-5 * abs(whole).max()
