"""A person pauses, resumes, retries: a running node goes along at once, and a restarted one remembers."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from dicomnode.testing.node import Node, settings
from dicomnode.testing.peers import StoreScp
from dicomnode.testing.processes import wait_until
from dicomnode.testing.sender import RawObject, send_verbatim
from tests.end_to_end.observation import TIMEOUT_S
from tests.end_to_end.studies import phantom_series

RULE = {"name": "all", "match": {"Modality": "*"}, "send": ["archive"]}
IMPATIENT = {"archive": {"retry": {"initial_s": 0.2, "probe_s": 0.5, "patience_h": 0.0005}}}


@pytest.mark.peer("dcmtk")
def test_what_comes_in_a_pause_waits_through_a_restart_and_goes_when_it_ends(tmp_path: Path, archive: StoreScp) -> None:
    first, second = (RawObject.read(path) for path in phantom_series(tmp_path / "scanner", slices=2))
    with Node(tmp_path / "node", settings({"archive": archive}, [RULE])) as node:
        assert send_verbatim(node.call(), [first])
        wait_until(lambda: received(archive) == 1, TIMEOUT_S, "the first was there")
        assert node.ask("pause", "archive", "--reason", "new disks")["changed"]
        time.sleep(1.0)  # so soon it is to hold
        assert send_verbatim(node.call(), [second])
        assert node.stop() == 0
        node.start()
        (destination,) = node.status()["destinations"]
        assert (destination["ready"], received(archive)) == (1, 1)
        assert "new disks" in destination["notes"][0]
        node.ask("resume", "archive")
        wait_until(lambda: received(archive) == 2, TIMEOUT_S, "the second was there")


@pytest.mark.peer("dcmtk")
def test_what_was_not_taken_in_time_goes_at_a_retry(tmp_path: Path, archive: StoreScp) -> None:
    sent = [RawObject.read(path) for path in phantom_series(tmp_path / "scanner", slices=3)]
    archive.stop()
    with Node(tmp_path / "node", settings({"archive": archive}, [RULE], destination=IMPATIENT)) as node:
        assert send_verbatim(node.call(), sent)
        wait_until(lambda: node.unfinished() == 0, TIMEOUT_S, "its patience was over")
        assert node.log().count("delivery_held") == 1
        archive.start()
        node.wait_for_log("destination_up")
        assert node.ask("jobs", "retry", "--failed", "--to", "archive")["instances"] == {"archive": 3}
        wait_until(lambda: received(archive) == 3, TIMEOUT_S, "all were there")
        assert node.log().count('"destination_down"') <= 1


def received(archive: StoreScp) -> int:
    return len(list(archive.files.iterdir()))
