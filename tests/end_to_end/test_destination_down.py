"""A destination that is down is tried again, more and more seldom, and delays no other."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest

from dicomnode.testing.node import Node, settings
from dicomnode.testing.peers import Orthanc, storescu
from dicomnode.testing.processes import wait_until
from tests.end_to_end.observation import files_of, wait_for_instances
from tests.shared import shared_data

RULE = {"name": "both", "match": {"Modality": "CT"}, "engines": ["ct-nlm"], "send": ["down", "pacs"]}


class Refusing:
    """Accepts TCP connections and closes them at once, remembering when; a context manager."""

    def __init__(self, port: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", port))
        self._thread = threading.Thread(target=self._serve)
        self.called_at: list[float] = []

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.called_at.append(time.monotonic())
            connection.close()

    def __enter__(self) -> Refusing:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@pytest.mark.peer("dcmtk")
@pytest.mark.peer("orthanc")
def test_a_dead_destination_delays_no_other_and_gets_everything_in_the_end(tmp_path: Path, pacs: Orthanc) -> None:
    files = files_of(shared_data("ct/dicom/lidc0003"))
    down = Orthanc(tmp_path / "down", "DOWN")
    with down, Node(tmp_path / "node", settings({"down": down, "pacs": pacs}, [RULE])) as node:
        down.stop()
        assert storescu(node.call(), files) == 0
        wait_until(lambda: pacs.statistics()["CountInstances"] == 2 * len(files), 120, "the PACS held everything")
        # The PACS counts an instance before we have its answer, and have written that down.
        wait_until(lambda: node.unfinished() == 2 * len(files), 30, "only the destination that is down was waited for")

        down.start()
        wait_for_instances(node, down, 2 * len(files))
        assert down.sop_instance_uids() == pacs.sop_instance_uids()
        assert down.pixel_digests() == pacs.pixel_digests()


@pytest.mark.peer("dcmtk")
@pytest.mark.peer("orthanc")
def test_the_waits_between_attempts_grow(tmp_path: Path) -> None:
    files = files_of(shared_data("ct/dicom/lidc0003"))[:2]
    down = Orthanc(tmp_path / "down", "DOWN")
    rule = {"name": "one", "match": {"Modality": "*"}, "send": ["down"]}
    tree = settings({"down": down}, [rule], destination={"down": {"retry": {"initial_s": 0.5, "maximum_s": 60.0}}})
    with Refusing(down.port) as refusing, Node(tmp_path / "node", tree) as node:
        assert storescu(node.call(), files) == 0
        wait_until(lambda: len(refusing.called_at) >= 5, 60, "the node had tried five times")
    waits = [later - earlier for earlier, later in zip(refusing.called_at, refusing.called_at[1:], strict=False)]
    assert all(wait >= 0.4 * 2**place for place, wait in enumerate(waits[:4])), waits
