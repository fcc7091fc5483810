"""What a certificate says: whose it is, and how long it is valid. OpenSSL judges it (`dicomnode.net.tls`)."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from dicomnode.errors import ConfigError

MAKE_HINT: Final = "docs/operations.md tells how to make certificates"
RENEW_HINT: Final = "renew it, put the new one in its place, and reload the node"

_WARN_BEFORE_S: Final = 30 * 86400.0
_BEGIN: Final = "-----BEGIN CERTIFICATE-----"
_END: Final = "-----END CERTIFICATE-----"
_VERSION: Final = 0xA0  # tag of the optional first field of a certificate (RFC 5280 4.1)
_UTC_TIME: Final = 0x17
_GENERALIZED_TIME: Final = 0x18


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """The certificate that the other side has proved to be its own, and that a CA which we believe stands for.

    fingerprint  "sha256:" and 64 hexadecimal digits
    names        its Common Name and the DNS names and addresses of its Subject Alternative Name, in lower case
    """

    fingerprint: str
    names: frozenset[str]

    def is_one_of(self, certificates: Collection[str]) -> bool:
        """Whether one of these is its fingerprint or one of its names."""
        return any(wanted == self.fingerprint or wanted.lower() in self.names for wanted in certificates)


def peer_certificate(connection: ssl.SSLObject) -> PeerCertificate | None:
    """The certificate of the other side after the handshake; None where it showed none."""
    encoded = connection.getpeercert(binary_form=True)
    if not encoded:
        return None
    decoded: Mapping[str, Any] = connection.getpeercert() or {}
    common = [value for parts in decoded.get("subject", ()) for kind, value in parts if kind == "commonName"]
    alternative = [value for kind, value in decoded.get("subjectAltName", ()) if kind in ("DNS", "IP Address")]
    return PeerCertificate(fingerprint_of(encoded), frozenset(name.lower() for name in (*common, *alternative)))


def fingerprint_of(encoded: bytes) -> str:
    """How a DER-encoded certificate is named in the configuration."""
    return f"sha256:{hashlib.sha256(encoded).hexdigest()}"


def validity(path: Path) -> tuple[float, float]:
    """From when to when the first certificate of a PEM file is valid, in seconds since the epoch. Raises ConfigError.

    The standard library tells this of the other side's certificate only; here the few fields before it are passed over
    (RFC 5280 4.1: version, serial number, signature, issuer, validity).
    """
    try:
        (_, certificate), *_ = _elements(read_certificate(path))
        (_, to_be_signed), *_ = _elements(certificate)
        fields = _elements(to_be_signed)
        (_, period) = fields[4 if fields[0][0] == _VERSION else 3]
        begins, ends = (_time(tag, content) for tag, content in _elements(period))
    except (IndexError, ValueError):
        raise ConfigError(f"tls.certificate: {path} does not say how long it is valid", MAKE_HINT) from None
    return begins, ends


def check_validity(path: Path, now: float) -> None:
    """Raises ConfigError where the certificate is not valid `now`, in seconds since the epoch, or is none."""
    begins_at, ends_at = validity(path)
    if now > ends_at:
        raise ConfigError(f"tls.certificate: {path} has expired on {day(ends_at)}", RENEW_HINT)
    if now < begins_at:
        raise ConfigError(f"tls.certificate: {path} is not valid before {day(begins_at)}", "look at this clock")


def expiry_warning(path: Path, now: float) -> ConfigError | None:
    """What is wrong with the time of our certificate, or will be within 30 days; None where nothing is.

    One that cannot be read is what is wrong, too.
    """
    try:
        check_validity(path, now)
        ends_at = validity(path)[1]
    except ConfigError as error:
        return error
    if ends_at - now > _WARN_BEFORE_S:
        return None
    left = f"{int((ends_at - now) / 86400)} days left"
    return ConfigError(f"tls.certificate: {path} ends on {day(ends_at)}, {left}", RENEW_HINT)


def day(at: float) -> str:
    """The day of a time, UTC, as people write it."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d}"


def read_certificate(path: Path) -> bytes:
    """The first certificate of a PEM file, DER-encoded. Raises ConfigError."""
    _, found, rest = read_setting(path, "tls.certificate").decode("ascii", errors="replace").partition(_BEGIN)
    try:
        if not found:
            raise ValueError
        encoded = ssl.PEM_cert_to_DER_cert(f"{_BEGIN}{rest.partition(_END)[0]}{_END}")
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=encoded)  # parses it
    except (ValueError, ssl.SSLError):
        raise ConfigError(f"tls.certificate: {path} holds no certificate", f"it must be PEM; {MAKE_HINT}") from None
    return encoded


def read_setting(path: Path, setting: str) -> bytes:
    """The content of the file that a setting names. Raises ConfigError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{setting}: {path} cannot be read: {error.strerror}",
            "it must be there, and readable for the user that the node runs as",
        ) from None


def _elements(encoded: bytes) -> list[tuple[int, bytes]]:
    """Tag and content of DER elements that stand one after the other (X.690 8.1)."""
    found = []
    while encoded:
        tag, length, start = encoded[0], encoded[1], 2
        if length & 0x80:
            start += length & 0x7F
            length = int.from_bytes(encoded[2:start], "big")
        found.append((tag, encoded[start : start + length]))
        encoded = encoded[start + length :]
    return found


def _time(tag: int, content: bytes) -> float:
    """A time of RFC 5280 4.1.2.5: two digits of the year until 2049, four from 2050 on."""
    text = content.decode("ascii")
    if tag == _UTC_TIME:
        text = ("19" if text[:2] >= "50" else "20") + text
    elif tag != _GENERALIZED_TIME:
        raise ValueError
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()
