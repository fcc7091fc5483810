"""The Runtime of one bundle's plans: those that were built and proved on this machine, and no others."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from engines.bundle.folder import Bundle
from engines.card import Precision
from engines.errors import RuntimeFailedError
from engines.runtimes.base import Resources, Session
from engines.runtimes.devices import CPU, cuda_devices, cuda_index
from engines.runtimes.tensorrt.building import build
from engines.runtimes.tensorrt.device import Gpu, describe
from engines.runtimes.tensorrt.libraries import Libraries, installed_packages, load
from engines.runtimes.tensorrt.plans import BuildSettings, PlanFacts, PlanStore, Record
from engines.runtimes.tensorrt.precision import RECIPE, retype
from engines.runtimes.tensorrt.profiles import Profile, profiles_of
from engines.runtimes.tensorrt.session import TensorRtSession

TENSORRT: Final = "tensorrt"


@dataclass(frozen=True)
class Network:
    """What of one ONNX file a plan depends on; `digest` its SHA-256."""

    stage: str
    digest: str
    profiles: tuple[Profile, ...]


@dataclass(frozen=True)
class Networks:
    """What plans are made of, and where they are kept.

    reference  `name@version` of the bundle, for people; `bundle` its digest
    files      its ONNX files
    cache      an existing folder of this machine
    """

    reference: str
    bundle: str
    files: tuple[Path, ...]
    cache: Path

    @classmethod
    def of(cls, bundle: Bundle, cache: Path) -> Networks:
        return cls(bundle.card.reference, bundle.digest, bundle.networks, cache)

    @property
    def build_hint(self) -> str:
        return f"dicomnode engines build {self.reference}"


class TensorRt:
    """A `Runtime` for the networks of one bundle: it offers the precisions in which each of them has an activated plan.

    Nothing of CUDA is set up in a process before it is asked for a GPU that is there.
    """

    def __init__(self, networks: Networks) -> None:
        self._networks = networks
        self._store = PlanStore(networks.cache)

    @functools.cached_property
    def _described(self) -> dict[str, Network]:
        """By file name. Read once: the files of a bundle do not change, and to look into them takes a while."""
        return {file.name: describe_network(file) for file in self._networks.files}

    @property
    def name(self) -> str:
        return TENSORRT

    def unavailable(self, device: str) -> str:
        if device == CPU:
            return "TensorRT computes on GPUs only"
        try:
            if self.precisions(device):
                return ""
            return "; ".join(self._why_not(device)) or f"no plan of it was built here: {self._networks.build_hint}"
        except RuntimeFailedError as error:
            return f"{error}; {error.hint}"

    def precisions(self, device: str) -> tuple[Precision, ...]:
        libraries, gpu = on_device(device)
        return tuple(precision for precision in gpu.precisions if self._activated(libraries, gpu, precision))

    def open(self, model: Path, resources: Resources) -> Session:
        libraries, gpu = on_device(resources.device)
        if model not in self._networks.files:
            raise RuntimeFailedError(f"{model.name} is no network of {self._networks.reference}", "open its own")
        record = self._find(libraries, gpu, self._described[model.name], resources.precision)
        if record is None or not record.activated:
            raise RuntimeFailedError(
                f"{model.name} of {self._networks.reference} has no activated plan in {resources.precision} here",
                "; ".join(record.proof) if record and record.proof else self._networks.build_hint,
            )
        plan = self._store.plan(record)
        return TensorRtSession(libraries, plan, cuda_index(resources.device), resources.precision)

    def _why_not(self, device: str) -> tuple[str, ...]:
        """What was found against the plans that were built and are not used."""
        libraries, gpu = on_device(device)
        records = (record for each in gpu.precisions for record in self._records(libraries, gpu, each))
        return tuple(dict.fromkeys(line for record in records if record for line in self._against(record)))

    def _against(self, record: Record) -> tuple[str, ...]:
        if not record.activated:
            return record.proof
        return () if self._store.has_plan(record) else (f"the plan of {record.facts.stage} is missing or was changed",)

    def _activated(self, libraries: Libraries, gpu: Gpu, precision: Precision) -> bool:
        records = self._records(libraries, gpu, precision)
        return all(record is not None and record.activated and self._store.has_plan(record) for record in records)

    def _records(self, libraries: Libraries, gpu: Gpu, precision: Precision) -> Iterator[Record | None]:
        for network in self._described.values():
            yield self._find(libraries, gpu, network, precision)

    def _find(self, libraries: Libraries, gpu: Gpu, network: Network, precision: Precision) -> Record | None:
        return self._store.find(plan_facts(libraries, gpu, self._networks.bundle, network, precision))


def on_device(device: str) -> tuple[Libraries, Gpu]:
    """The libraries and the GPU. Raises RuntimeFailedError that says which of them is missing, and what to do."""
    if cuda_index(device) >= cuda_devices():
        raise RuntimeFailedError(
            f"there is no GPU {device} here", "see nvidia-smi; a container has to be given the GPU (--gpus all)"
        )
    libraries = load()
    return libraries, describe(libraries, device)


def describe_network(model: Path) -> Network:
    """Raises RuntimeFailedError where the file cannot be read, or no plan can be built for what it takes."""
    content = _content(model)
    return Network(model.name, hashlib.sha256(content).hexdigest(), profiles_of(content))


def plan_facts(libraries: Libraries, gpu: Gpu, bundle: str, network: Network, precision: Precision) -> PlanFacts:
    """What a plan of this network depends on, here and now."""
    return PlanFacts(
        bundle=bundle,
        stage=network.stage,
        network=network.digest,
        precision=precision,
        recipe=RECIPE,
        tensorrt=libraries.trt.__version__,
        packages=installed_packages(),
        gpu=gpu,
        profiles=network.profiles,
        settings=BuildSettings(),
    )


def build_plans(networks: Networks, device: str, precision: Precision) -> tuple[Record, ...]:
    """A plan of each network, kept but not activated. Raises RuntimeFailedError where one cannot be built."""
    libraries, gpu = on_device(device)
    libraries.value(libraries.cuda.cudaSetDevice(cuda_index(device)), f"using {device}")
    store = PlanStore(networks.cache)
    records = tuple(_build_plan(libraries, gpu, networks, file, precision, store) for file in networks.files)
    store.forget_unused()
    return records


def open_built(networks: Networks, device: str, record: Record) -> Session:
    """A session of a plan that is yet to be proved, for the proof alone."""
    libraries, _ = on_device(device)
    plan = PlanStore(networks.cache).plan(record)
    return TensorRtSession(libraries, plan, cuda_index(device), record.facts.precision)


def conclude(networks: Networks, records: Sequence[Record], proof: Sequence[str], activated: bool) -> None:
    """Write down what was proved, and whether the plans may compute from now on."""
    store = PlanStore(networks.cache)
    for record in records:
        store.put(replace(record, proof=tuple(proof), activated=activated))


def _build_plan(
    libraries: Libraries, gpu: Gpu, networks: Networks, file: Path, precision: Precision, store: PlanStore
) -> Record:
    facts = plan_facts(libraries, gpu, networks.bundle, describe_network(file), precision)
    retyped = retype(_content(file), precision)
    built = build(libraries, retyped.model, facts.profiles, facts.settings, store.timing(facts))
    store.put_timing(facts, built.timing)
    record = Record(facts, hashlib.sha256(built.plan).hexdigest(), retyped.kept)
    store.put(record, built.plan)
    return record


def _content(model: Path) -> bytes:
    try:
        return model.read_bytes()
    except OSError as error:
        raise RuntimeFailedError(
            f"{model.name} cannot be read: {error.strerror}", "see: dicomnode engines check"
        ) from None
