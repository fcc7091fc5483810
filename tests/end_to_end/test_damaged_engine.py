"""A damaged engine: the node starts, says so, receives and sends originals; its jobs fail, and are done once mended."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicomnode.store import bundles
from dicomnode.store.bundles import By
from dicomnode.testing.bundles import made_bundle
from dicomnode.testing.node import Node, settings
from dicomnode.testing.peers import Orthanc, storescu
from tests.end_to_end.observation import wait_for_instances
from tests.end_to_end.studies import phantom_series

ENGINE = "random-adjacent@1.0.0"
RULES = [{"name": "locked", "match": {"Modality": "CT"}, "engines": [ENGINE], "send": ["pacs"]}]


@pytest.mark.peer("dcmtk")
@pytest.mark.peer("orthanc")
def test_originals_do_not_wait_for_a_damaged_engine(tmp_path: Path, pacs: Orthanc) -> None:
    (tmp_path / "made").mkdir()
    bundle = made_bundle(tmp_path / "made", "adjacent")
    series = phantom_series(tmp_path / "series", 3)
    node = Node(tmp_path / "node", settings({"pacs": pacs}, RULES))
    bundles.add(node.data / "engines", bundle, "", By("physicist", 1.7e9))
    network = node.data / "engines" / "random-adjacent" / "1.0.0" / "net.onnx"
    network.write_bytes(network.read_bytes()[:-1])
    with node:
        node.wait_for_log('"engine_unusable"')
        assert storescu(node.call(), series) == 0
        wait_for_instances(node, pacs, len(series))
        (problem,) = node.status()["problems"]
        assert problem["kind"] == "failed"
        assert "net.onnx is not the file" in problem["reason"] and "engines add" in problem["reason"]
        bundles.add(node.data / "engines", bundle, "", By("physicist", 1.7e9))
        assert node.command("quarantine", "requeue", "--all").returncode == 0
        node.wait_until_idle()
        assert '"engine_opened"' in node.log()
        assert '"job_finished"' in node.log() or '"job_withheld"' in node.log()
        assert node.stop() == 0
