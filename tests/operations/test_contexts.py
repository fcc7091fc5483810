"""contexts: what real peers accept."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicomnode.config import Config, load_config
from dicomnode.errors import NotFoundError
from dicomnode.operations.contexts import SYNTAXES, contexts
from dicomnode.operations.trace import trace
from dicomnode.testing.node import toml
from dicomnode.testing.peers import Orthanc, StoreScp

CT, LABEL_MAP = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.66.7"


def config(folder: Path, port: int, ae_title: str) -> Config:
    tree = {"node": {"data": "data"}, "peer": {"pacs": {"ae_title": ae_title, "host": "127.0.0.1", "port": port}}}
    (folder / "dicomnode.toml").write_text(toml(tree))
    return load_config(folder / "dicomnode.toml")


@pytest.mark.peer("dcmtk")
def test_a_storescp_that_takes_only_uncompressed_objects(tmp_path: Path) -> None:
    with StoreScp(tmp_path, options=("-pdu", "32768")) as scp:
        found = contexts(config(tmp_path, scp.port, scp.ae_title), "pacs")
    ct = next(one for one in found.classes if one.sop_class_uid == CT)
    assert set(ct.transfer_syntaxes) == {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1"}
    assert found.maximum_pdu_bytes == 32768
    assert found.implementation.startswith("OFFIS_DCMTK")
    assert found.lines()[3].split()[-len(SYNTAXES) :].count("x") == 2


@pytest.mark.peer("orthanc")
def test_orthanc_takes_compressed_ones_and_no_label_maps(tmp_path: Path) -> None:
    with Orthanc(tmp_path / "orthanc") as peer:
        found = contexts(config(tmp_path, peer.port, peer.ae_title), "pacs")
    by_class = {one.sop_class_uid: one.transfer_syntaxes for one in found.classes}
    assert "1.2.840.10008.1.2.4.90" in by_class[CT]
    assert LABEL_MAP not in by_class


def test_a_trace_is_switched_and_shown(tmp_path: Path) -> None:
    here = config(tmp_path, 104, "PACS")
    assert not trace(here, "pacs", "show").is_on
    assert trace(here, "pacs", "on").is_on
    assert trace(here, "pacs", "show").recorded == ()
    assert not trace(here, "pacs", "off").is_on
    with pytest.raises(NotFoundError, match="no peer"):
        trace(here, "elsewhere", "on")
