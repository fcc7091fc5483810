"""Who is let in, as a table."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dicomnode.net.negotiation import AssociationRequest
from dicomnode.net.scp.admission import (
    Admitted,
    HostAddresses,
    Origin,
    Rejected,
    RejectReason,
    admit,
    normal_address,
)
from dicomnode.net.scp.settings import Caller, ScpSettings

REQUEST = AssociationRequest("NODE", "CT1", 1, bytes(64), b"")
SETTINGS = ScpSettings(
    ae_titles=("NODE", "ALSO"),
    callers=(
        Caller("CT1", "ct1", "ct1.hospital"),
        Caller("CT1", "old-ct1", "192.0.2.9"),
        Caller("WS", "workstations"),
    ),
)
NAMES = {"ct1.hospital": {"192.0.2.1", "2001:db8::1"}, "192.0.2.9": {"192.0.2.9"}}


def judge(calling_ae: str, address: str, called_ae: str = "NODE", accept_unknown: bool = False) -> Admitted | Rejected:
    request = replace(REQUEST, calling_ae=calling_ae, called_ae=called_ae)
    settings = replace(SETTINGS, accept_unknown=accept_unknown)
    return admit(request, Origin(address), settings, lambda host: NAMES.get(host, set()))


@pytest.mark.parametrize(
    ("calling_ae", "address", "called_ae", "accept_unknown", "expected"),
    [
        ("CT1", "192.0.2.1", "NODE", False, "ct1"),
        ("CT1", "2001:db8::1", "ALSO", False, "ct1"),
        ("CT1", "192.0.2.9", "NODE", False, "old-ct1"),
        ("CT1", "192.0.2.77", "NODE", False, RejectReason.CALLING_AE),
        ("CT1", "192.0.2.77", "NODE", True, ""),
        ("WS", "192.0.2.77", "NODE", False, "workstations"),
        ("ct1", "192.0.2.1", "NODE", False, RejectReason.CALLING_AE),
        ("MR1", "192.0.2.1", "NODE", False, RejectReason.CALLING_AE),
        ("MR1", "192.0.2.1", "NODE", True, ""),
        ("", "192.0.2.1", "NODE", False, RejectReason.CALLING_AE),
        ("CT1", "192.0.2.1", "ANY-SCP", False, RejectReason.CALLED_AE),
        ("CT1", "192.0.2.77", "ANY-SCP", False, RejectReason.CALLING_AE),
        ("MR1", "192.0.2.1", "ANY-SCP", False, RejectReason.CALLING_AE),
        ("CT1", "192.0.2.1", "ANY-SCP", True, RejectReason.CALLED_AE),
        ("CT1", "192.0.2.1", "", True, RejectReason.CALLED_AE),
    ],
)
def test_admission(
    calling_ae: str, address: str, called_ae: str, accept_unknown: bool, expected: str | RejectReason
) -> None:
    verdict = judge(calling_ae, address, called_ae, accept_unknown)
    assert (verdict.peer if isinstance(verdict, Admitted) else verdict.reason) == expected


def test_a_refusal_says_how_to_allow_it() -> None:
    moved, stranger = judge("CT1", "192.0.2.77"), judge("MR1", "192.0.2.78")
    assert isinstance(moved, Rejected)
    assert isinstance(stranger, Rejected)
    assert 'peer.ct1.host = "192.0.2.77"' in moved.hint
    assert 'ae_title = "MR1"' in stranger.hint
    assert "192.0.2.78" in stranger.hint


def test_the_log_tells_what_a_stranger_is_not_told() -> None:
    verdict = judge("MR1", "192.0.2.78", called_ae="ANY-SCP")
    assert isinstance(verdict, Rejected)
    assert "'ANY-SCP', which is no AE title of ours" in verdict.hint


def test_what_is_no_dicom_application() -> None:
    request, settings = replace(REQUEST, protocol_version=2), replace(SETTINGS, accept_unknown=True)
    verdict = admit(request, Origin("192.0.2.1"), settings, lambda _: ())
    assert isinstance(verdict, Rejected)
    assert verdict.reason is RejectReason.PROTOCOL_VERSION


@pytest.mark.parametrize(
    ("written", "normal"),
    [("::ffff:192.0.2.1", "192.0.2.1"), ("fe80::1%eth0", "fe80::1"), ("2001:DB8:0::1", "2001:db8::1"), ("x", "x")],
)
def test_one_address_has_one_spelling(written: str, normal: str) -> None:
    assert normal_address(written) == normal


def test_names_are_resolved_and_unknown_ones_are_nobody() -> None:
    addresses_of = HostAddresses()
    assert addresses_of("127.0.0.1") == {"127.0.0.1"}
    assert addresses_of("127.0.0.1") == {"127.0.0.1"}
    assert addresses_of("no such host.invalid") == frozenset()
