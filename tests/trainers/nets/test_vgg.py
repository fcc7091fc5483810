from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from trainers.errors import SourceError
from trainers.nets.vgg import VGG, Depth, load_vgg
from trainers.recipes.recipe import LossTerm
from trainers.training.losses import Sight, Terms


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("owned"),)  # type: ignore[return-value]


def _weights(depth: Depth = 16) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {name: torch.randn_like(tensor) * 0.02 for name, tensor in VGG(depth).state_dict().items()}


@pytest.mark.parametrize(("depth", "convolutions"), [(16, 13), (19, 16)])
def test_its_names_are_those_of_the_published_weights(depth: Depth, convolutions: int) -> None:
    names = list(VGG(depth).state_dict())
    assert len(names) == 2 * convolutions
    assert names[-1] == ("features.28.bias" if depth == 16 else "features.34.bias")


def test_weights_are_taken_from_a_file_and_compared_by(tmp_path: Path) -> None:
    path = tmp_path / "vgg16.pth"
    torch.save({**_weights(), "classifier.0.weight": torch.zeros(2, 2)}, path)
    net = load_vgg(path)
    maps = net(torch.rand(1, 1, 32, 32))
    assert [tuple(one.shape[1:]) for one in maps] == [
        (64, 32, 32),
        (128, 16, 16),
        (256, 8, 8),
        (512, 4, 4),
        (512, 2, 2),
    ]
    made = torch.zeros(1, 1, 32, 32, requires_grad=True)
    value = Terms((LossTerm("vgg"),), net)(Sight(made, torch.full((1, 1, 32, 32), 100.0)))["vgg"]
    value.backward()
    assert value > 0
    assert made.grad is not None and made.grad.abs().sum() > 0
    assert all(weights.grad is None for weights in net.parameters())


def test_another_shape_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vgg16.pth"
    torch.save({**_weights(), "features.0.weight": torch.zeros(64, 1, 3, 3)}, path)
    with pytest.raises(SourceError, match=r"features\.0\.weight"):
        load_vgg(path)


@pytest.mark.parametrize("content", [pickle.dumps(_Evil()), b"nothing", b""])
def test_nothing_in_the_file_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "vgg16.pth"
    path.write_bytes(content)
    with pytest.raises(SourceError):
        load_vgg(path)
    assert not Path("owned").exists()
