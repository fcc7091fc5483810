"""engines bench: what it measures, on small slices; never how fast."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicomnode.config import load_config
from dicomnode.store import bundles
from dicomnode.store.bundles import By
from dicomnode.testing.bundles import made, made_bundle
from engines.runtimes.cost import gflop
from tests.cli.conftest import Command


@pytest.fixture(name="site")
def _site(command: Command, tmp_path: Path) -> Command:
    """A node with two bundles."""
    command("init", "--yes", "--pacs", "PACS,127.0.0.1,104")
    for shape in ("two-stages", "segment-marked"):
        folder = tmp_path / shape
        folder.mkdir()
        installed = load_config(tmp_path / "dicomnode.toml").bundles
        bundles.add(installed, made_bundle(folder, shape), "", By("somebody", 1.7e9))
    return command


def test_all_engines_with_what_their_networks_cost(site: Command) -> None:
    options = ("--slices", "3", "--size", "64", "--threads", "1", "--precision", "float32", "--json")
    measured = {one["engine"]: one for one in site("engines", "bench", *options).json["engines"]}
    assert measured["contrast-glcae@1.0.0"]["seconds"] > 0
    assert measured["contrast-glcae@1.0.0"]["networks"] is None
    assert measured["random-segment-marked@1.0.0"]["networks"]["gflop"] > 0
    two = measured["random-two-stages@1.0.0"]
    assert two["runtime"].startswith("onnxruntime-")
    assert two["networks"]["seconds"] > 0
    assert two["networks"]["share_of_roof"] > 0
    costs = [gflop(content, {"image": (1, 1, 64, 64)}) for content in made("two-stages").networks.values()]
    assert two["networks"]["gflop"] == pytest.approx(sum(costs))


def test_one_engine_in_words(site: Command) -> None:
    options = ("--slices", "1", "--size", "64", "--threads", "1", "--runtime", "onnxruntime", "--batch", "2")
    ran = site("engines", "bench", "random-two-stages", *options)
    assert ran.code == 0
    assert "1 slice of 64 x 64" in ran.out
    assert "random-two-stages@1.0.0 by onnxruntime-" in ran.out
    assert "/float32, 1 thread on cpu" in ran.out
    assert "GFLOP/s that plain convolutions reach here" in ran.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("random-two-stages", "--precision", "int8"), "for detectors only"),
        (("random-two-stages", "--runtime", "openvin"), "did you mean 'openvino'"),
        (("ct-nml",), "did you mean 'ct-nlm'"),
    ],
)
def test_what_cannot_be_measured_is_said(site: Command, arguments: tuple[str, ...], message: str) -> None:
    ran = site("engines", "bench", *arguments)
    assert ran.code != 0
    assert message in ran.err
