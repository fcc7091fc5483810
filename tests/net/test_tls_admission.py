"""Who is let in on the TLS port and on the plain one, as a table: there an AE title alone proves nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dicomnode.net.certificates import PeerCertificate
from dicomnode.net.negotiation import AssociationRequest
from dicomnode.net.scp.admission import Admitted, Origin, Rejected, admit
from dicomnode.net.scp.settings import Caller, ScpSettings

FINGERPRINT = "sha256:" + "a" * 64
SETTINGS = ScpSettings(
    ae_titles=("NODE",),
    callers=(
        Caller("PINNED", "pinned", certificates=(FINGERPRINT, "sha256:" + "b" * 64)),
        Caller("NAMED", "named", "192.0.2.1", tls=True, certificates=("CT1",)),
        Caller("HOST", "host", "ct1.hospital", tls=True),
        Caller("PLAIN", "plain", "192.0.2.1"),
        Caller("NOBODY", "nobody"),
        Caller("TWINS", "first", tls=True, certificates=("ct1.hospital",)),
        Caller("TWINS", "second", tls=True, certificates=("ct2.hospital",)),
    ),
)
PLAIN = Origin("192.0.2.1")
WITHOUT = Origin("192.0.2.1", is_secured=True)
OURS = Origin("192.0.2.1", True, PeerCertificate(FINGERPRINT, frozenset({"ct1", "ct1.hospital", "192.0.2.1"})))
OTHER = Origin("192.0.2.1", True, PeerCertificate("sha256:" + "c" * 64, frozenset({"ct2", "ct2.hospital"})))


def judge(calling_ae: str, origin: Origin, accept_unknown: bool = False) -> Admitted | Rejected:
    request = AssociationRequest("NODE", calling_ae, 1, bytes(64), b"")
    settings = replace(SETTINGS, accept_unknown=accept_unknown)
    return admit(request, origin, settings, lambda host: {"ct1.hospital": {"192.0.2.1"}}.get(host, {host}))


@pytest.mark.parametrize(
    ("calling_ae", "origin", "expected"),
    [
        ("PINNED", OURS, "pinned"),
        ("PINNED", OTHER, None),
        ("PINNED", WITHOUT, None),
        ("PINNED", PLAIN, "pinned"),  # its certificate matters by TLS; `tls = true` would forbid this
        ("NAMED", OURS, "named"),
        ("NAMED", OTHER, None),
        ("NAMED", WITHOUT, None),
        ("NAMED", PLAIN, None),
        ("NAMED", replace(OURS, address="192.0.2.9"), None),
        ("HOST", OURS, "host"),
        ("HOST", OTHER, None),
        ("HOST", WITHOUT, "host"),  # only where certificates are optional: it is known by its address
        ("HOST", PLAIN, None),
        ("PLAIN", PLAIN, "plain"),
        ("PLAIN", OURS, "plain"),
        ("PLAIN", OTHER, None),
        ("PLAIN", WITHOUT, "plain"),
        ("NOBODY", PLAIN, "nobody"),
        ("NOBODY", OURS, None),
        ("NOBODY", WITHOUT, None),
        ("TWINS", OURS, "first"),
        ("TWINS", OTHER, "second"),
        ("STRANGER", OURS, None),
    ],
)
def test_admission(calling_ae: str, origin: Origin, expected: str | None) -> None:
    verdict = judge(calling_ae, origin)
    assert (verdict.peer if isinstance(verdict, Admitted) else None) == expected


@pytest.mark.parametrize(
    ("calling_ae", "origin", "admitted"),
    [("STRANGER", OURS, True), ("PINNED", OTHER, False), ("HOST", PLAIN, False), ("NOBODY", WITHOUT, True)],
)
def test_where_anybody_may_call_nobody_calls_as_one_who_proves_himself(
    calling_ae: str, origin: Origin, admitted: bool
) -> None:
    verdict = judge(calling_ae, origin, accept_unknown=True)
    assert verdict == Admitted("") if admitted else isinstance(verdict, Rejected)


@pytest.mark.parametrize(
    ("calling_ae", "origin", "why", "hint"),
    [
        ("HOST", PLAIN, "this peer has to call by TLS", "peer.host.tls = false"),
        ("NAMED", WITHOUT, "this peer has to show a certificate", "peer.named.certificate"),
        ("PINNED", OTHER, "the certificate is another's", f'"sha256:{"c" * 64}" to peer.pinned.certificate'),
    ],
)
def test_a_refusal_says_what_to_configure(calling_ae: str, origin: Origin, why: str, hint: str) -> None:
    verdict = judge(calling_ae, origin)
    assert isinstance(verdict, Rejected)
    assert verdict.why == why
    assert hint in verdict.hint
