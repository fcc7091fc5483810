"""Where tests find the shared test data, which is no part of the project: public DICOM collections beside the clone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_BESIDE_THE_CLONE = Path(__file__).resolve().parents[2] / "shared" / "data"


def shared_data(relative: str) -> Path:
    """The path of shared test data, such as `ct/dicom/lidc0002`; skips the test where it is absent."""
    root = Path(os.environ.get("DICOMNODE_SHARED_DATA", _BESIDE_THE_CLONE))
    path = root / relative
    if not path.exists():
        pytest.skip(f"needs the shared test data {relative} (set DICOMNODE_SHARED_DATA to the folder that holds it)")
    return path
