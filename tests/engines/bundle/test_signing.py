"""Keys and signatures of bundles."""

from __future__ import annotations

import base64
import stat
from pathlib import Path

import pytest

from engines.bundle.signing import (
    Signature,
    fingerprint,
    is_genuine,
    make_keys,
    read_public_key,
    read_signature,
    sign,
    vouched,
)
from engines.errors import BundleError

DIGEST = "ab" * 32


@pytest.fixture(name="keys")
def _keys(tmp_path: Path) -> tuple[Path, Path]:
    private, public = tmp_path / "key", tmp_path / "key.pub"
    make_keys(private, public)
    return private, public


def test_only_its_owner_reads_the_private_key(keys: tuple[Path, Path]) -> None:
    assert stat.S_IMODE(keys[0].stat().st_mode) == 0o600


def test_a_trusted_key_vouches_for_what_it_signed(keys: tuple[Path, Path], tmp_path: Path) -> None:
    signature = sign(tmp_path, DIGEST, keys[0])
    trusted = read_public_key(keys[1])
    assert vouched(DIGEST, signature, [trusted]) == fingerprint(trusted) == signature.fingerprint
    assert vouched(DIGEST, signature, []) == ""
    assert vouched(DIGEST, None, [trusted]) == ""


def test_a_signature_of_anything_else_is_false(keys: tuple[Path, Path], tmp_path: Path) -> None:
    signature = sign(tmp_path, DIGEST, keys[0])
    assert is_genuine(DIGEST, signature)
    assert not is_genuine("cd" * 32, signature)
    with pytest.raises(BundleError, match="does not belong"):
        vouched("cd" * 32, signature, [])


def test_another_key_does_not_pass_for_the_trusted_one(keys: tuple[Path, Path], tmp_path: Path) -> None:
    make_keys(tmp_path / "other", tmp_path / "other.pub")
    theirs = sign(tmp_path, DIGEST, tmp_path / "other")
    ours = base64.b64encode(read_public_key(keys[1])).decode()
    with pytest.raises(BundleError):
        vouched(DIGEST, Signature(ours, theirs.signature), [read_public_key(keys[1])])


def test_keys_are_never_overwritten(keys: tuple[Path, Path]) -> None:
    with pytest.raises(BundleError, match="cannot be written"):
        make_keys(*keys)


def test_a_private_key_that_others_can_read_signs_nothing(keys: tuple[Path, Path], tmp_path: Path) -> None:
    keys[0].chmod(0o644)
    with pytest.raises(BundleError) as error:
        sign(tmp_path, DIGEST, keys[0])
    assert "chmod 600" in error.value.hint


@pytest.mark.parametrize(
    "content", [b"", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", b"\xff" * 99]
)
def test_a_file_that_is_no_key_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "wrong"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(BundleError, match="no public key"):
        read_public_key(path)
    with pytest.raises(BundleError, match=r"no private key|is a public key"):
        sign(tmp_path, DIGEST, path)


def test_a_key_of_a_kind_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    public, private = (bytes.fromhex(text) for text in ("302a300506032a0304032100", "302e020100300506032a030404220420"))
    for name, kind, content in (("public", "PUBLIC", public), ("private", "PRIVATE", private)):
        text = base64.b64encode(content + bytes(32)).decode()
        (tmp_path / name).write_text(f"-----BEGIN {kind} KEY-----\n{text}\n-----END {kind} KEY-----\n")
        (tmp_path / name).chmod(0o600)
    with pytest.raises(BundleError, match="no public key"):
        read_public_key(tmp_path / "public")
    with pytest.raises(BundleError, match="no private key"):
        sign(tmp_path, DIGEST, tmp_path / "private")


@pytest.mark.parametrize(
    "table", [{}, {"public_key": "AA==", "signature": "AA=="}, {"public_key": 1, "signature": ""}, [], {"a": "b"}]
)
def test_a_signature_of_another_form_is_refused(table: object) -> None:
    with pytest.raises(BundleError):
        read_signature(table)
