"""An engine bundle: a folder that says what its networks are for, and proves that it is whole.

    card.toml       what the engine is and what the node holds it to ([engine]), and where it comes from ([provenance])
    *.onnx          its networks, one for each stage
    golden.npz      inputs and outputs of one run, with the tolerance for each precision
    CARD.md         the same for people
    digests.json    SHA-256 of each of these files; the bundle's digest is over them
    signature.json  who vouches for the digest (engines.bundle.signing); may be absent
    LICENSE, NOTICE may be there, and are under the digests too

A bundle comes from outside. It is flat, holds nothing else, and nothing of it is ever executed or unpickled.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Final

from engines.bundle.golden import Golden, read_golden, write_golden
from engines.bundle.networks import check_network
from engines.bundle.provenance import Provenance
from engines.bundle.signing import SIGNATURE, Signature, read_signature
from engines.bundle.soundness import check_card
from engines.bundle.tables import as_table, nearest, read_table, write_toml
from engines.bundle.words import in_words
from engines.card import EngineCard, Stage
from engines.errors import BundleError
from engines.tasks.image import with_strength

FORMAT: Final = 1
CARD, GOLDEN, WORDS, DIGESTS = "card.toml", "golden.npz", "CARD.md", "digests.json"
_LEGAL: Final = ("LICENSE", "NOTICE")
_NOT_IN_FILE: Final = ("runtime", "bundle")
"""Fields of a card that the machine fills in."""

_MIB: Final = 2**20
_LARGEST_BYTES: Final = {
    CARD: _MIB // 4, GOLDEN: 256 * _MIB, WORDS: _MIB, DIGESTS: _MIB // 16, SIGNATURE: _MIB // 16,
}  # fmt: skip
_LARGEST_NETWORK_BYTES: Final = 1024 * _MIB
_MOST_FILES: Final = 64
_CHANGED: Final = "copy the bundle again from its source; or if you changed it yourself: dicomnode engines make FOLDER"
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Bundle:
    """A folder whose files are the ones that its digests name.

    digest     SHA-256 over the digests of all its files; `card.bundle` too
    signature  as it stands in the folder: that it is genuine is for `engines.bundle.signing.verify` to say
    """

    folder: Path
    card: EngineCard
    provenance: Provenance
    digest: str
    signature: Signature | None

    @property
    def networks(self) -> tuple[Path, ...]:
        """The ONNX files in the order of the card's stages."""
        return tuple(self.folder / stage.file for stage in self.card.stages)


@dataclass(frozen=True)
class _CardFile:
    format: int
    engine: EngineCard
    provenance: Provenance


@dataclass(frozen=True)
class _DigestsFile:
    files: Mapping[str, str]


def load_bundle(folder: Path | str) -> Bundle:
    """The bundle in `folder`, every file of it checked against its digest.

    Raises BundleError, which says what is wrong with which file. `check_networks` and `golden` look into the files
    that this only weighs.
    """
    folder = Path(folder)
    names = _names(folder)
    if CARD in names and DIGESTS not in names:
        raise BundleError(f"{folder.name} has no {DIGESTS} yet", f"is it yours? dicomnode engines make {folder}")
    files = read_table(_DigestsFile, _json(folder, DIGESTS), DIGESTS).files
    _check_files(names, files)
    engine, provenance = read_card(folder)
    _check_wanted(files, engine)
    for name, digest in files.items():
        if _digest(folder / name, _largest(name)) != digest:
            raise BundleError(f"{name} is not the file that {DIGESTS} names", _CHANGED)
    digest = digest_of(files)
    signature = read_signature(_json(folder, SIGNATURE)) if SIGNATURE in names else None
    return Bundle(folder, replace(with_strength(engine), bundle=digest), provenance, digest, signature)


def check_networks(bundle: Bundle) -> None:
    """Raises BundleError where a network is malformed, or is not what the card and its task want of it."""
    check_networks_of(bundle.card, bundle.folder)


