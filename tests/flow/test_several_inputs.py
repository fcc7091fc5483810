"""An engine of three series: what of the others enters its result, and what becomes of it when one of them changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from sqlalchemy import select, update

from dicomnode.core.routing import Routing
from dicomnode.core.rules import RuleSpec, load_rules
from dicomnode.core.types import Completeness, Verdict
from dicomnode.errors import EngineInputError
from dicomnode.inference.service import describe, run_chain
from dicomnode.store import bundles
from dicomnode.store.bundles import By
from dicomnode.store.index import series as series_index
from dicomnode.store.schema import Derivation, Instance, Job, Series, StudyNeed, Withdrawal
from dicomnode.testing.bundles import made_bundle
from engines.registry import Registry, default_registry
from tests.flow.rooms import Flow, flowing, phantom
from tests.flow.test_rejections import note, read, routes

ENGINE = "random-three-inputs"
NEEDS = ("image", "portal", "delayed")
RULE = RuleSpec(
    "phases",
    {"Modality": "CT"},
    needs={name: {"SeriesDescription": name} for name in NEEDS},
    engines=(ENGINE,),
    send_results=("pacs",),
    on_gate="flag",
)
COMPLETE = Verdict(Completeness.COMPLETE, None, ("all are here",), 1.0)
Change = Callable[[list[Dataset]], None]


@pytest.fixture(scope="module", name="registry")
def _registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """The engine, installed."""
    folder = tmp_path_factory.mktemp("bundles")
    (made := folder / "made").mkdir()
    bundles.add(folder / "engines", made_bundle(made, "three-inputs"), "", By("physicist", 1.7e9))
    return default_registry(folder / "engines")


@pytest.fixture(name="flow")
def _flow(tmp_path: Path, registry: Registry) -> Iterator[Flow]:
    def run(chain: list[dict[str, Any]], **more: Any) -> Mapping[str, Any]:
        return run_chain([{**one, "engine": registry.source(one["engine"])} for one in chain], **more)

    described = {"describe": lambda engine: describe(registry.source(engine))}
    with flowing(tmp_path, routed(), {"run_chain": run, **described}) as flow:
        yield flow


def routed() -> Routing:
    known = routes()
    return Routing(
        load_rules([RULE], {"pacs": "pacs"}, [ENGINE]), known.destinations, known.completeness, {}, known.peers
    )


def series_of(name: str, seed: int = 1) -> list[Dataset]:
    number = NEEDS.index(name) + 1
    study = phantom(seed=seed)
    for dataset in study:
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", f"1.2.3.{number}"
        dataset.SOPInstanceUID = f"1.2.3.{number}.{dataset.InstanceNumber}"
        dataset.SeriesDescription, dataset.FrameOfReferenceUID = name, "1.2.3.9"
    return study


def arrived(flow: Flow, name: str, change: Change = lambda series: None, seed: int = 1) -> list[int]:
    """Receive a series, close and plan it; the jobs to do then."""
    series = series_of(name, seed)
    change(series)
    flow.receive(series)
    return closed(flow, name)


def closed(flow: Flow, name: str) -> list[int]:
    uid = f"1.2.3.{NEEDS.index(name) + 1}"
    with flow.reception.database.write() as session:
        found = session.scalars(select(Series).where(Series.series_instance_uid == uid)).one()
        generation = series_index.close(session, found, COMPLETE, 5000.0)
        assert generation is not None
        row = found.id
    return [job for job, _ in flow.pipeline.plan(row, generation)]


def done(flow: Flow, **changes: Change) -> Job:
    """All three arrive and their job is done as far as it goes."""
    for seed, name in enumerate(NEEDS, 1):
        jobs = arrived(flow, name, changes.get(name, lambda series: None), seed)
    (job,) = jobs
    if flow.pipeline.enhance(job):
        flow.pipeline.derive(job)
    (row,) = flow.jobs
    return row


def derived_at(flow: Flow) -> dict[int, set[str]]:
    """UIDs of what holds, by the row of the slice at its place."""
    uids = {row.id: row.sop_instance_uid for row in flow.reception.rows(Instance)}
    gone = {row.instance_row for row in flow.reception.rows(Withdrawal)}
    found: dict[int, set[str]] = {}
    for row in flow.reception.rows(Derivation):
        if row.instance_row not in gone:
            found.setdefault(row.source_row, set()).add(uids[row.instance_row])
    return found


def test_the_result_is_of_all_three(flow: Flow) -> None:
    job = done(flow)
    assert job.state == "derived"
    assert job.stages[0]["inputs"] == ["image", "portal", "delayed"]
    sentences = [one["sentence"] for one in job.stages[0]["before"]["findings"]]
    assert all(one.split(":")[0] in NEEDS for one in sentences)
    assert flow.pixels.counts["decode_slices"] == len(NEEDS)
    assert len(derived_at(flow)) == 4


def other_values(series: list[Dataset]) -> None:
    """Of the first slice other pixels, which its sender sends again."""
    pixels = np.frombuffer(series[0].PixelData, dtype="<u2").copy()
    pixels[: len(pixels) // 2] += 1
    series[0].PixelData = pixels.tobytes()


def test_a_slice_of_another_series_that_changes_replaces_what_was_made_of_it(flow: Flow) -> None:
    done(flow)
    before = derived_at(flow)
    (again,) = arrived(flow, "portal", other_values, seed=2)
    assert flow.pipeline.enhance(again)
    flow.pipeline.derive(again)
    first, second = flow.jobs
    assert (first.superseded_by, second.supersedes, second.state) == (second.id, first.id, "derived")
    assert first.derived_series == second.derived_series
    after = derived_at(flow)
    changed = [row for row in before if before[row] != after[row]]
    assert changed == first.instance_rows[:1]
    assert len(after[changed[0]]) == 1


def test_the_same_again_computes_nothing(flow: Flow) -> None:
    done(flow)
    with flow.reception.database.write() as session:
        session.execute(update(Series).where(Series.id == 2).values(generation=2))
    ((again, _),) = flow.pipeline.plan(2, 2)
    computed = flow.engines.counts["run_chain"]
    assert not flow.pipeline.enhance(again)
    assert flow.engines.counts["run_chain"] == computed
    assert flow.jobs[-1].reasons == [f"what an engine reads is as it was for job {flow.jobs[0].id}"]


def test_a_rejected_slice_of_another_series_takes_away_what_was_made_of_it(flow: Flow) -> None:
    job = done(flow)
    flow.receive([note(series_of("portal")[1:2])])
    assert read(flow) == 1
    assert job.instance_rows[1] not in derived_at(flow)
    assert len(derived_at(flow)) == 3


def moved(series: list[Dataset]) -> None:
    for dataset in series:
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x + 3.0, y, z]


def coarser(series: list[Dataset]) -> None:
    for dataset in series:
        dataset.PixelSpacing = [1.5, 1.5]


def fewer(series: list[Dataset]) -> None:
    del series[-1]


def elsewhere(series: list[Dataset]) -> None:
    for dataset in series:
        dataset.FrameOfReferenceUID = "1.2.3.10"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (moved, "portal: 4 of its 4 slices are not where those of image are, up to 3 mm off"),
        (coarser, "portal: its grid is 4 slices of 128 x 128, 1.5 x 1.5 x"),
        (fewer, "portal: its grid is 3 slices of 128 x 128"),
        (elsewhere, "portal: it has another frame of reference than image"),
    ],
)
def test_series_that_do_not_lie_upon_each_other_are_refused(flow: Flow, change: Change, said: str) -> None:
    job = done(flow, portal=change)
    assert job.state == "refused"
    assert any(reason.startswith(said) for reason in job.reasons), job.reasons
    assert flow.derived() == {}


def test_a_series_that_did_not_come_is_said_before_anything_is_computed(flow: Flow) -> None:
    arrived(flow, "image")
    arrived(flow, "portal")
    with flow.reception.database.write() as session:
        session.execute(update(StudyNeed).values(state="due", due_at=5000.0))
    ((job, _),) = flow.pipeline.plan(2, 1)
    with pytest.raises(EngineInputError, match="takes 'delayed', and nothing gives it"):
        flow.pipeline.enhance(job)
