"""Calling by TLS: our own server and DCMTK's, and DCMTK's programs calling us."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom.dataset import Dataset, FileMetaDataset

from dicomnode.errors import PeerError, PeerUnreachableError
from dicomnode.net.scp.listener import listen
from dicomnode.net.scp.server import StorageServer
from dicomnode.net.scp.settings import Caller, ScpSettings
from dicomnode.net.scu import Opening, PeerAddress, Timeouts, associate
from dicomnode.net.tls import ClientSecurity, Credentials, Profile, ServerSecurity
from dicomnode.testing.peers import Call, StoreScp, echoscu, storescu
from tests.certificates import Authority, Identity
from tests.net.clients import CT, CT_IMAGE, ECHO, EXPLICIT, MemoryIntake

QUICK = Opening(Timeouts(connect_s=10, associate_s=10, response_s=10))
PIXELS = bytes(range(256)) * 2048


@pytest.fixture(scope="module")
def pacs(authority: Authority) -> Identity:
    return authority.issue("pacs")


@contextmanager
def serving(security: ServerSecurity, intake: MemoryIntake) -> Iterator[int]:
    """A server on a TLS port that lets the AE title SCANNER in by the certificate of the PACS."""
    listener = listen("127.0.0.1", 0, tls=True)
    callers = (Caller("SCANNER", "scanner", tls=True, certificates=("pacs",)),)
    server = StorageServer(ScpSettings(("NODE",), callers=callers, security=security), intake, (listener,))
    server.start()
    try:
        yield listener.port
    finally:
        server.stop(grace_s=0.2)


def address(port: int, identity: Identity, *certificates: str, host: str = "localhost") -> PeerAddress:
    return PeerAddress(host, port, "NODE", ClientSecurity(identity.credentials(), certificates))


def store(to: PeerAddress) -> int:
    with associate(to, "SCANNER", [CT], QUICK) as association:
        return association.store_encoded(PIXELS, CT_IMAGE, "1.2.3", EXPLICIT)


@pytest.fixture(name="file")
def _file(tmp_path: Path) -> Path:
    """A DICOM file as small as storescu sends it."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID = CT_IMAGE, "1.2.3", EXPLICIT
    data_set = Dataset()
    data_set.SOPClassUID, data_set.SOPInstanceUID, data_set.file_meta = CT_IMAGE, "1.2.3", meta
    data_set.add_new(0x7FE00010, "OW", PIXELS)
    data_set.save_as(tmp_path / "one.dcm", enforce_file_format=True)
    return tmp_path / "one.dcm"


@pytest.mark.parametrize("profile", Profile)
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_our_sender_and_our_receiver_agree(profile: Profile, host: str, node: Identity, pacs: Identity) -> None:
    intake = MemoryIntake()
    with serving(ServerSecurity(node.credentials(profile)), intake) as port:
        security = ClientSecurity(pacs.credentials(profile))
        assert store(PeerAddress(host, port, "NODE", security)) == 0
    assert intake.contents() == {"1.2.3": PIXELS}
    assert [sender.peer for sender in intake.opened] == ["scanner"]


def test_a_file_is_sent_encrypted_too(node: Identity, pacs: Identity, file: Path) -> None:
    intake = MemoryIntake()
    with (
        serving(ServerSecurity(node.credentials()), intake) as port,
        associate(address(port, pacs), "SCANNER", [CT], QUICK) as association,
    ):
        assert association.store(file, CT_IMAGE, "1.2.3", EXPLICIT) == 0
        assert association.usable
    assert intake.contents()["1.2.3"].endswith(PIXELS)


def test_a_peer_can_be_known_by_its_certificate_instead_of_its_host(node: Identity, pacs: Identity) -> None:
    with serving(ServerSecurity(node.credentials()), MemoryIntake()) as port:
        for certificate in (node.fingerprint, "NODE"):
            assert store(address(port, pacs, certificate)) == 0
        with pytest.raises(PeerUnreachableError, match=f"another certificate than is configured: {node.fingerprint}"):
            store(address(port, pacs, pacs.fingerprint))


