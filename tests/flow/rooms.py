"""A pipeline in this process: the real operations of pixels and engines, called as plain functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from sqlalchemy import update

from dicomnode import faults
from dicomnode.core.phantom import phantom_study
from dicomnode.core.ports import ChainRequest
from dicomnode.core.routing import Routing
from dicomnode.core.rules import RuleSpec
from dicomnode.flow.deriving import Deriving
from dicomnode.flow.pipeline import Pipeline
from dicomnode.flow.rooms import Rooms
from dicomnode.inference.memory import SharedFolders
from dicomnode.inference.service import describe, run_chain
from dicomnode.pixels import service as pixels_service
from dicomnode.store.results import ResultStore
from dicomnode.store.schema import Instance, Job, Outbox, Series, SeriesState
from engines.volume import load_volume
from tests.store.receiving import Reception, receiving

DERIVING = Deriving(
    ae_title="DICOMNODE",
    series={"description_prefix": "AI ", "number_offset": 700},
    equipment={"manufacturer": "dicomnode"},
    content_qualification="RESEARCH",
)

DENOISE = RuleSpec("denoise", {"Modality": "CT"}, engines=("ct-nlm",), send=("pacs",))
CONTRAST = RuleSpec("contrast", {"Modality": "CT"}, engines=("contrast-glcae",), send=("pacs",))


class Killed(BaseException):
    """Stands in for SIGKILL at a kill point."""


@dataclass
class Calls:
    """A Worker (`dicomnode.core.ports`) that calls a table of operations in this process, and counts."""

    operations: Mapping[str, Callable[..., Mapping[str, Any]]]
    counts: dict[str, int] = field(default_factory=dict)

    def call(self, operation: str, timeout_s: float, **arguments: Any) -> Mapping[str, Any]:
        assert timeout_s > 0
        self.counts[operation] = self.counts.get(operation, 0) + 1
        return self.operations[operation](**arguments)


@dataclass
class _Running:
    """A chain (`dicomnode.core.ports.RunningChain`) that runs when its report is asked for."""

    engines: EngineCalls
    request: ChainRequest
    slices: int = 0

    def arrived(self, slices: int) -> None:
        self.slices = slices

    def report(self) -> Mapping[str, Any]:
        asked = self.request
        assert self.slices == len(load_volume(Path(asked.inputs["image"])).voxels)
        told = {"chain": asked.chain, "inputs": asked.inputs, "headers": asked.headers, "out": asked.out}
        return self.engines.call("run_chain", asked.deadline_s, **told, released=asked.released)


@dataclass
class EngineCalls(Calls):
    """Engines (`dicomnode.core.ports.Engines`) in this process."""

    def describe(self, engine: str) -> Mapping[str, Any]:
        return self.call("describe", 1.0, engine=engine)

    @contextmanager
    def admit(self, request: ChainRequest) -> Iterator[_Running]:
        yield _Running(self, request)


def phantom(slices: int = 4, seed: int = 1) -> list[Dataset]:
    """A small body, small enough for the pixels that ct-nlm is made for."""
    study = phantom_study(np.random.default_rng(seed), slices=slices, size=128)
    for dataset in study:
        dataset.PixelSpacing = [1.4, 1.4]
    return study


@dataclass
class Flow:
    """A reception, and the pipeline over what it received."""

    reception: Reception
    rooms: Rooms
    pipeline: Pipeline
    pixels: Calls
    engines: EngineCalls
    results: ResultStore

    def receive(self, datasets: list[Dataset]) -> None:
        for dataset in datasets:
            self.reception.receive(dataset)

    def close(self) -> tuple[int, int]:
        """Close the received series; (row, generation)."""
        series = self.received
        with self.reception.database.write() as session:
            session.execute(
                update(Series)
                .where(Series.id == series.id)
                .values(state=SeriesState.CLOSED.value, due_at=None, generation=series.generation + 1)
            )
        return series.id, series.generation + 1

    def run(self) -> None:
        """Close, plan, enhance and derive."""
        for job_row, _ in self.pipeline.plan(*self.close()):
            if self.pipeline.enhance(job_row):
                self.pipeline.derive(job_row)

    @property
    def received(self) -> Series:
        return next(series for series in self.reception.rows(Series) if series.origin == "received")

    @property
    def jobs(self) -> list[Job]:
        return list(self.reception.rows(Job))

    def derived(self) -> dict[str, list[str]]:
        """SOP Instance UIDs of derived instances by their Series Instance UID."""
        uids = {
            series.id: series.series_instance_uid
            for series in self.reception.rows(Series)
            if series.origin == "derived"
        }
        found: dict[str, list[str]] = {uid: [] for uid in uids.values()}
        for instance in self.reception.rows(Instance):
            if instance.series_row in uids:
                found[uids[instance.series_row]].append(instance.sop_instance_uid)
        return found

    def derived_outbox(self) -> list[Outbox]:
        return [row for row in self.reception.rows(Outbox) if row.origin == "derived"]


def engine_that(state: str, reasons: list[str]) -> Mapping[str, Any]:
    """An engine worker whose gates always end a chain."""
    stage = {
        "engine": "ct-nlm",
        "folder": None,
        "before": {"passed": state == "withheld", "findings": []},
        "after": None,
    }
    return {"run_chain": lambda **_: {"state": state, "reasons": reasons, "stages": [stage]}}


@contextmanager
def flowing(
    folder: Path, routes: Routing, engines: Mapping[str, Callable[..., Mapping[str, Any]]] | None = None
) -> Iterator[Flow]:
    """A flow on real files; `engines` replaces operations of the engine worker."""
    with receiving(folder, routes) as reception:
        pixels = Calls(pixels_service.operations())
        computing = EngineCalls({"run_chain": run_chain, "describe": describe, **(engines or {})})
        results = ResultStore(folder)
        shared = SharedFolders(None, folder / "scratch", 0)
        rooms = Rooms(reception.database, reception.files, results, pixels, computing, shared, 3600.0)
        yield Flow(reception, rooms, Pipeline(rooms, routes, DERIVING), pixels, computing, results)


def kill_at(monkeypatch: Any, name: str) -> None:
    """Die at a kill point, once."""
    assert name in faults.POINTS
    died: list[str] = []

    def kill(point: str) -> None:
        if point == name and not died:
            died.append(point)
            raise Killed

    for room in ("planning", "computing", "deriving"):
        monkeypatch.setattr(f"dicomnode.flow.{room}.kill_point", kill)
