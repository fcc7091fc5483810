"""TLS after PS3.15 B.12 (BCP 195: RFC 8996 and 9325) and B.13 (the same, modified): its contexts, and words for errors.

Both profiles want TLS 1.2 or 1.3 and forward secrecy. What they leave open is settled alike for both roles: no
compression, no renegotiation, no session tickets, and the server's order of cipher suites.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from dicomnode.errors import ConfigError
from dicomnode.net.certificates import MAKE_HINT, RENEW_HINT, read_certificate, read_setting, validity


class Profile(StrEnum):
    """A secure transport connection profile of PS3.15 annex B."""

    BCP195 = "bcp195"
    BCP195_MODIFIED = "bcp195-modified"


_TLS12_CIPHERS: Final[Mapping[Profile, str]] = {
    # RFC 9325 4.2 recommends the first; the second is what processors without AES instructions do fast
    Profile.BCP195: "ECDHE+AESGCM:ECDHE+CHACHA20",
    # B.13 permits AEAD ciphers with ECDHE or DHE only; DHE is left out: RFC 9325 4.1 advises against it
    Profile.BCP195_MODIFIED: "ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE-ECDSA-AES256-CCM:ECDHE-ECDSA-AES128-CCM",
}
"""OpenSSL's names; those of TLS 1.3 are set in OpenSSL's own configuration."""
_KEYS: Final = "@SECLEVEL=2"
"""OpenSSL's word for no RSA key below 2048 bits, no curve below 224 and no signature with SHA-1, as B.13 wants."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What we prove who we are with, and whom we believe. All files are PEM.

    certificate  ours, then the intermediate ones up to its CA; None: we have none to show
    key          its private key, unencrypted; None: it stands in the same file
    ca           certificates of the CAs that we believe; None: those of the operating system
    """

    certificate: Path | None = None
    key: Path | None = None
    ca: Path | None = None
    profile: Profile = Profile.BCP195

    def server_context(self, *, certificate_required: bool = True) -> ssl.SSLContext:
        """For connections that come in; the files are read now. Raises ConfigError.

        certificate_required  whether callers must show a certificate; else they may
        """
        context = self._context(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = ssl.CERT_REQUIRED if certificate_required else ssl.CERT_OPTIONAL
        context.num_tickets = 0
        return context

    def client_context(self, *, host_checked: bool = True) -> ssl.SSLContext:
        """For connections that go out; the files are read now. Raises ConfigError.

        host_checked  whether the other side's certificate must name the host that was called
        """
        context = self._context(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = host_checked
        return context

    def expires_at(self) -> float | None:
        """When our certificate ends, in seconds since the epoch; None where there is none. Raises ConfigError."""
        return None if self.certificate is None else validity(self.certificate)[1]

    def _context(self, protocol: int) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(f"{_TLS12_CIPHERS[self.profile]}:{_KEYS}")
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION
        context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
        # An end without close_notify is an end: DICOM knows by itself whether all was said, and we may have to answer
        context.options |= ssl.OP_IGNORE_UNEXPECTED_EOF
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # `ca` may name the other side's own certificate
        if self.certificate is not None:
            _load_own(context, self.certificate, self.key or self.certificate)
        _load_trusted(context, self.ca)
        return context


@dataclass(frozen=True, slots=True)
class ServerSecurity:
    """How connections to our TLS port are secured."""

    credentials: Credentials
    certificate_required: bool = True

    def context(self) -> ssl.SSLContext:
        """Read the files now. Raises ConfigError."""
        return self.credentials.server_context(certificate_required=self.certificate_required)


@dataclass(frozen=True, slots=True)
class ClientSecurity:
    """How connections to a peer are secured.

    certificates  what its certificate must be or name, see `PeerCertificate.is_one_of`; none: the host that is called
    """

    credentials: Credentials
    certificates: tuple[str, ...] = ()

    def context(self) -> ssl.SSLContext:
        """Read the files now: a renewed certificate is used from the next association on. Raises ConfigError."""
        return self.credentials.client_context(host_checked=not self.certificates)


def explain(error: ssl.SSLError) -> tuple[str, str]:
    """What went wrong with the other side, and what to do next."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}", _VERIFICATION_HINTS.get(
            error.verify_code, "have it renewed, or add the certificate of its CA to the file that tls.ca names"
        )
    return _FAILURES.get(error.reason or "", (f"TLS failed: {error.reason or type(error).__name__}", "look at its log"))


