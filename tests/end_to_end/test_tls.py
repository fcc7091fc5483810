"""DICOM over TLS from a scanner through the node to an archive, with DCMTK at both ends."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dicomnode.testing.node import Node, settings
from dicomnode.testing.peers import EXACT_AND_FORKING, Call, StoreScp, echoscu, storescu
from dicomnode.testing.processes import free_port, wait_until
from tests.certificates import Authority, Identity
from tests.end_to_end.studies import phantom_series

pytestmark = pytest.mark.peer("dcmtk")

RULE = {"name": "everything", "match": {"Modality": "*"}, "send": ["archive"]}


@pytest.fixture(name="authority", scope="module")
def _authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(name="own")
def _own(authority: Authority, tmp_path: Path) -> Identity:
    """The node's own certificate, in files that a test may replace."""
    own = replace(authority.issue("node"), certificate=tmp_path / "node.pem", key=tmp_path / "node.key")
    renew(own, authority.issue("node"))
    return own


def renew(own: Identity, issued: Identity) -> None:
    own.certificate.write_bytes(issued.certificate.read_bytes())
    own.key.write_bytes(issued.key.read_bytes())


def site(own: Identity, archive: StoreScp, port: int) -> dict[str, Any]:
    peers = {
        "ct": {"ae_title": "CT", "tls": True, "certificate": "ct"},
        "archive": {"tls": True, "host": "localhost"},
    }
    tls = {"certificate": own.certificate, "key": own.key, "ca": own.ca, "port": port}
    return settings({"archive": archive}, [RULE], peer=peers, tls=tls, node={"receivers": 1})


@pytest.fixture(name="archive")
def _archive(authority: Authority, tmp_path: Path) -> Iterator[StoreScp]:
    with StoreScp(tmp_path / "archive", "ARCHIVE", [*authority.issue("archive").dcmtk, *EXACT_AND_FORKING]) as archive:
        yield archive


def shown_by(port: int, identity: Identity) -> bytes:
    """The certificate that a TLS port shows."""
    context = identity.credentials().client_context()
    with (
        socket.create_connection(("127.0.0.1", port), timeout=20) as connection,
        context.wrap_socket(connection, server_hostname="localhost") as secured,
    ):
        return secured.getpeercert(binary_form=True) or b""


def test_a_study_travels_encrypted_and_the_certificate_is_renewed_without_a_restart(
    authority: Authority, own: Identity, archive: StoreScp, tmp_path: Path
) -> None:
    ct, port = authority.issue("ct"), free_port()
    files = phantom_series(tmp_path / "study", slices=3)
    with Node(tmp_path / "node", site(own, archive, port)) as node:
        secured = Call(port, "DICOMNODE", "CT")
        assert storescu(secured, files, *ct.dcmtk) == 0
        node.wait_until_idle()
        wait_until(lambda: len(list(archive.files.iterdir())) == 3, 30, "all had arrived")

        assert echoscu(secured, *authority.issue("other").dcmtk) != 0
        assert echoscu(node.call("CT")) != 0  # the plain port is not for this peer
        assert echoscu(node.call()) == 0
        node.wait_for_log("the certificate is another's")
        node.wait_for_log("this peer has to call by TLS")

        assert node.ask("echo", "archive")["answered"]
        assert node.ask("send", files[0], "--to", "archive")["arrived"] == 1

        before = shown_by(port, ct)
        renew(own, authority.issue("node", days=(-1, 12)))
        node.reload()
        node.wait_for_log('"config_applied"', times=4)
        assert shown_by(port, ct) != before
        node.wait_for_log("certificate_ends")
        assert any(problem["kind"] == "certificate" for problem in node.status()["problems"])
        assert node.ask("echo", "archive")["answered"]

        renew(own, authority.issue("node", days=(-9, -1)))
        node.reload()
        node.wait_for_log("has expired on")
        own.key.write_text("damaged")
        node.reload()
        node.wait_for_log("holds no private key")
        assert node.log().count('"config_applied"') == 4
        assert echoscu(secured, *ct.dcmtk) == 0
        assert node.stop() == 0


def test_check_and_serve_say_what_is_wrong_with_a_certificate(
    authority: Authority, own: Identity, archive: StoreScp, tmp_path: Path
) -> None:
    node = Node(tmp_path / "node", site(own, archive, free_port()))
    checked = node.ask("check")
    assert checked["ok"]
    assert "(TLS)" in checked["facts"][0]
    renew(own, authority.issue("node", days=(-9, -1)))
    answer = node.command("check")
    assert answer.returncode != 0
    assert "has expired on" in answer.stdout
    own.certificate.unlink()
    answer = node.command("serve")
    assert answer.returncode != 0
    what, hint = answer.stderr.strip().splitlines()[-2:]
    assert f"tls.certificate: {own.certificate} cannot be read: No such file or directory" in what
    assert "it must be there" in hint


def test_with_tls_only_there_is_no_plain_port(
    authority: Authority, own: Identity, archive: StoreScp, tmp_path: Path
) -> None:
    port = free_port()
    tree = site(own, archive, port)
    tree["tls"]["only"] = True
    node = Node(tmp_path / "node", tree)
    node.launch()
    try:
        ct = authority.issue("ct")
        wait_until(lambda: echoscu(Call(port, "DICOMNODE", "CT"), *ct.dcmtk) == 0, 60, "it answered")
        assert echoscu(node.call()) != 0
        assert ssl.DER_cert_to_PEM_cert(shown_by(port, ct)) in own.certificate.read_text()
    finally:
        node.kill()
