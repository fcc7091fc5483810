"""The trainers need torch, which the node does not: without it none of these tests is collected."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

collect_ignore_glob = [] if find_spec("torch") else ["*"]


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Nets of a few channels gain nothing from more: beside other programs their threads wait for each other."""
    import torch

    torch.set_num_threads(1)
