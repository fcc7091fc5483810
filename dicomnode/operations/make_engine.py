"""engines new and make: from a network to a bundle."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from dicomnode.core.stacks import STACK_KEYWORDS
from dicomnode.errors import NotFoundError, UsageError
from dicomnode.operations.stacks import middle_of, stacks_in
from dicomnode.operations.terminal import printable_lines
from engines import making
from engines.base import Value
from engines.bundle import signing
from engines.bundle.examples import example_inputs
from engines.bundle.folder import CARD, network_of, read_card, read_file
from engines.bundle.golden import read_arrays
from engines.bundle.networks import names_of
from engines.bundle.reach import reach_of
from engines.bundle.soundness import file_problems, name_problems
from engines.bundle.tables import nearest
from engines.bundle.template import Network, card_template
from engines.bundle.words import limits_in_words
from engines.card import EngineCard, Stage, Task
from engines.volume import Volume
from engines.whole_files import GIVEN_ON, write_whole

_TASKS: Final[Mapping[str, Task]] = {
    "image": "image", "contrast": "contrast", "super-resolution": "super-resolution", "segment": "segment",
    "detect": "detect",
}  # fmt: skip
_MOST_SLICES: Final = 5
_LARGEST_ARRAYS_BYTES: Final = 256 * 2**20


@dataclass(frozen=True)
class Begun:
    """A card that waits to be completed; `notes` say what was found in the network."""

    card: str
    notes: tuple[str, ...]

    def to_json(self) -> Mapping[str, Any]:
        return asdict(self)

    def lines(self) -> Sequence[str]:
        folder = Path(self.card).parent
        return printable_lines(
            (f"wrote {self.card}", *self.notes, f"complete it, then: dicomnode engines make {folder}")
        )


@dataclass(frozen=True)
class MadeBundle:
    """A bundle that was made, by whom it is signed ("": by nobody), and what is to be known of it in sentences."""

    engine: str
    digest: str
    folder: str
    signed_by: str
    notes: tuple[str, ...]

    def to_json(self) -> Mapping[str, Any]:
        return asdict(self)

    def lines(self) -> Sequence[str]:
        signed = f"signed by {self.signed_by}" if self.signed_by else "not signed: --key signs it"
        return printable_lines(
            (
                *self.notes,
                f"{self.engine} is made: bundle {self.digest}, {signed}",
                f"to install it: dicomnode engines add {self.folder}",
            )
        )


def new_card(folder: Path, name: str, task: str, network: Path | None) -> Begun:
    """Write a card.toml with comments into a folder; of a network that is given, or lies there alone, with its names.

    Raises UsageError where a file is there already, several networks are, or no such task or name may be; BundleError
    where the network is none.
    """
    if task not in _TASKS:
        raise UsageError(f"there is no task {task!r}", nearest(task, _TASKS))
    path = _network_for(folder, network)
    for problem, hint in (*name_problems(name), *(() if path is None else file_problems(path.name))):
        raise UsageError(problem, hint)
    if path is None:
        _write_new(folder / CARD, card_template(name, _TASKS[task]).encode())
        return Begun(
            str(folder / CARD), ("no network was given: write the names of its file and tensors into the card",)
        )
    stage = Stage(path.name, (), ())
    content = network_of(path.parent, stage)
    (taken, given), reach = names_of(content, path.name), reach_of(content, stage)
    described = Network(path.name, taken or ("x",), given or ("y",), reach.px or 0, reach.coarsest)
    if path.parent.resolve() != folder.resolve():
        _write_new(folder / path.name, content)
    _write_new(folder / CARD, card_template(name, _TASKS[task], described).encode())
    looks = "how far it looks cannot be told: see halo_px" if reach.px is None else f"it looks {reach.px} px far"
    return Begun(str(folder / CARD), (f"{path.name} takes {', '.join(taken)} and gives {', '.join(given)}; {looks}",))


def _network_for(folder: Path, network: Path | None) -> Path | None:
    """The network that is given, or lies in the folder alone; raises UsageError where a file would be overwritten."""
    found = sorted(folder.glob("*.onnx")) if network is None else [network]
    if len(found) > 1:
        names = ", ".join(path.name[:80] for path in found[:8])
        raise UsageError(f"{folder} has {len(found)} networks: {names}", "say which one with --network FILE")
    path = found[0] if found else None
    copied = path is not None and path.parent.resolve() != folder.resolve()
    for target in (folder / CARD, *((folder / path.name,) if path is not None and copied else ())):
        if os.path.lexists(target):
            raise UsageError(f"{target} is there already", "nothing is overwritten: change that one, or take it away")
    return path


def _write_new(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content, GIVEN_ON)


def make_engine(folder: Path, slices: Path | None, key: Path | None) -> MadeBundle:
    """Make a bundle of a folder with a card and its networks, or make one anew after any change; and sign it.

    slices  a folder of DICOM images, or an .npz, that inputs of the golden test are taken from
    Raises BundleError, UsageError, NotFoundError with what is wrong.
    """
    if key is not None:
        signing.check_private(key)
    notes: tuple[str, ...] = ()
    given = None
    if slices is not None:
        card, _ = read_card(folder)
        given, notes = _given(card, slices)
    made = making.make(folder, given)
    bundle = made.bundle
    signed_by = "" if key is None else signing.sign(folder, bundle.digest, key).fingerprint
    told = (*made.notes, *notes, *limits_in_words(bundle.card))
    return MadeBundle(bundle.card.reference, bundle.digest, str(folder), signed_by, told)


def _given(card: EngineCard, slices: Path) -> tuple[Mapping[str, Value], tuple[str, ...]]:
    volumes = [name for name, port in card.inputs.items() if port.kind == "volume"]
    if slices.suffix == ".npz":
        taken = _arrays(card, volumes, slices)
    elif len(volumes) != 1:
        names = ", ".join(volumes)
        raise UsageError(f"its card takes several series: {names}", "give an .npz with one array for each of them")
    else:
        taken = {volumes[0]: _of_dicom(slices)}
    shape = next(iter(taken.values())).shape
    others = example_inputs(card, shape)  # what a person would have to draw
    inputs = {name: taken[name] if name in taken else others[name] for name in card.inputs}
    return inputs, (f"golden.npz holds {shape[0]} of these slices as they are: give it on as you may give on those",)


def _of_dicom(folder: Path) -> Volume:
    """The middle of the largest stack."""
    stacks = [one for one in stacks_in(folder, STACK_KEYWORDS)[0] if not one.stack.excluded]
    if not stacks:
        raise NotFoundError(f"nothing in {folder} can be enhanced", "give slices of the kind that the engine is for")
    return middle_of(max(stacks, key=lambda one: len(one.paths)), _MOST_SLICES)


def _arrays(card: EngineCard, names: Sequence[str], path: Path) -> dict[str, Volume]:
    arrays = read_arrays(read_file(path, _LARGEST_ARRAYS_BYTES), _LARGEST_ARRAYS_BYTES)
    for name in names:
        if name not in arrays or arrays[name].ndim != 3 or arrays[name].dtype != np.float32:
            hint = f"it must hold float32 arrays (slices, rows, columns) named {', '.join(names)}"
            raise UsageError(f"{path.name} has no such array {name!r}", hint)
    units = {name: card.inputs[name].unit for name in names}
    return {name: Volume(arrays[name], np.eye(4), "HU" if units[name] == "as-input" else units[name]) for name in names}
