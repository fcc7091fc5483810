"""Bundles that are installed on a machine, below one folder: read here, and changed by `dicomnode.store.bundles`.

<name>/<version>/    a bundle, as it came
<name>/state.json    which versions there are and who let them in, which one is in use, and what was in use before
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, Self

from engines.bundle.folder import Bundle, load_bundle
from engines.bundle.tables import nearest, read_table
from engines.errors import BundleError, EngineNotFoundError

STATE: Final = "state.json"
_LARGEST_STATE_BYTES: Final = 2**20
_SOURCE: Final = re.compile(r"([0-9a-f]{64}):(/.*)", re.DOTALL)


@dataclass(frozen=True)
class Accepted:
    """How a version came in.

    digest     of the bundle that was accepted: another folder under its name is never loaded
    signed_by  fingerprint of the trusted key that vouched for it; empty where none did
    by, at     who added it, and when (Unix time); where `signed_by` is empty, whose word stands for it
    shipped    it came with the package: its files are trusted as the code is, and nobody's word is needed
    """

    digest: str
    signed_by: str
    by: str
    at: float
    shipped: bool = False


@dataclass(frozen=True)
class Change:
    """One thing that was done; `version` is what it was done to."""

    what: Literal["add", "use", "remove"]
    version: str
    by: str
    at: float


@dataclass(frozen=True)
class Installed:
    """The versions of one engine on this machine.

    in_use   what `name` without a version means; empty where there is none
    history  the oldest first
    """

    in_use: str = ""
    versions: Mapping[str, Accepted] = field(default_factory=dict)
    history: tuple[Change, ...] = ()


@dataclass(frozen=True)
class Versions:
    """The versions of one engine that is a bundle.

    installed  those that a site added, and copies that it keeps of some that come with the package
    shipped    those that come with the package, the oldest first, whether a copy is kept or not
    """

    installed: Installed
    shipped: tuple[str, ...] = ()

    @property
    def in_use(self) -> str:
        """What the name alone means: what the site chose, else the newest that comes with the package."""
        return self.installed.in_use or (self.shipped[-1] if self.shipped else "")

    @property
    def known(self) -> tuple[str, ...]:
        """All of them."""
        return tuple(dict.fromkeys((*self.installed.versions, *self.shipped)))

    def comes_along(self, version: str) -> bool:
        """Whether a version is the package's: not another one of the site that has its number."""
        accepted = self.installed.versions.get(version)
        return version in self.shipped and (accepted is None or accepted.shipped)


def installed_names(folder: Path) -> tuple[str, ...]:
    """The engines that are installed below `folder`, sorted; those among them whose state is damaged or lost.

    Raises BundleError where the folder cannot be read.
    """
    try:
        names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
        return tuple(name for name in names if _is_installed(folder / name))
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise BundleError(
            f"{folder} cannot be read: {error.strerror}", "look at the disk, and at who may read it"
        ) from None


def _is_installed(folder: Path) -> bool:
    try:
        return bool(read_state(folder).versions) or (not (folder / STATE).exists() and any(folder.iterdir()))
    except BundleError:
        return True


def read_state(folder: Path) -> Installed:
    """The state of one engine's folder; an empty one where there is none. Raises BundleError where it is damaged."""
    try:
        with (folder / STATE).open("rb") as file:
            table = json.loads(file.read(_LARGEST_STATE_BYTES))
    except FileNotFoundError:
        return Installed()
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(folder, type(error).__name__) from None
    try:
        state = read_table(Installed, table, STATE)
    except BundleError as error:
        raise _damaged(folder, str(error)) from None
    if (state.in_use or state.versions) and state.in_use not in state.versions:
        raise _damaged(folder, "the version in use is none of those installed")
    return state


def _damaged(folder: Path, why: str) -> BundleError:
    return BundleError(
        f"{folder / STATE} is damaged ({why})", f"look at the disk; then take {folder} away, and add its bundles again"
    )


@dataclass(frozen=True)
class BundleSource:
    """Which bundle is meant, and where it lies: what one process tells another. As text it is `digest:folder`, so that
    who keeps anything by it never takes one bundle for another that lies in its place."""

    digest: str
    folder: Path

    def __str__(self) -> str:
        return f"{self.digest}:{self.folder}"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """None where it is no bundle's: the name of an engine that comes along."""
        found = _SOURCE.fullmatch(text)
        return None if found is None else cls(found[1], Path(found[2]))

    def load(self) -> Bundle:
        """The bundle. Raises BundleError where it is damaged, or where another lies there."""
        bundle = load_bundle(self.folder)
        if bundle.digest != self.digest:
            raise BundleError(f"{bundle.card.reference} is not the bundle that was accepted", "add that one again")
        return bundle


def load_installed(folder: Path, name: str, version: str) -> Bundle:
    """An installed bundle, checked against its digests and against the one that was accepted.

    Raises EngineNotFoundError where it is not installed, BundleError where it is damaged or exchanged.
    """
    accepted = read_state(folder / name).versions
    if version not in accepted:
        raise EngineNotFoundError(f"engine {name} has no version {version!r} here", nearest(version, accepted))
    try:
        return BundleSource(accepted[version].digest, folder / name / version).load()
    except BundleError as error:
        again = f"dicomnode engines use {name}@{version}" if accepted[version].shipped else "dicomnode engines add"
        raise BundleError(f"{name}@{version}: {error}", f"add it again from its source: {again}") from None
