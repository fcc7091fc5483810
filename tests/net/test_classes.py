"""What a server takes in by its configuration, and that a changed one counts from the next association on."""

from __future__ import annotations

from dataclasses import replace

from dicomnode.net import pdu
from dicomnode.net.contexts import ProposedContext
from dicomnode.net.dimse import Element, parse_command
from dicomnode.net.negotiation import read_answer
from dicomnode.net.scp.server import StorageServer
from dicomnode.net.scp.settings import ScpSettings
from tests.net.clients import CT_IMAGE, EXPLICIT, MemoryIntake, calling, fragment, store_request

PRIVATE = "1.3.12.2.1107.5.9.1"
PROPOSED = (
    ProposedContext(CT_IMAGE, (EXPLICIT,)),
    ProposedContext(PRIVATE, (EXPLICIT,)),
    ProposedContext("1.2.840.10008.5.1.4.1.2.2.1", (EXPLICIT,)),
)


def results(server: StorageServer) -> list[int]:
    """Results of the same proposal."""
    with calling(server) as client:
        answer = read_answer(client.associate(*PROPOSED)[6:]).results
        client.send(pdu.RELEASE_RQ)
        assert client.read_pdu() == pdu.RELEASE_RP
    return [answer[context_id][0] for context_id in (1, 3, 5)]


def test_the_same_proposal_is_judged_by_the_settings_of_the_day(settings: ScpSettings, server: StorageServer) -> None:
    assert results(server) == [0, 3, 3]
    server.reconfigure(replace(settings, private_sop_classes=(PRIVATE,)))
    assert results(server) == [0, 0, 3]
    server.reconfigure(settings)
    assert results(server) == [0, 3, 3]
    server.reconfigure(replace(settings, accept_unknown_sop_classes=True))
    assert results(server) == [0, 0, 3]


def test_an_instance_of_an_unknown_class_is_stored(
    settings: ScpSettings, server: StorageServer, intake: MemoryIntake
) -> None:
    server.reconfigure(replace(settings, accept_unknown_sop_classes=True))
    with calling(server) as client:
        client.associate(*PROPOSED)
        for context_id, sop_class_uid in ((3, PRIVATE), (3, CT_IMAGE)):
            client.send(fragment(store_request("1.2.3", sop_class_uid), context_id, is_command=True))
            client.send(fragment(b"data", context_id))
            status = parse_command(client.read_pdu()[12:]).number(Element.STATUS)
            assert status == (0 if sop_class_uid == PRIVATE else 0x0122)
    assert [offer.sop_class_uid for offer, _ in intake.stored] == [PRIVATE]