def check_networks_of(card: EngineCard, folder: Path) -> None:
    """The same of a folder that is no bundle yet."""
    from engines.tasks.wiring import check_chain  # knows every task, which takes long to import

    check_chain(card)
    for stage in card.stages:
        check_network(network_of(folder, stage), stage, quantised="int8" in card.precisions)


def network_of(folder: Path, stage: Stage) -> bytes:
    """The ONNX file of a stage; raises BundleError."""
    return read_file(folder / stage.file, _LARGEST_NETWORK_BYTES)


def golden(bundle: Bundle) -> Golden:
    """The bundle's golden test. Raises BundleError where it does not fit the card."""
    test = read_golden(read_file(bundle.folder / GOLDEN, _LARGEST_BYTES[GOLDEN]))
    check_golden(bundle.card, test)
    return test


def write_bundle(
    folder: Path, card: EngineCard, provenance: Provenance, networks: Mapping[str, bytes], test: Golden
) -> Bundle:
    """Write a bundle, unsigned, into an existing, empty folder, and load it again.

    networks  bytes of ONNX by the file names of the card's stages
    Raises BundleError on what `load_bundle`, `check_networks` or `golden` would refuse.
    """
    if any(folder.iterdir()):
        raise BundleError(f"{folder.name} is not empty", "write a bundle into a folder of its own")
    card = with_strength(card)
    check_card(card)
    check_golden(card, test)
    files = {
        CARD: write_toml({"format": FORMAT, "engine": as_table(card, _NOT_IN_FILE), "provenance": provenance}).encode(),
        WORDS: in_words(card, provenance).encode(),
        GOLDEN: write_golden(test),
        **networks,
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    seal(folder)
    bundle = load_bundle(folder)
    check_networks(bundle)
    golden(bundle)
    return bundle


def seal(folder: Path | str) -> None:
    """Write the digests of all files of a bundle anew; a signature is taken away. Nothing is checked, and CARD.md stays
    what it is: `engines.making.make` does both."""
    folder = Path(folder)
    (folder / SIGNATURE).unlink(missing_ok=True)
    names = sorted(_names(folder) - {DIGESTS})
    files = {name: _digest(folder / name, _largest(name)) for name in names}
    (folder / DIGESTS).write_text(json.dumps({"files": files}, indent=2) + "\n")


def digest_of(files: Mapping[str, str]) -> str:
    """SHA-256 over the digests of all files, by name: the identity of a bundle."""
    return hashlib.sha256(json.dumps(dict(files), sort_keys=True).encode()).hexdigest()


def check_wanted(folder: Path, card: EngineCard) -> None:
    """Raises BundleError where a folder that is to become a bundle lacks a network, or holds what is no part of one."""
    names = _names(folder)
    networks = {stage.file for stage in card.stages}
    for name in sorted(networks - names):
        raise BundleError(f"{name} is missing", nearest(name, (name for name in names if name.endswith(".onnx"))))
    for name in sorted(names - networks - {*_LARGEST_BYTES, *_LEGAL}):
        raise BundleError(f"{name[:80]!r} is no part of a bundle", "take it away: what is in it is signed and given on")


def _names(folder: Path) -> set[str]:
    """Names of the folder's files. Anything but plain files is refused: links lead out of it."""
    try:
        with os.scandir(folder) as entries:
            found = [(entry.name, entry.is_file(follow_symlinks=False)) for entry in islice(entries, _MOST_FILES + 1)]
    except OSError as error:
        raise BundleError(
            f"{folder.name} cannot be read as a folder: {error.strerror}", "give a bundle's folder"
        ) from None
    if len(found) > _MOST_FILES:
        raise BundleError(f"{folder.name} has more than {_MOST_FILES} files", "a bundle has only its own")
    for name, is_file in found:
        if not is_file:
            raise BundleError(f"{name[:80]!r} is a link, a folder or a device", "a bundle is a flat folder of files")
    return {name for name, _ in found}


def _check_files(names: set[str], files: Mapping[str, str]) -> None:
    for name, digest in files.items():
        if name not in names:
            raise BundleError(f"{DIGESTS} names {name[:80]!r}, which is not there", nearest(name, names))
        if not _SHA256.fullmatch(digest):
            raise BundleError(f"{DIGESTS}: {name} has no SHA-256", "seal the bundle again where it was made")
    extra = sorted(names - set(files) - {DIGESTS, SIGNATURE})
    if extra:
        raise BundleError(
            f"{extra[0][:80]!r} is under no digest", "a bundle holds no file that its digests do not name"
        )


def _check_wanted(files: Mapping[str, str], card: EngineCard) -> None:
    wanted = {CARD, GOLDEN, WORDS, *(stage.file for stage in card.stages)}
    for name in sorted(wanted - set(files)):
        raise BundleError(f"{name} is missing", nearest(name, files))
    for name in sorted(set(files) - wanted - set(_LEGAL)):
        raise BundleError(f"{name[:80]!r} is no part of a bundle", "its networks are the files of the card's stages")


def check_golden(card: EngineCard, test: Golden) -> None:
    """Raises BundleError where a golden test does not fit the card."""
    if set(test.inputs) != set(card.inputs) or set(test.outputs) != set(card.outputs):
        raise BundleError(f"{GOLDEN} has other inputs or outputs than the card", "give one value for each of them")
    for precision in card.precisions:
        if set(test.tolerance.get(precision, {})) != set(card.outputs):
            raise BundleError(f"{GOLDEN} lacks a tolerance for {precision}", "give one for each precision and output")
    card.resolve(test.settings)


def read_card(folder: Path) -> tuple[EngineCard, Provenance]:
    """What a folder's card.toml says. Raises BundleError with what is wrong, and where."""
    try:
        table = tomllib.loads(read_file(folder / CARD, _LARGEST_BYTES[CARD]).decode())
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{CARD} is no TOML: {str(error)[:200]}", "look at the place it names") from None
    found = table.get("format")
    if found != FORMAT:
        raise BundleError(f"{CARD} is of format {str(found)[:20]}", f"this version reads format = {FORMAT}")
    file = read_table(_CardFile, table, CARD)
    if (file.engine.runtime, file.engine.bundle) != (EngineCard.runtime, EngineCard.bundle):
        raise BundleError(
            f"{CARD} names a runtime or a bundle", "the machine that computes fills these in: leave them out"
        )
    check_card(file.engine)
    return file.engine, file.provenance


def _json(folder: Path, name: str) -> object:
    try:
        return json.loads(read_file(folder / name, _LARGEST_BYTES[name]))
    except (ValueError, RecursionError):
        raise BundleError(f"{name} is no JSON", "copy the bundle again from its source") from None


def _largest(name: str) -> int:
    return _LARGEST_NETWORK_BYTES if name.endswith(".onnx") else _LARGEST_BYTES.get(name, _MIB)


def read_file(path: Path, largest_bytes: int) -> bytes:
    """A file's bytes: never those that a link leads to. Raises BundleError where it has more than `largest_bytes`."""
    with _opened(path, largest_bytes) as file:
        return file.read(largest_bytes + 1)


def _digest(path: Path, largest_bytes: int) -> str:
    with _opened(path, largest_bytes) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _opened(path: Path, largest_bytes: int) -> io.BufferedReader:
    """The file, open to read: itself, never what a link leads to, and never more than `largest_bytes`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise BundleError(
            f"{path.name} cannot be read: {error.strerror}", "copy the bundle again from its source"
        ) from None
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_size > largest_bytes:
        os.close(descriptor)
        raise BundleError(
            f"{path.name} is larger than {largest_bytes} bytes, or no file", "it cannot be part of a bundle"
        )
    return os.fdopen(descriptor, "rb")
