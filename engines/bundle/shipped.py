"""Bundles that come with the package, below one folder: `<name>/<version>/`, each as its maker wrote it.

Nobody's word is asked for them, and no signature: they are files of the package like its code, and who could change
them could change the code that checks them. Their digests are checked all the same, for a disk may have changed them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from engines.bundle.folder import CARD, Bundle, load_bundle
from engines.errors import BundleError


def shipped(zoo: Path) -> Mapping[str, tuple[str, ...]]:
    """The engines that come as bundles below `zoo`, and the versions of each, the oldest first. No file is read."""
    found: dict[str, list[str]] = {}
    for card in sorted(zoo.glob(f"*/*/{CARD}")):
        found.setdefault(card.parent.parent.name, []).append(card.parent.name)
    return {name: tuple(sorted(versions, key=_in_order)) for name, versions in found.items()}


def load_shipped(zoo: Path, name: str, version: str) -> Bundle:
    """A bundle that comes along, checked against its digests. Raises BundleError where it is damaged."""
    try:
        bundle = load_bundle(zoo / name / version)
    except BundleError as error:
        raise BundleError(f"{name}@{version}, which comes with the node: {error}", "install the node again") from None
    if bundle.card.reference != f"{name}@{version}":
        raise BundleError(f"{bundle.card.reference} lies where {name}@{version} should be", "install the node again")
    return bundle


def _in_order(version: str) -> tuple[tuple[int, ...], str]:
    """1.9.0 before 1.10.0."""
    return tuple(int(part) if part.isdecimal() else 0 for part in version.split(".")[:3]), version
