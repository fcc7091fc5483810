"""The demonstration: the real node, and a story that is true."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest

from dicomnode.config import load_config
from dicomnode.errors import UsageError
from dicomnode.operations.demo import run_demo
from dicomnode.operations.why import why
from dicomnode.settings import DerivedSettings


def test_a_phantom_goes_through_the_node_and_comes_back_with_less_noise(tmp_path: Path) -> None:
    folder, told = tmp_path / "demo", list[str]()
    assert run_demo(folder, DerivedSettings(), told.append)
    topics = [line.split()[0] for line in told if not line.startswith(" ")]
    assert topics == [
        "node", "scanner", "arrived", "closed", "rule", "engine", "derived", "delivered", "noise", "archive", "picture",
        "next",
    ]  # fmt: skip
    before, after = (float(word) for word in next(line for line in told if "noise  " in line).split() if "." in word)
    assert after < 0.8 * before
    picture = cv2.imread(str(folder / "before-after.png"), cv2.IMREAD_UNCHANGED)
    assert picture is not None
    assert picture.shape[1] == 2 * picture.shape[0]
    assert any("matches" in line for line in why(load_config(folder / "dicomnode.toml"), told[-1].split()[3]).lines())
    assert "node_stopped" in (folder / "node.log").read_text()


def test_only_what_a_demonstration_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        run_demo(tmp_path, DerivedSettings(), lambda _: None)
    assert (tmp_path / "precious").read_text() == "mine"
