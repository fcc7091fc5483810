"""The golden test of a bundle on this machine: run once for each way to compute it, and remembered.

It says whether this machine computes what the maker's did. So it is run where the engine computes, with the memory it
has there, and again after anything changed that it depends on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from dicomnode import __version__
from dicomnode.workers import Operation
from engines.bundle.folder import Bundle, golden
from engines.bundle.golden import compare
from engines.bundle.installed import BundleSource
from engines.card import Precision
from engines.errors import BundleError, EngineInputError
from engines.model.engine import ModelEngine
from engines.runtimes.base import Resources
from engines.runtimes.choice import Choice, onnx_runtimes
from engines.runtimes.devices import model_of
from engines.whole_files import write_whole

MODULE: Final = "dicomnode.inference.proving"
_FOLDER: Final = "proofs"
_LIBRARIES: Final = ("numpy", "onnxruntime", "onnxruntime-gpu", "opencv-python-headless", "openvino", "tensorrt")


@dataclass(frozen=True)
class ProofFacts:
    """All that a passed test depends on.

    bundle   its digest
    runtime  what computes its networks, with version and precision
    library  exact versions of the libraries that compute: a patch is other native code
    device   its name here; `model` what it is, for a disk may move into another machine
    node     version of this software, which does what stands around the networks
    """

    bundle: str
    runtime: str
    library: str
    device: str
    model: str
    node: str = __version__


class Proofs:
    """The tests that were passed on this machine. `cache` is an existing folder; None: nothing is remembered.

    What is there and is not exactly what was written counts for nothing: the test is run again.
    """

    def __init__(self, cache: Path | None) -> None:
        self._folder = None if cache is None else cache / _FOLDER

    def holds(self, facts: ProofFacts) -> bool:
        if self._folder is None:
            return False
        try:
            return self._file(self._folder, facts).read_bytes() == _content(facts)
        except OSError:
            return False

    def keep(self, facts: ProofFacts) -> None:
        """Remember that it was passed. Whole or not at all."""
        if self._folder is not None:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            write_whole(self._file(self._folder, facts), _content(facts))

    @staticmethod
    def _file(folder: Path, facts: ProofFacts) -> Path:
        return folder / f"{hashlib.sha256(_content(facts)).hexdigest()}.json"


def _library() -> str:
    found = []
    for name in _LIBRARIES:
        with suppress(PackageNotFoundError):
            found.append(f"{name} {version(name)}")
    return ", ".join(found)


def prove(engine: ModelEngine, bundle: Bundle, choice: Choice, proofs: Proofs) -> str:
    """Why an opened engine must not compute for anyone here; "" where it passed its golden test, now or before.

    Raises BundleError where the test itself cannot be read, RuntimeFailedError where the device fails.
    """
    facts = ProofFacts(bundle.digest, engine.card.runtime, _library(), choice.device, model_of(choice.device))
    if proofs.holds(facts):
        return ""
    passed, found = try_golden(engine, bundle, choice.precision)
    if passed:
        proofs.keep(facts)
    return "" if passed else found


def try_golden(engine: ModelEngine, bundle: Bundle, precision: Precision) -> tuple[bool, str]:
    """Whether an engine passes, and what was found: of each output how far it is, and how far it may be.

    Raises as `prove`.
    """
    test = golden(bundle)
    try:
        made = engine.run(test.inputs, engine.card.resolve(test.settings))
    except EngineInputError as error:
        return False, str(error)
    differences = compare(test, precision, made)
    return all(one.passed for one in differences), "; ".join(map(str, differences))


def operations() -> Mapping[str, Operation]:
    """Of a process that tries a bundle which nobody trusts yet (see `dicomnode.workers`)."""
    return {"try_bundle": try_bundle}


def try_bundle(bundle: str, runtime: str, device: str, precision: Precision) -> dict[str, Any]:
    """The golden test of a bundle (the text of a `BundleSource`) in one runtime: {"passed": bool, "found": sentence}.

    Raises BundleError, RuntimeFailedError.
    """
    source = BundleSource.parse(bundle)
    if source is None:
        raise BundleError(f"{bundle[:80]!r} is no bundle", "name its digest and its folder")
    loaded, resources = source.load(), Resources(device, precision=precision)
    (opener,) = (one.open for one in onnx_runtimes() if one.name == runtime)
    with closing(ModelEngine.open(loaded, lambda path: opener(path, resources))) as engine:
        passed, found = try_golden(engine, loaded, precision)
    return {"passed": passed, "found": found}


def _content(facts: ProofFacts) -> bytes:
    return json.dumps(asdict(facts), sort_keys=True).encode()