_VERIFICATION_HINTS: Final[Mapping[int, str]] = {  # X509_V_ERR_... of OpenSSL
    9: "compare the clocks of both sides",
    10: "have it renewed, and compare the clocks of both sides",
    18: "add it to the file that tls.ca names, if it is the right one",
    62: "call it by a host name that stands in it, or set peer.NAME.certificate to a name that does",
    64: "call it by a host name that stands in it, or set peer.NAME.certificate to a name that does",
}
_NO_TLS: Final = (
    "the other side does not speak TLS here",
    "one side calls a TLS port in clear, or a plain port by TLS: compare ports and `tls` on both",
)
_TOO_OLD: Final = ("the other side knows neither TLS 1.2 nor 1.3", "update it: PS3.15 B.12 forbids what is older")
_NO_CIPHER: Final = ("there is no cipher suite that both sides allow", "update it, or see tls.profile")
_OURS_REFUSED: Final = ("the other side refuses our certificate", "its log says why; most often it lacks our CA")
_OURS_WANTED: Final = ("the other side wants a certificate of ours", "set tls.certificate and tls.key")
_FAILURES: Final[Mapping[str, tuple[str, str]]] = {
    "WRONG_VERSION_NUMBER": _NO_TLS,
    "HTTP_REQUEST": _NO_TLS,
    "UNSUPPORTED_PROTOCOL": _TOO_OLD,
    "TLSV1_ALERT_PROTOCOL_VERSION": _TOO_OLD,
    "NO_SHARED_CIPHER": _NO_CIPHER,
    "SSLV3_ALERT_HANDSHAKE_FAILURE": _NO_CIPHER,
    "TLSV1_ALERT_INSUFFICIENT_SECURITY": _NO_CIPHER,
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": (
        "the other side shows no certificate",
        'give it one, or set tls.client_certificates = "optional"',
    ),
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": _OURS_WANTED,
    "TLSV1_ALERT_UNKNOWN_CA": (
        "the other side does not believe the CA of our certificate",
        "add the certificate of our CA there",
    ),
    "SSLV3_ALERT_BAD_CERTIFICATE": _OURS_REFUSED,
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": _OURS_REFUSED,
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": _OURS_REFUSED,
    "TLSV1_ALERT_ACCESS_DENIED": _OURS_REFUSED,
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": ("the other side says that our certificate has expired", RENEW_HINT),
}
"""OpenSSL's reasons, which name an alert for what the other side said (RFC 8446 6.2)."""


def _load_own(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    read_certificate(certificate)
    read_setting(key, "tls.key")
    try:
        context.load_cert_chain(certificate, key, password=b"")  # else OpenSSL asks for one at the terminal
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(
                f"tls.key: {key} is not the key of {certificate}", "name the two that belong together"
            ) from None
        raise ConfigError(
            f"tls.key: {key} holds no private key that can be used ({error.reason or 'not PEM'})",
            f"it must be PEM without a passphrase, of RSA with 2048 bits or more or of an elliptic curve; {MAKE_HINT}",
        ) from None


def _load_trusted(context: ssl.SSLContext, ca: Path | None) -> None:
    if ca is None:
        context.load_default_certs()
        return
    read_setting(ca, "tls.ca")
    try:
        context.load_verify_locations(ca)
    except ssl.SSLError:
        raise ConfigError(f"tls.ca: {ca} holds no certificate", f"it must be PEM; {MAKE_HINT}") from None
