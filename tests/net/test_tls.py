"""Contexts and certificates, without a socket: two ends that are joined in memory."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from dicomnode.errors import ConfigError
from dicomnode.net.certificates import PeerCertificate, check_validity, peer_certificate, validity
from dicomnode.net.tls import Credentials, Profile, explain
from tests.certificates import Authority, Identity

NOW = datetime.now(UTC).timestamp()
DAY_S = 86400.0


@pytest.fixture(scope="module")
def scanner(authority: Authority) -> Identity:
    return authority.issue("CT1", ("ct1.hospital", "192.0.2.1"))


def joined(
    server: ssl.SSLContext, client: ssl.SSLContext, host: str = "localhost"
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Both ends after the handshake, the server first. Raises what it failed with on either side."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = server.wrap_bio(there, back, server_side=True), client.wrap_bio(back, there, server_hostname=host)
    done: set[ssl.SSLObject] = set()
    for _ in range(10):
        for end in ends:
            try:
                end.do_handshake()
                done.add(end)
            except ssl.SSLWantReadError:
                continue
    assert len(done) == 2
    return ends


@pytest.mark.parametrize("profile", Profile)
def test_both_sides_prove_who_they_are(profile: Profile, node: Identity, scanner: Identity) -> None:
    server, client = joined(node.credentials(profile).server_context(), scanner.credentials(profile).client_context())
    assert server.version() == "TLSv1.3"
    assert peer_certificate(server) == PeerCertificate(
        scanner.fingerprint, frozenset({"ct1", "ct1.hospital", "192.0.2.1"})
    )
    assert peer_certificate(client) == PeerCertificate(node.fingerprint, frozenset({"node", "localhost", "127.0.0.1"}))


@pytest.mark.parametrize("profile", Profile)
def test_tls_12_is_spoken_with_forward_secrecy_only(profile: Profile, node: Identity, scanner: Identity) -> None:
    client = scanner.credentials(profile).client_context()
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    server, _ = joined(node.credentials(profile).server_context(), client)
    assert server.version() == "TLSv1.2"
    offered = [cipher["name"] for cipher in client.get_ciphers() if cipher["protocol"] == "TLSv1.2"]
    assert offered
    assert all(name.startswith("ECDHE-") for name in offered)
    assert all(cipher["aead"] for cipher in client.get_ciphers())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_older_versions_are_refused(version: ssl.TLSVersion, node: Identity, scanner: Identity) -> None:
    client = scanner.credentials().client_context()
    client.minimum_version = ssl.TLSVersion.TLSv1
    client.maximum_version = version
    client.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError) as refused:
        joined(node.credentials().server_context(), client)
    assert explain(refused.value)[0] == "the other side knows neither TLS 1.2 nor 1.3"


@pytest.mark.parametrize("profile", Profile)
@pytest.mark.parametrize("ciphers", ["AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA256", "ECDHE-ECDSA-AES256-SHA"])
def test_weak_cipher_suites_are_refused(profile: Profile, ciphers: str, node: Identity, scanner: Identity) -> None:
    client = scanner.credentials(profile).client_context()
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    client.set_ciphers(ciphers)
    with pytest.raises(ssl.SSLError) as refused:
        joined(node.credentials(profile).server_context(), client)
    assert explain(refused.value)[0] == "there is no cipher suite that both sides allow"


def test_the_modified_profile_knows_ccm(node: Identity, scanner: Identity) -> None:
    client = scanner.credentials(Profile.BCP195_MODIFIED).client_context()
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    client.set_ciphers("ECDHE-ECDSA-AES128-CCM")
    server, _ = joined(node.credentials(Profile.BCP195_MODIFIED).server_context(), client)
    assert server.cipher() == ("ECDHE-ECDSA-AES128-CCM", "TLSv1.2", 128)


def test_a_caller_without_a_certificate_is_let_in_only_where_that_is_optional(node: Identity) -> None:
    nobody = Credentials(ca=node.ca)
    client = nobody.client_context()
    client.maximum_version = ssl.TLSVersion.TLSv1_2  # in TLS 1.3 it learns of its refusal later
    with pytest.raises(ssl.SSLError) as refused:
        joined(node.credentials().server_context(), client)
    assert explain(refused.value)[0] == "the other side shows no certificate"
    server, _ = joined(node.credentials().server_context(certificate_required=False), nobody.client_context())
    assert peer_certificate(server) is None


@pytest.mark.parametrize(
    ("days", "reason"), [((-9, -1), "certificate has expired"), ((1, 9), "certificate is not yet valid")]
)
def test_only_what_is_valid_now_counts(
    days: tuple[int, int], reason: str, authority: Authority, node: Identity
) -> None:
    other = authority.issue("other", days=days)
    for server, client in ((node, other), (other, node)):
        with pytest.raises(ssl.SSLCertVerificationError) as refused:
            joined(server.credentials().server_context(), client.credentials().client_context())
        words, hint = explain(refused.value)
        assert reason in words
        assert "clocks" in hint


def test_another_ca_is_not_believed(node: Identity, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "Other CA").issue("stranger")
    forged = Credentials(stranger.certificate, stranger.key, node.ca)
    for server, client in ((node.credentials(), forged), (forged, node.credentials())):
        with pytest.raises(ssl.SSLCertVerificationError) as refused:
            joined(server.server_context(), client.client_context())
        words, hint = explain(refused.value)
        assert "unable to get local issuer certificate" in words
        assert "tls.ca" in hint


def test_a_single_certificate_can_be_believed(node: Identity, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "Other CA").issue("stranger")
    believing = Credentials(node.certificate, node.key, stranger.certificate)
    believed = Credentials(stranger.certificate, stranger.key, node.ca)
    joined(believing.server_context(), believed.client_context())


def test_a_server_must_be_the_host_that_was_called(node: Identity, scanner: Identity) -> None:
    with pytest.raises(ssl.SSLCertVerificationError) as refused:
        joined(node.credentials().server_context(), scanner.credentials().client_context(), "pacs.hospital")
    words, hint = explain(refused.value)
    assert "pacs.hospital" in words
    assert "peer.NAME.certificate" in hint
    joined(node.credentials().server_context(), scanner.credentials().client_context(host_checked=False), "pacs")


def test_weak_keys_are_refused(authority: Authority) -> None:
    weak = authority.issue("weak", key=rsa.generate_private_key(65537, 1024))
    with pytest.raises(ConfigError, match="EE_KEY_TOO_SMALL"):
        weak.credentials().server_context()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_short_elliptic_curves_are_refused(version: ssl.TLSVersion, authority: Authority, node: Identity) -> None:
    short = authority.issue("short", key=ec.generate_private_key(ec.SECP224R1()))
    for server, client in ((node, short), (short, node)):
        context = client.credentials().client_context()
        context.maximum_version = version
        with pytest.raises(ssl.SSLError):
            joined(server.credentials().server_context(), context)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (("sha256:" + "0" * 64,), True),
        (("sha256:" + "1" * 64,), False),
        (("CT1.hospital",), True),
        (("mr1.hospital", "192.0.2.1"), True),
        (("hospital",), False),
        ((), False),
    ],
)
def test_a_certificate_is_known_by_fingerprint_or_name(wanted: tuple[str, ...], expected: bool) -> None:
    certificate = PeerCertificate("sha256:" + "0" * 64, frozenset({"ct1.hospital", "192.0.2.1"}))
    assert certificate.is_one_of(wanted) is expected


@pytest.mark.parametrize("days", [(-1, 90), (-400, -30), (5, 20_000)], ids=["now", "past", "past 2050"])
def test_the_time_of_a_certificate_is_read(days: tuple[int, int], authority: Authority) -> None:
    identity = authority.issue("dated", days=days)
    begins_at, ends_at = validity(identity.certificate)
    assert begins_at == pytest.approx(NOW + days[0] * DAY_S, abs=DAY_S / 2)  # NOW is when the tests were collected
    assert ends_at == pytest.approx(NOW + days[1] * DAY_S, abs=DAY_S / 2)
    assert identity.credentials().expires_at() == ends_at


def test_a_certificate_out_of_its_time_is_said_to_be(authority: Authority) -> None:
    path = authority.issue("dated", days=(-10, 10)).certificate
    check_validity(path, NOW)
    for now, words in ((NOW + 11 * DAY_S, "has expired on 20"), (NOW - 11 * DAY_S, "is not valid before 20")):
        with pytest.raises(ConfigError, match=words):
            check_validity(path, now)


def test_wrong_files_are_named(node: Identity, scanner: Identity, tmp_path: Path) -> None:
    empty, missing, encrypted = tmp_path / "empty", tmp_path / "missing", tmp_path / "encrypted"
    empty.write_text("nothing")
    encrypted.write_bytes(
        ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    for credentials, words in (
        (Credentials(missing, node.key, node.ca), f"tls.certificate: {missing} cannot be read: No such file"),
        (Credentials(tmp_path, node.key, node.ca), f"tls.certificate: {tmp_path} cannot be read: Is a directory"),
        (Credentials(empty, node.key, node.ca), f"tls.certificate: {empty} holds no certificate"),
        (Credentials(node.certificate, missing, node.ca), f"tls.key: {missing} cannot be read"),
        (Credentials(node.certificate, empty, node.ca), f"tls.key: {empty} holds no private key"),
        (Credentials(node.certificate, None, node.ca), f"tls.key: {node.certificate} holds no private key"),
        (Credentials(node.certificate, encrypted, node.ca), f"tls.key: {encrypted} holds no private key"),
        (Credentials(node.certificate, scanner.key, node.ca), f"{scanner.key} is not the key of {node.certificate}"),
        (Credentials(node.certificate, node.key, missing), f"tls.ca: {missing} cannot be read"),
        (Credentials(node.certificate, node.key, empty), f"tls.ca: {empty} holds no certificate"),
    ):
        with pytest.raises(ConfigError) as refused:
            credentials.server_context()
        assert words in str(refused.value)
        assert refused.value.hint


@pytest.mark.parametrize("cut", [1, 10, 60, 200])
def test_a_damaged_certificate_is_said_to_be(cut: int, node: Identity, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.pem"
    encoded = ssl.PEM_cert_to_DER_cert(node.certificate.read_text())
    damaged.write_text(ssl.DER_cert_to_PEM_cert(encoded[:cut]))
    with pytest.raises(ConfigError, match="holds no certificate"):
        validity(damaged)
    with pytest.raises(ConfigError, match="certificate"):
        Credentials(damaged, node.key, node.ca).server_context()


def test_certificate_and_key_may_share_a_file(node: Identity, scanner: Identity, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(node.key.read_bytes() + node.certificate.read_bytes())
    server, _ = joined(Credentials(both, None, node.ca).server_context(), scanner.credentials().client_context())
    assert server.version() == "TLSv1.3"
