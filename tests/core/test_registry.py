"""SOP classes and transfer syntaxes as people write them."""

from __future__ import annotations

import pytest

from dicomnode.core.registry import storage_classes, transfer_syntaxes


def test_uids_keywords_and_patterns() -> None:
    assert storage_classes("1.2.3.4") == ("1.2.3.4",), "private ones too"
    assert storage_classes("CTImageStorage") == ("1.2.840.10008.5.1.4.1.1.2",)
    reports = storage_classes("*SRStorage")
    assert "1.2.840.10008.5.1.4.1.1.88.33" in reports
    assert "1.2.840.10008.5.1.4.1.1.2" not in reports
    assert transfer_syntaxes("RLELossless") == ("1.2.840.10008.1.2.5",)
    assert set(transfer_syntaxes("?xplicitVRLittleEndian")) == {"1.2.840.10008.1.2.1"}


@pytest.mark.parametrize("text", ["CTImage", "", "Verification", "*Nothing*"])
def test_what_names_nothing_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="names no storage SOP class"):
        storage_classes(text)
    with pytest.raises(ValueError, match="names no transfer syntax"):
        transfer_syntaxes("Explicit")
