"""Signatures of bundles: Ed25519 (RFC 8032) over a bundle's digest."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from engines.bundle.tables import read_table
from engines.errors import BundleError

SIGNATURE: Final = "signature.json"
_PREAMBLE: Final = b"dicomnode engine bundle 1\n"
"""Signed before the digest, so that a signature of anything else never passes for one of a bundle."""

_PUBLIC: Final = b"-----BEGIN PUBLIC KEY-----"
_KEY_BYTES: Final = 32
_SIGNATURE_BYTES: Final = 64
_LARGEST_KEY_FILE_BYTES: Final = 4096
_READABLE_BY_OTHERS: Final = 0o077


@dataclass(frozen=True)
class Signature:
    """Who says that a digest is theirs: both base64, `public_key` of 32 bytes, `signature` of 64."""

    public_key: str
    signature: str

    @property
    def fingerprint(self) -> str:
        return fingerprint(_decoded(self.public_key, _KEY_BYTES))


def fingerprint(public_key: bytes) -> str:
    """What people compare keys by: the first 16 hexadecimal digits of the SHA-256 of its 32 bytes."""
    return hashlib.sha256(public_key).hexdigest()[:16]


def read_signature(table: object) -> Signature:
    """The signature of a `signature.json`; raises BundleError on any other form."""
    signature = read_table(Signature, table, SIGNATURE)
    _decoded(signature.public_key, _KEY_BYTES)
    _decoded(signature.signature, _SIGNATURE_BYTES)
    return signature


def _decoded(text: str, length_bytes: int) -> bytes:
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        content = b""
    if len(content) != length_bytes:
        raise BundleError(f"{SIGNATURE} has no key or signature of Ed25519", "sign the bundle again")
    return content


def make_keys(private: Path, public: Path) -> str:
    """Write a new pair of keys as PEM, the private one readable by its owner alone; gives the fingerprint.

    Raises BundleError where one of the files exists, or cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    _write_new(private, secret, 0o600)
    _write_new(public, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), 0o644)
    return fingerprint(key.public_key().public_bytes_raw())


def check_private(path: Path) -> None:
    """Raises BundleError where a file is no private key to sign with."""
    _private_key(path)


def sign(folder: Path | str, digest: str, private: Path | str) -> Signature:
    """Write the signature of a bundle's digest into its folder. Raises BundleError where the key cannot be used."""
    folder, key = Path(folder), _private_key(Path(private))
    signature = Signature(
        base64.b64encode(key.public_key().public_bytes_raw()).decode(),
        base64.b64encode(key.sign(_PREAMBLE + digest.encode())).decode(),
    )
    (folder / SIGNATURE).write_text(json.dumps(asdict(signature), indent=2) + "\n")
    return signature


def read_public_key(path: Path) -> bytes:
    """The 32 bytes of a public key in a PEM file; raises BundleError."""
    try:
        key = load_pem_public_key(_key_file(path))
    except (ValueError, UnsupportedAlgorithm):
        raise BundleError(f"{path} is no public key", "give the .pub file that engines keygen wrote") from None
    if not isinstance(key, Ed25519PublicKey):
        raise BundleError(f"{path} is no key of Ed25519", "give the .pub file that engines keygen wrote")
    return key.public_bytes_raw()


def _private_key(path: Path) -> Ed25519PrivateKey:
    content = _key_file(path)
    if _PUBLIC in content:
        raise BundleError(
            f"{path} is a public key", f"sign with the private one that belongs to it: {path.with_suffix('')}"
        )
    if path.stat().st_mode & _READABLE_BY_OTHERS:
        raise BundleError(f"{path} can be read by others", f"chmod 600 {path}, or make a new key")
    try:
        key = load_pem_private_key(content, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise BundleError(f"{path} is no private key without a passphrase", "make one: engines keygen") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise BundleError(f"{path} is no key of Ed25519", "make one: dicomnode engines keygen")
    return key


def is_genuine(digest: str, signature: Signature) -> bool:
    """Whether the owner of the signature's key signed this digest. Whether that key is trusted is another question."""
    key = Ed25519PublicKey.from_public_bytes(_decoded(signature.public_key, _KEY_BYTES))
    try:
        key.verify(_decoded(signature.signature, _SIGNATURE_BYTES), _PREAMBLE + digest.encode())
    except InvalidSignature:
        return False
    return True


def vouched(digest: str, signature: Signature | None, trusted: Iterable[bytes]) -> str:
    """Fingerprint of the trusted key that signed this digest; "" where it is unsigned, or its key is not trusted.

    Raises BundleError where the signature is false: somebody altered the bundle, or the signature.
    """
    if signature is None:
        return ""
    if not is_genuine(digest, signature):
        raise BundleError("the signature does not belong to this bundle", "do not use it: ask where it comes from")
    return signature.fingerprint if _decoded(signature.public_key, _KEY_BYTES) in set(trusted) else ""


def _write_new(path: Path, content: bytes, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except OSError as error:
        raise BundleError(f"{path} cannot be written: {error.strerror}", "keys are never overwritten") from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def _key_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST_KEY_FILE_BYTES)
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}", "give the path of a PEM file") from None
