"""Who may open an association: called AE title, calling AE title and address (PS3.8 9.3.4, table 9-21).

AE titles identify, they do not authenticate: that is what certificates are for, and on a plain port a firewall.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import Enum

from dicomnode.net.certificates import PeerCertificate
from dicomnode.net.negotiation import AssociationRequest
from dicomnode.net.scp.settings import Caller, ScpSettings

AddressesOf = Callable[[str], Collection[str]]
"""From a host name or address to addresses as `normal_address` writes them; empty where it cannot be resolved."""


class RejectReason(Enum):
    """(result, source, reason) of an A-ASSOCIATE-RJ."""

    APPLICATION_CONTEXT = (1, 1, 2)
    CALLING_AE = (1, 1, 3)
    CALLED_AE = (1, 1, 7)
    PROTOCOL_VERSION = (1, 2, 2)
    LOCAL_LIMIT = (2, 3, 2)


@dataclass(frozen=True, slots=True)
class Admitted:
    """The caller may associate. `peer` is its configured name, "" where it has none."""

    peer: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """The caller may not; `hint` says what to configure if it should."""

    reason: RejectReason
    why: str
    hint: str


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request came from: an address, by TLS or not, and the certificate that was shown there."""

    address: str
    is_secured: bool = False
    certificate: PeerCertificate | None = None


def admit(
    request: AssociationRequest, origin: Origin, settings: ScpSettings, addresses_of: AddressesOf
) -> Admitted | Rejected:
    """Judge a request by what it says, and where it came from.

    The caller first: one that we do not know learns the same whatever it calls us, and so not what our AE titles are.
    """
    caller = _admit_caller(request, origin, settings, addresses_of)
    if isinstance(caller, Rejected):
        return caller
    if not request.protocol_version & 1:
        return Rejected(RejectReason.PROTOCOL_VERSION, "unknown protocol version", "this is no DICOM application")
    if request.called_ae not in settings.ae_titles:
        return Rejected(
            RejectReason.CALLED_AE,
            "called AE title not recognized",
            f"call us {settings.ae_titles[0]} there, or add {request.called_ae!r} to node.ae_titles",
        )
    return caller


def _admit_caller(
    request: AssociationRequest, origin: Origin, settings: ScpSettings, addresses_of: AddressesOf
) -> Admitted | Rejected:
    namesakes = [caller for caller in settings.callers if caller.ae_title == request.calling_ae]
    there = [caller for caller in namesakes if caller.host is None or origin.address in addresses_of(caller.host)]
    for caller in sorted(there, key=lambda caller: caller.host is None):  # an address tells namesakes apart
        if _is_proved(caller, origin):
            return Admitted(caller.peer)
    if settings.accept_unknown and not any(caller.tls or caller.certificates for caller in namesakes):
        return Admitted("")
    if there:
        return _unproved(there[0], origin)
    hint = _how_to_allow(namesakes, request.calling_ae, origin.address)
    if request.called_ae not in settings.ae_titles:
        hint += f"; it calls us {request.called_ae!r}, which is no AE title of ours either"
    return Rejected(RejectReason.CALLING_AE, _why_not(namesakes), hint)


def _is_proved(caller: Caller, origin: Origin) -> bool:
    """Whether what came with the request is enough to be this caller. By TLS an AE title alone never is."""
    if not origin.is_secured:
        return not caller.tls
    if origin.certificate is None:  # certificates are optional: it is known by its address
        return caller.host is not None and not caller.certificates
    return origin.certificate.is_one_of(caller.certificates or ((caller.host,) if caller.host else ()))


def _unproved(caller: Caller, origin: Origin) -> Rejected:
    """The rejection of one that calls as this caller, and from where it may."""
    setting = f"peer.{caller.peer}"
    if not origin.is_secured:
        why, hint = "this peer has to call by TLS", f"have it call our TLS port, or set {setting}.tls = false"
    elif origin.certificate is None:
        why, hint = "this peer has to show a certificate", f"give it one; {setting}.certificate says which"
    else:
        why = "the certificate is another's"
        hint = f'if it is right add "{origin.certificate.fingerprint}" to {setting}.certificate, then reload the node'
    return Rejected(RejectReason.CALLING_AE, why, hint)


def _why_not(namesakes: list[Caller]) -> str:
    return "calling AE title comes from another address" if namesakes else "calling AE title not recognized"


def _how_to_allow(namesakes: list[Caller], calling_ae: str, address: str) -> str:
    if namesakes:
        known = namesakes[0]
        moved = f'set peer.{known.peer}.host = "{address}" if that is where it is now (configured: {known.host})'
        return f"{moved}, then reload the node"
    return f'to allow it add a [peer.NAME] with ae_title = "{calling_ae}" and host = "{address}", then reload the node'


def normal_address(address: str) -> str:
    """An address in one spelling: no zone, IPv4 within IPv6 as IPv4."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return str(mapped or parsed)


class HostAddresses:
    """Resolves host names, and remembers the answer for a while: a name server must not slow each association."""

    def __init__(self, keep_s: float = 60.0) -> None:
        self._keep_s = keep_s
        self._lock = threading.Lock()
        self._known: dict[str, tuple[float, frozenset[str]]] = {}

    def __call__(self, host: str) -> frozenset[str]:
        now = time.monotonic()
        with self._lock:
            until, addresses = self._known.get(host, (0.0, frozenset[str]()))
        if now < until:
            return addresses
        addresses = _resolve(host)
        with self._lock:
            self._known[host] = (now + self._keep_s, addresses)
        return addresses


def _resolve(host: str) -> frozenset[str]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return frozenset()
    return frozenset(normal_address(str(entry[4][0])) for entry in found)
