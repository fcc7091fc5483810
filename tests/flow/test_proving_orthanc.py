"""Proof by a real archive: Orthanc's storage commitment, reported on an association of its own, and its C-FIND."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomnode.core.proof import ProofKind, ProofPolicy
from dicomnode.net.scu import PeerAddress
from dicomnode.testing.peers import Orthanc
from dicomnode.testing.processes import free_port, wait_until
from tests.flow.asking import NODE, POLICY, Asked, asking, listening

pytestmark = pytest.mark.peer("orthanc")


@pytest.fixture(name="port_of_ours", scope="module")
def _port_of_ours() -> int:
    return free_port()


@pytest.fixture(name="orthanc", scope="module")
def _orthanc(tmp_path_factory: pytest.TempPathFactory, port_of_ours: int) -> Iterator[Orthanc]:
    options = {"DicomModalities": {"node": [NODE, "127.0.0.1", port_of_ours]}}
    with Orthanc(tmp_path_factory.mktemp("orthanc"), options=options) as orthanc:
        yield orthanc


def address(orthanc: Orthanc) -> PeerAddress:
    return PeerAddress("127.0.0.1", orthanc.port, orthanc.ae_title)


def prove_and_hear(asked: Asked, after_s: float) -> None:
    """Ask, and wait for a report that comes when it comes."""
    asked.prove(after_s)
    wait_until(lambda: asked.proof.asked_at is None, 30, "the archive had reported")


def test_storage_commitment_confirms_what_it_holds_and_has_the_rest_sent_again(
    tmp_path: Path, orthanc: Orthanc, port_of_ours: int
) -> None:
    with asking(tmp_path, address(orthanc)) as asked, listening(asked, port_of_ours):
        asked.receive(range(1, 6))
        asked.deliver([1, 2, 3])
        prove_and_hear(asked, 10)
        assert asked.confirmed == {1: "commitment", 2: "commitment", 3: "commitment", 4: None, 5: None}
        assert asked.proof.failures == {"1.2.3.4.4": 0x0112, "1.2.3.4.5": 0x0112}
        assert {row.state for row in asked.rows.values()} == {"sent"}  # it may index late

        prove_and_hear(asked, POLICY.again_s)
        asked.prove(0)
        assert [number for number, row in asked.rows.items() if row.state == "ready"] == [4, 5]
        assert asked.proof.resends == 1

        asked.deliver([4, 5])
        asked.receipts()
        prove_and_hear(asked, 10)
        assert set(asked.confirmed.values()) == {"commitment"}
        asked.prove(0)
        assert asked.proof.due_at is None


def test_what_is_not_asked_for_by_commitment_is_found_at_image_level(tmp_path: Path, orthanc: Orthanc) -> None:
    policy = ProofPolicy(ProofKind.FIND)
    with asking(tmp_path, address(orthanc), policy) as asked:
        asked.receive(range(11, 15))
        asked.deliver([11, 12])
        asked.prove(10)
        assert asked.confirmed == {11: "find", 12: "find", 13: None, 14: None}
        asked.deliver([13])  # indexed late
        asked.prove(policy.again_s)
        assert asked.confirmed == {11: "find", 12: "find", 13: "find", 14: None}
        assert [number for number, row in asked.rows.items() if row.state == "ready"] == [14]
