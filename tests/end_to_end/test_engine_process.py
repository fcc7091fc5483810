"""An engine process that is killed in the middle: the job goes on, and the PACS has each derived image once."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from bench.measures import Process, processes
from dicomnode.testing.node import Node, settings
from dicomnode.testing.peers import Orthanc, storescu
from dicomnode.testing.processes import wait_until
from tests.end_to_end.observation import wait_for_instances
from tests.end_to_end.studies import phantom_series

SLICES = 160
RULES = [{"name": "denoise", "match": {"Modality": "CT"}, "engines": ["ct-nlm"], "send": ["pacs"]}]


def engines(node: Node) -> list[Process]:
    """The engine processes of a node."""
    return [one for one in processes(node.pid) if "inference.process" in Path(f"/proc/{one.pid}/cmdline").read_text()]


@pytest.mark.peer("dcmtk")
@pytest.mark.peer("orthanc")
def test_a_killed_engine_process_loses_and_doubles_nothing(tmp_path: Path, pacs: Orthanc) -> None:
    first, second = phantom_series(tmp_path / "first", 4), phantom_series(tmp_path / "second", SLICES, seed=1)
    with Node(tmp_path / "node", settings({"pacs": pacs}, RULES)) as node:
        assert storescu(node.call(), first) == 0
        wait_for_instances(node, pacs, 2 * len(first))
        warm = engines(node)
        idle_s = max(one.cpu_s for one in warm)
        assert storescu(node.call(), second) == 0
        wait_until(lambda: max(one.cpu_s for one in engines(node)) > idle_s + 0.5, 60.0, "an engine computes")
        busy = max(engines(node), key=lambda one: one.cpu_s)
        os.kill(busy.pid, signal.SIGKILL)
        wait_for_instances(node, pacs, 2 * (len(first) + SLICES))
        node.wait_until_idle()
        assert node.log().count('"engine_process_lost"') == 1
        assert node.log().count('"job_finished"') == 2
        assert node.log().count('"job_failed"') == 0
        assert len(pacs.sop_instance_uids()) == 2 * (len(first) + SLICES)
        assert node.stop() == 0
