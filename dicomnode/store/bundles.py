"""Installed engine bundles: added, switched and removed, each as one change that a crash leaves done or undone.

A bundle is copied aside, checked there, and renamed into place; the state of its name is written anew beside it and
renamed over the old one. `engines.bundle.installed` says how they lie, and reads them.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final, Literal

from dicomnode.errors import DiskFullError, UsageError
from dicomnode.store.folders import make_folder, sync_folder
from engines.bundle.folder import Bundle, load_bundle
from engines.bundle.installed import STATE, Accepted, Change, Installed, load_installed, read_state
from engines.bundle.tables import nearest
from engines.errors import BundleError, EngineNotFoundError

_LOCK: Final = ".lock"
"""No engine can have this name, or one that begins with a dot."""
_ASIDE: Final = ".aside-"
_KEPT_CHANGES: Final = 200


@dataclass(frozen=True)
class By:
    """Who does something, and when (Unix time)."""

    who: str
    at: float


def add(folder: Path, bundle: Bundle, signed_by: str, by: By, *, shipped: bool = False) -> Installed:
    """Copy a bundle below `folder`; the first version of a name is in use from then on. Again, it changes nothing but
    what was damaged.

    signed_by  fingerprint of the trusted key that vouches for it; empty where `by` takes it at his word
    shipped    it comes with the package, which is trusted without either
    Raises UsageError where another bundle has this name and version, BundleError where its files change meanwhile,
    DiskFullError.
    """
    card = bundle.card
    with _changing(folder):
        state = read_state(folder / card.name)
        there = state.versions.get(card.version)
        if there is not None and there.digest == bundle.digest:
            _mend(bundle, folder)
            return state
        if there is not None:
            raise UsageError(f"another {card.reference} is installed", "give the new one a version of its own")
        _copy(bundle, folder / card.name / card.version)
        accepted = Accepted(bundle.digest, signed_by, by.who, by.at, shipped)
        added = _noted(replace(state, versions={**state.versions, card.version: accepted}), "add", card.version, by)
        if not added.in_use:
            added = _noted(replace(added, in_use=card.version), "use", card.version, by)
        return _write(folder / card.name, added)


def use(folder: Path, name: str, version: str, by: By) -> Installed:
    """Let `name` mean this version. Raises EngineNotFoundError where it is not installed."""
    with _changing(folder):
        state = _known(folder, name, version)
        if state.in_use == version:
            return state
        return _write(folder / name, _noted(replace(state, in_use=version), "use", version, by))


def former(state: Installed) -> str:
    """The version that was in use before the one that is, and is still there; empty where there was none."""
    used = [change.version for change in state.history if change.what == "use"]
    before = [version for version in used if version != state.in_use and version in state.versions]
    return before[-1] if before else ""


def remove(folder: Path, name: str, version: str, by: By) -> Installed:
    """Delete an installed version. Raises EngineNotFoundError where it is not installed; UsageError where it is in use
    and there are others."""
    with _changing(folder):
        state = _known(folder, name, version)
        left = {each: accepted for each, accepted in state.versions.items() if each != version}
        if state.in_use == version and left:
            raise UsageError(f"{name}@{version} is in use", f"switch first: dicomnode engines use {name}@VERSION")
        in_use = "" if state.in_use == version else state.in_use
        written = _write(folder / name, _noted(replace(state, versions=left, in_use=in_use), "remove", version, by))
        shutil.rmtree(folder / name / version)
        sync_folder(folder / name)
        return written


def _mend(bundle: Bundle, folder: Path) -> None:
    """Copy a bundle again where what is installed of it does not load any more."""
    try:
        load_installed(folder, bundle.card.name, bundle.card.version)
    except BundleError:
        _copy(bundle, folder / bundle.card.name / bundle.card.version)


def _known(folder: Path, name: str, version: str) -> Installed:
    state = read_state(folder / name)
    if version not in state.versions:
        raise EngineNotFoundError(f"engine {name} has no version {version!r} here", nearest(version, state.versions))
    return state


def _noted(state: Installed, what: Literal["add", "use", "remove"], version: str, by: By) -> Installed:
    history = (*state.history, Change(what, version, by.who, by.at))
    return replace(state, history=history[-_KEPT_CHANGES:])


@contextmanager
def _changing(folder: Path) -> Iterator[None]:
    """One change at a time, also of several commands; what a killed one left aside is swept away."""
    make_folder(folder)
    with (folder / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left in folder.glob(f"{_ASIDE}*"):
            shutil.rmtree(left)
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise DiskFullError(f"the disk of {folder} is full", "free space there, and do it again") from None


def _copy(bundle: Bundle, target: Path) -> None:
    make_folder(target.parent)
    aside = Path(tempfile.mkdtemp(prefix=_ASIDE, dir=target.parent.parent))
    try:
        for path in sorted(bundle.folder.iterdir()):
            shutil.copyfile(path, aside / path.name, follow_symlinks=False)
        if load_bundle(aside).digest != bundle.digest:
            raise BundleError("the bundle changed while it was copied", "add it again")
        _force(aside)
        shutil.rmtree(target, ignore_errors=True)  # of an add or a remove that was killed: the state does not know it
        aside.rename(target)
        sync_folder(target.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _force(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    folder.chmod(0o755)
    sync_folder(folder)


def _write(folder: Path, state: Installed) -> Installed:
    written = folder / f"{STATE}.new"
    with written.open("w") as file:
        json.dump(asdict(state), file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    written.rename(folder / STATE)
    sync_folder(folder)
    return state
