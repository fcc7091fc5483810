"""engines import and export: from a MONAI bundle, and to one."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from dicomnode.config import Config
from dicomnode.errors import UsageError
from dicomnode.operations.check_engine import bundle_of
from dicomnode.operations.terminal import printable_lines
from dicomnode.settings import LimitSettings
from dicomnode.workers import Operation, WorkerProcess
from engines.bundle import monai
from engines.bundle.examples import example_inputs, example_shape
from engines.bundle.folder import write_bundle
from engines.bundle.golden import Golden
from engines.card import EngineCard, Scale
from engines.making import golden_of

_IMPORT_TIMEOUT_S: Final = 600.0


@dataclass(frozen=True)
class Converted:
    """What was written, and in sentences what has no place in it."""

    engine: str
    folder: str
    lost: tuple[str, ...]

    def to_json(self) -> Mapping[str, Any]:
        return asdict(self)

    def lines(self) -> Sequence[str]:
        return printable_lines((f"{self.engine} is written to {self.folder}; but:", *(f"- {one}" for one in self.lost)))


def import_from_monai(source: Path, target: Path, name: str, scale: Scale | None = None) -> Converted:
    """Make a bundle of a MONAI bundle, in a process of its own: nobody knows yet how much memory its network asks for.

    Raises BundleError where it does not map; UsageError where `target` is not empty; WorkerError, RuntimeFailedError.
    """
    with closing(WorkerProcess(__name__, LimitSettings().worker_memory_mb << 20)) as worker:
        given = {"source": str(source.absolute()), "target": str(target.absolute()), "name": name}
        made = worker.call("convert", _IMPORT_TIMEOUT_S, **given, scale=scale and asdict(scale))
    return Converted(made["engine"], str(target), tuple(made["lost"]))


def operations() -> Mapping[str, Operation]:
    """Of that process (see `dicomnode.workers`)."""
    return {"convert": _convert}


def _convert(source: str, target: str, name: str, scale: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """`import_from_monai`, here. The golden test is what ONNX Runtime computes of made inputs."""
    given = None if scale is None else Scale(scale["offset"], scale["divisor"])
    return _converted(Path(source), Path(target), name, given).to_json()


def _converted(source: Path, target: Path, name: str, scale: Scale | None) -> Converted:
    found = monai.import_monai(source, name, scale)
    _make_empty(target)
    file = found.card.stages[0].file
    bundle = write_bundle(
        target, found.card, found.provenance, {file: found.network}, _golden(found.card, found.network)
    )
    return Converted(bundle.card.reference, str(target), found.unmapped)


def export_to_monai(config: Config | None, what: str, target: Path) -> Converted:
    """Write a bundle as a MONAI bundle. Raises BundleError where it does not map; UsageError on a full `target`."""
    bundle = bundle_of(config, what)
    _make_empty(target)
    return Converted(bundle.card.reference, str(target), monai.export_monai(bundle, target))


def _make_empty(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is not empty", "name a folder that is new or empty: nothing is overwritten")
    folder.mkdir(parents=True, exist_ok=True)


def _golden(card: EngineCard, network: bytes) -> Golden:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / card.stages[0].file).write_bytes(network)
        return golden_of(card, folder, example_inputs(card, example_shape(card)))[0]