def test_a_certificate_for_another_host_is_not_accepted(authority: Authority, pacs: Identity) -> None:
    elsewhere = authority.issue("elsewhere", ("pacs.hospital",))
    with serving(ServerSecurity(elsewhere.credentials()), MemoryIntake()) as port:
        with pytest.raises(PeerUnreachableError, match=r"(IP address|Hostname) mismatch") as refused:
            store(address(port, pacs))
        assert "peer.NAME.certificate" in refused.value.hint
        assert store(address(port, pacs, "elsewhere")) == 0


def test_an_expired_certificate_is_not_accepted(authority: Authority, pacs: Identity) -> None:
    expired = authority.issue("expired", days=(-9, -1))
    with (
        serving(ServerSecurity(expired.credentials()), MemoryIntake()) as port,
        pytest.raises(PeerUnreachableError, match="certificate has expired") as refused,
    ):
        store(address(port, pacs))
    assert refused.value.transient


def test_who_has_no_certificate_or_a_wrong_one_is_told_or_cut_off(
    node: Identity, pacs: Identity, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path, "Other CA").issue("pacs")
    nobody = Credentials(ca=node.ca)
    forged = Credentials(stranger.certificate, stranger.key, node.ca)
    intake = MemoryIntake()
    with serving(ServerSecurity(node.credentials()), intake) as port:
        for credentials in (nobody, forged):
            with pytest.raises(PeerError):
                store(PeerAddress("localhost", port, "NODE", ClientSecurity(credentials)))
    assert not intake.opened


def test_a_plain_call_to_a_tls_port_and_a_tls_call_to_a_plain_port_fail(
    node: Identity, pacs: Identity, server: StorageServer
) -> None:
    with pytest.raises(PeerError):
        store(address(server.port, pacs))
    with serving(ServerSecurity(node.credentials()), MemoryIntake()) as port, pytest.raises(PeerError):
        store(PeerAddress("127.0.0.1", port, "NODE"))


def test_a_renewed_certificate_is_used_from_the_next_association_on(
    authority: Authority, node: Identity, pacs: Identity, tmp_path: Path
) -> None:
    own = replace(pacs, certificate=tmp_path / "own.pem", key=tmp_path / "own.key")
    with serving(ServerSecurity(node.credentials()), MemoryIntake()) as port:
        with pytest.raises(PeerUnreachableError, match=r"tls\.certificate: .* cannot be read"):
            store(address(port, own))
        own.certificate.write_bytes(pacs.certificate.read_bytes())
        own.key.write_bytes(pacs.key.read_bytes())
        assert store(address(port, own)) == 0


@pytest.mark.peer("dcmtk")
def test_dcmtk_calls_us(authority: Authority, node: Identity, pacs: Identity, file: Path, tmp_path: Path) -> None:
    intake = MemoryIntake()
    stranger = Authority(tmp_path, "Other CA").issue("pacs")
    with serving(ServerSecurity(node.credentials()), intake) as port:
        call = Call(port, "NODE", "SCANNER")
        assert echoscu(call, *pacs.dcmtk) == 0
        assert storescu(call, [file], *pacs.dcmtk) == 0
        assert intake.contents()["1.2.3"].endswith(PIXELS)
        count = len(intake.opened)
        assert echoscu(call) != 0
        assert echoscu(call, "+tla", "-ic") != 0  # without a certificate
        assert echoscu(call, *authority.issue("other").dcmtk) != 0
        assert echoscu(call, "+tls", str(stranger.key), str(stranger.certificate), "-ic") != 0
        assert len(intake.opened) == count


@pytest.mark.peer("dcmtk")
def test_we_call_dcmtk(node: Identity, pacs: Identity, file: Path, tmp_path: Path) -> None:
    with StoreScp(tmp_path, "NODE", pacs.dcmtk) as peer:
        with associate(address(peer.port, node), "SCANNER", [CT, ECHO], QUICK) as association:
            assert association.echo() == 0
            assert association.store(file, CT_IMAGE, "1.2.3", EXPLICIT) == 0
        with pytest.raises(PeerError):
            store(PeerAddress("localhost", peer.port, "NODE"))
        with pytest.raises(PeerError) as refused:
            store(PeerAddress("localhost", peer.port, "NODE", ClientSecurity(Credentials(ca=node.ca))))
        assert "certificate" in refused.value.hint
