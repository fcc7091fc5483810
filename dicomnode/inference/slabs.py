"""An engine on slabs of volumes that lie in files: what it makes of them is written where it belongs in the output's.

A part is what one job gives to a batch. Volumes are mapped anew for each: what is mapped counts as memory.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from engines.base import Engine, Value
from engines.card import SettingValue
from engines.errors import EngineInputError
from engines.findings import Findings
from engines.model.engine import ModelEngine, Work
from engines.model.slabs import slab_of
from engines.tiling import Slab, widened
from engines.volume import Mask, Volume, load_volume
from engines.volume_files import (
    VALID,
    VOXELS,
    Grid,
    create_array,
    create_volume,
    write_slices,
)
from engines.whole_files import create_once

LABELS = "labels.npy"
MASK = "mask.json"

_SLAB_VOXELS: Final = 1 << 22
_MOST_SLICES: Final = 64
"""A slab is 16 slices of 512 x 512: about a second of a processor, some milliseconds of a GPU."""


def slab_slices(shape: tuple[int, int, int]) -> int:
    """How many slices of a volume (slices, rows, columns) make a slab."""
    return max(1, min(_MOST_SLICES, _SLAB_VOXELS // max(1, shape[1] * shape[2])))


def cut_into(shape: tuple[int, int, int], halo: int | None) -> list[tuple[int, int]]:
    """(begin, end) of the slabs of a volume; `halo` as in `ordering.Progress`."""
    step = shape[0] if halo is None else slab_slices(shape)
    return [(begin, min(begin + step, shape[0])) for begin in range(0, shape[0], step)]


@dataclass(frozen=True)
class Part:
    """Slices `begin` to `end` (exclusive) of one job.

    inputs   folder of each input by its name
    outputs  folder of each output by its name; made where it is not there
    """

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    begin: int
    end: int


def halo_of(engine: Engine) -> int | None:
    """How many slices on each side of one its output depends on; None: on all, so that the volume is not cut."""
    if isinstance(engine, ModelEngine):
        return None if engine.card.method else engine.halo_slices
    return 0 if engine.card.influence == "slice" else None


def is_joinable(engine: Engine) -> bool:
    """Whether slabs of several jobs gain by going through it together."""
    return isinstance(engine, ModelEngine) and not engine.card.method


def run_parts(engine: Engine, settings: Mapping[str, SettingValue], parts: Sequence[Part]) -> list[dict[str, Any]]:
    """Run `engine` on each part and write what it makes; for each part {"findings": {output: [finding...]}}.

    Raises what the engine raises, and EngineInputError where what it makes does not fit what it declares.
    """
    taken = [_Taken(part, {name: loaded(Path(folder)) for name, folder in part.inputs.items()}) for part in parts]
    if isinstance(engine, ModelEngine):
        made = engine.run_slabs([Work(one.inputs, settings, one.slab(engine.halo_slices)) for one in taken])
    else:
        made = [engine.run(one.alone(), settings) for one in taken]
    return [{"findings": _written(engine, values, one)} for values, one in zip(made, taken, strict=True)]


@dataclass(frozen=True)
class _Taken:
    """A part with its inputs, which are mapped."""

    part: Part
    inputs: Mapping[str, Volume | Mask]

    @property
    def slices(self) -> range:
        return range(self.part.begin, self.part.end)

    @property
    def source(self) -> Volume:
        """Whose grid it is."""
        return next(value for value in self.inputs.values() if isinstance(value, Volume))

    def slab(self, halo: int) -> Slab:
        return Slab(self.slices, widened(self.slices, halo, self.source.shape[0]))

    def alone(self) -> dict[str, Value]:
        """Its slices as volumes of their own."""
        return {name: slab_of(value, self.slices) for name, value in self.inputs.items() if isinstance(value, Volume)}


def loaded(folder: Path) -> Volume | Mask:
    """A volume or a mask, whichever lies there."""
    return load_mask(folder) if (folder / MASK).exists() else load_volume(folder)


def load_mask(folder: Path) -> Mask:
    """Read a mask that an engine's slabs were written to; labels are memory-mapped read-only."""
    described = json.loads((folder / MASK).read_text())
    labels = np.load(folder / LABELS, mmap_mode="r", allow_pickle=False)
    names = {int(label): name for label, name in described["names"].items()}
    return Mask(labels, np.asarray(described["affine"], dtype=np.float64), names)


def _written(engine: Engine, values: Mapping[str, Value], taken: _Taken) -> dict[str, list[dict[str, Any]]]:
    """Write the outputs of one part; its findings come back, their slices counted from the volume's first."""
    findings = {}
    for name, folder in taken.part.outputs.items():
        value = values.get(name)
        if isinstance(value, Findings):
            findings[name] = [asdict(one) | {"slice_index": one.slice_index + taken.part.begin} for one in value.items]
        elif isinstance(value, Volume | Mask):
            _write(value, taken, Path(folder))
        else:
            raise EngineInputError(f"{engine.card.reference} gave no {name!r}", "its card declares one")
    return findings


def _write(value: Volume | Mask, taken: _Taken, folder: Path) -> None:
    array = value.voxels if isinstance(value, Volume) else value.labels
    begin = taken.part.begin
    if len(array) != len(taken.slices):
        raise EngineInputError(
            f"the engine gave {len(array)} slices for {len(taken.slices)}", "this is a defect: report it"
        )
    shape = (taken.source.shape[0], array.shape[1], array.shape[2])
    affine = _whole_affine(value, taken)
    folder.mkdir(exist_ok=True)
    if isinstance(value, Mask):
        _create_mask(folder, value, shape, affine)
        write_slices(folder / LABELS, begin, array)
        return
    create_volume(folder, Grid(shape, affine, value.unit, value.window), padded=value.valid is not None)
    write_slices(folder / VOXELS, begin, array)
    if value.valid is not None:
        write_slices(folder / VALID, begin, value.valid)


def _whole_affine(value: Volume | Mask, taken: _Taken) -> NDArray[np.float64]:
    """Of the volume that a slab belongs to: the source's own, to the bit, where the grid is the source's."""
    if np.array_equal(value.affine, slab_of(taken.source, taken.slices).affine):
        return taken.source.affine
    affine = value.affine.copy()
    affine[:3, 3] -= taken.part.begin * affine[:3, 2]
    return affine


def _create_mask(folder: Path, mask: Mask, shape: tuple[int, int, int], affine: NDArray[np.float64]) -> None:
    described = {"affine": affine.tolist(), "names": mask.names}
    create_array(folder / LABELS, shape, np.dtype(np.uint8))
    create_once(folder / MASK, lambda file: file.write(json.dumps(described).encode()))
