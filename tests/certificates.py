"""Certification authorities and certificates for tests, made anew in each run."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from dicomnode.net.certificates import fingerprint_of
from dicomnode.net.tls import Credentials, Profile

_DAY: Final = timedelta(days=1)
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True)
class Identity:
    """A certificate and its key, in files, and the certificate of its CA."""

    certificate: Path
    key: Path
    ca: Path
    fingerprint: str

    def credentials(self, profile: Profile = Profile.BCP195) -> Credentials:
        return Credentials(self.certificate, self.key, self.ca, profile)

    @property
    def dcmtk(self) -> list[str]:
        """How DCMTK's programs are told to use it."""
        return ["+tls", str(self.key), str(self.certificate), "+cf", str(self.ca)]


class Authority:
    """A CA that signs what a test asks for, in files below `folder`."""

    def __init__(self, folder: Path, name: str = "Test CA") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        basic = x509.BasicConstraints(ca=True, path_length=None)
        built = _builder(self._name, self._key, (-1, 3650)).issuer_name(self._name).add_extension(basic, critical=True)
        self.path = folder / "ca.pem"
        self.path.write_bytes(_pem(built.sign(self._key, hashes.SHA256())))

    def issue(
        self,
        name: str,
        hosts: tuple[str, ...] = ("localhost", "127.0.0.1"),
        days: tuple[int, int] = (-1, 365),
        key: PrivateKey | None = None,
    ) -> Identity:
        """A certificate with the Common Name and for the hosts, valid from and to so many days from now."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_name(name), key, days).issuer_name(self._name)
        if hosts:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False
            )
        certificate = builder.sign(self._key, hashes.SHA256())
        return self._write(name, certificate, key)

    def _write(self, name: str, certificate: x509.Certificate, key: PrivateKey) -> Identity:
        paths = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        paths[0].write_bytes(_pem(certificate))
        paths[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return Identity(*paths, self.path, fingerprint_of(certificate.public_bytes(serialization.Encoding.DER)))


def _builder(subject: x509.Name, key: PrivateKey, days: tuple[int, int]) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + days[0] * _DAY)
        .not_valid_after(now + days[1] * _DAY)
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
