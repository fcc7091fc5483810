"""The warm service: slabs as slices arrive, overtaking, batches, deadlines, and processes that die."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dicomnode.core.ports import ChainRequest
from dicomnode.errors import WorkerError
from dicomnode.inference.dispatch import Extent
from dicomnode.inference.service import EngineService
from dicomnode.testing.processes import wait_until
from dicomnode.workers import WorkerPool
from engines.errors import EngineInputError, SettingError
from engines.volume import load_volume
from engines.volume_files import VOXELS, Grid, create_volume, write_slices

MODULE = "tests.inference.engine_process"
URGENT, NORMAL = 10, 100
SIZE = 32
"""Rows and columns: 64 such slices make a slab."""


@dataclass
class Site:
    """A service whose engines write into `folder`, and volumes for it."""

    folder: Path
    service: EngineService

    def request(self, job: int, engine: str, slices: int, **more: Any) -> ChainRequest:
        """A job whose voxels are 1000 x `job` + slice, to be decoded by `decode`."""
        volume, out = self.folder / f"in-{job}", self.folder / f"out-{job}"
        volume.mkdir()
        out.mkdir()
        size = more.pop("size", SIZE)
        create_volume(volume, Grid((slices, size, size), np.eye(4), "arbitrary"), padded=False)
        told = {"headers": {"image": {}}, "out": str(out), "priority": NORMAL, "deadline_s": 60.0, **more}
        return ChainRequest(chain=[{"engine": engine}], inputs={"image": str(volume)}, **told)

    def decode(self, request: ChainRequest, begin: int, end: int) -> None:
        folder = Path(request.inputs["image"])
        job = int(folder.name.removeprefix("in-"))
        size = load_volume(folder).shape[1]
        values = np.empty((end - begin, size, size), dtype=np.float32)
        values[:] = (1000 * job + np.arange(begin, end))[:, None, None]
        values[:, -1, -1] += 0.25  # a slice of one value has nothing to be judged by
        write_slices(folder / VOXELS, begin, values)

    def done(self, request: ChainRequest) -> dict[str, Any]:
        """Run a job to its end."""
        with self.service.admit(request) as chain:
            self.decode(request, 0, chain.slices)
            chain.arrived(chain.slices)
            return chain.report()

    def ran(self) -> list[list[int]]:
        """First values of the slices of each run, in the order of the runs."""
        lines = (self.folder / "ran").read_text().splitlines() if (self.folder / "ran").exists() else []
        return [[int(value) for value in line.split()[1:]] for line in lines]

    def is_right(self, request: ChainRequest) -> bool:
        job = int(Path(request.inputs["image"]).name.removeprefix("in-"))
        (folder,) = Path(request.out).iterdir()
        voxels = load_volume(folder).voxels
        return bool((voxels[:, 0, 0] == 1000 * job + np.arange(len(voxels)) + 0.5).all())


class Lent(WorkerPool):
    """Gate processes that a service does not end with itself."""

    def close(self) -> None:
        """Other tests go on with them."""


@pytest.fixture(scope="module")
def judges() -> Iterator[WorkerPool]:
    pool = Lent("dicomnode.inference.gates", 1)
    yield pool
    WorkerPool.close(pool)


def started(folder: Path, judges: WorkerPool, processes: int = 1, idle_s: float = 3600.0, admitted: int = 4) -> Site:
    extent = Extent([{"folder": str(folder)}] * processes, idle_s, 8 << 30, MODULE)
    return Site(folder, EngineService(extent, judges, admitted))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, judges: WorkerPool) -> Iterator[Site]:
    with closing((site := started(tmp_path_factory.mktemp("site"), judges)).service):
        yield site


@pytest.fixture
def site(running: Site) -> Site:
    """One engine process, which has done nothing that is told yet."""
    for left in running.folder.iterdir():
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    return running


def test_slabs_are_computed_as_slices_arrive(site: Site) -> None:
    request = site.request(1, "plus", 160)
    with site.service.admit(request) as chain:
        site.decode(request, 0, 80)
        chain.arrived(80)
        wait_until(lambda: len(site.ran()) == 2, 20.0, "what is there is computed")
        assert [len(slices) for slices in site.ran()] == [64, 16]
        site.decode(request, 80, 160)
        chain.arrived(160)
        report = chain.report()
    assert report["state"] == "done"
    assert site.is_right(request)
    assert sum(map(len, site.ran())) == 160, "no slice twice"


def test_an_urgent_job_overtakes_at_the_end_of_a_slab(site: Site) -> None:
    normal, urgent = site.request(1, "waits", 256), site.request(2, "waits", 64, priority=URGENT)
    with site.service.admit(normal) as chain, site.service.admit(urgent) as other:
        wait_until(lambda: site.service.waiting == 2, 20.0, "they wait for their slices")
        for request, running, slices in ((normal, chain, 256), (urgent, other, 64)):
            site.decode(request, 0, slices)
            running.arrived(slices)
            wait_until(lambda: len(site.ran()) == 1, 20.0, "the first slab runs")
        (site.folder / "go").touch()
        assert other.report()["state"] == chain.report()["state"] == "done"
    assert [slices[0] // 1000 for slices in site.ran()] == [1, 2, 1, 1, 1]
    assert site.is_right(normal) and site.is_right(urgent)


def test_short_jobs_of_one_kind_share_a_run(site: Site) -> None:
    blocker = site.request(9, "waits", 64)
    short = [site.request(job, "plus", 3) for job in (1, 2, 3)]
    with ExitStack() as stack:
        chains = [stack.enter_context(site.service.admit(request)) for request in short]
        wait_until(lambda: site.service.waiting == 3, 20.0, "they wait for their slices")
        first = stack.enter_context(site.service.admit(blocker))
        site.decode(blocker, 0, 64)
        first.arrived(64)
        wait_until(lambda: len(site.ran()) == 1, 20.0, "the process is busy")
        for request, chain in zip(short, chains, strict=True):
            site.decode(request, 0, 3)
            chain.arrived(3)
        (site.folder / "go").touch()
        assert [chain.report()["state"] for chain in chains] == ["done"] * 3
    assert all(site.is_right(request) for request in short)
    assert (site.folder / "batches").read_text().split() == ["1", "3"]


def test_a_job_whose_process_is_killed_goes_on_where_it_was(site: Site) -> None:
    request = site.request(1, "slow", 384)
    with site.service.admit(request) as chain:
        site.decode(request, 0, 384)
        chain.arrived(384)
        wait_until(lambda: len(site.ran()) == 3, 20.0, "it is in the middle")
        for pid in site.service.pids:
            os.kill(pid, signal.SIGKILL)
        assert chain.report()["state"] == "done"
    assert site.is_right(request)
    assert len(site.ran()) <= 7, "only the slab that was lost is computed again"
    assert [path.name for path in Path(request.out).rglob("*") if path.name.startswith(".")] == []


@pytest.mark.parametrize("engine", ["dies-once", "faults-once", "eats-once"])
def test_one_fault_of_a_process_is_nobodys_failure(site: Site, engine: str) -> None:
    request = site.request(1, engine, 20)
    assert site.done(request)["state"] == "done"
    assert site.is_right(request)


def test_what_takes_down_process_after_process_fails_as_transient_and_takes_nobody_down(
    tmp_path: Path, judges: WorkerPool
) -> None:
    with closing((site := started(tmp_path, judges, processes=2)).service):
        bad, good = site.request(1, "dies-of-1000", 3), site.request(2, "dies-of-1000", 3)
        with site.service.admit(bad) as first, site.service.admit(good) as second:
            for request, chain in ((bad, first), (good, second)):
                site.decode(request, 0, 3)
                chain.arrived(3)
            assert second.report()["state"] == "done"
            with pytest.raises(WorkerError) as failed:
                first.report()
        assert failed.value.transient
        assert site.is_right(good)


def test_an_engine_that_refuses_one_of_a_batch_fails_that_one_only(site: Site) -> None:
    bad, good = site.request(1, "refuses-1000", 3), site.request(2, "refuses-1000", 3)
    with site.service.admit(bad) as first, site.service.admit(good) as second:
        for request, chain in ((bad, first), (good, second)):
            site.decode(request, 0, 3)
            chain.arrived(3)
        assert second.report()["state"] == "done"
        with pytest.raises(EngineInputError, match="not this one"):
            first.report()


def test_a_job_that_hangs_ends_at_its_deadline_and_the_next_one_runs(site: Site) -> None:
    with pytest.raises(WorkerError, match="longer than it may") as failed:
        site.done(site.request(1, "hangs", 3, deadline_s=1.5))
    assert failed.value.transient
    assert site.done(site.request(2, "plus", 3))["state"] == "done"


def test_a_job_that_is_not_decoded_in_time_fails(site: Site) -> None:
    assert site.done(site.request(2, "plus", 3))["state"] == "done"  # so that its engine is open
    late = site.request(1, "plus", 3, deadline_s=1.5)
    with site.service.admit(late) as chain, pytest.raises(WorkerError, match="not decoded in time"):
        chain.report()


def test_more_jobs_than_may_be_wait_for_a_seat(tmp_path: Path, judges: WorkerPool) -> None:
    with closing((site := started(tmp_path, judges, admitted=1)).service):
        late = site.request(2, "plus", 3, deadline_s=0.2)
        with site.service.admit(site.request(1, "plus", 3)), pytest.raises(WorkerError, match="no time"):
            site.done(late)
        assert site.done(site.request(3, "plus", 3))["state"] == "done"


def test_the_wait_for_a_seat_is_part_of_a_jobs_time(tmp_path: Path, judges: WorkerPool) -> None:
    with closing((site := started(tmp_path, judges, admitted=1)).service):
        first, second = site.request(1, "plus", 3), site.request(2, "plus", 3)

        def time_from_its_call_s() -> float:
            asked_at = time.monotonic()
            with site.service.admit(second) as chain:
                return chain.deadline_at - asked_at

        with ThreadPoolExecutor(1) as threads:
            with site.service.admit(first):
                waiting = threads.submit(time_from_its_call_s)
                time.sleep(1.0)
            assert waiting.result() < second.deadline_s + 0.9


def test_a_service_that_was_closed_takes_no_job(tmp_path: Path, judges: WorkerPool) -> None:
    site = started(tmp_path, judges)
    site.service.close()
    for job in range(5):  # more than it has seats
        with pytest.raises(WorkerError, match="no more jobs") as caught:
            site.done(site.request(job, "plus", 3, deadline_s=5.0))
        assert caught.value.transient


def test_a_service_that_is_closed_waits_for_no_slices(tmp_path: Path, judges: WorkerPool) -> None:
    site = started(tmp_path, judges)
    with site.service.admit(site.request(1, "plus", 3)) as chain:
        wait_until(lambda: site.service.waiting == 1, 20.0, "it waits for its slices")
        closed_at = time.monotonic()
        site.service.close()
        assert time.monotonic() < closed_at + 20.0, "the job had a minute"
        with pytest.raises(WorkerError) as caught:
            chain.report()
    assert caught.value.transient


def test_a_job_that_fails_leaves_nothing_measured(site: Site, judges: WorkerPool) -> None:
    """What a gate has measured maps the job's volumes: their memory would not be free when the files are deleted."""
    with judges.one() as worker:
        worker.call("forget", 60.0, outputs=[])
        pid = worker.pid
    assert pid is not None
    request = site.request(1, "refuses-second", 128)
    with site.service.admit(request) as chain:
        site.decode(request, 0, 128)
        chain.arrived(128)
        wait_until(lambda: str(site.folder) in mapped(pid), 20.0, "the first slab is being measured")
        (site.folder / "go").touch()
        with pytest.raises(EngineInputError, match="not this one"):
            chain.report()
    assert str(site.folder) not in mapped(pid)


def mapped(pid: int) -> str:
    """The files that a process maps."""
    return Path(f"/proc/{pid}/maps").read_text()


def test_a_job_that_is_given_up_leaves_nothing_running(site: Site) -> None:
    request = site.request(1, "slow", 256)
    with pytest.raises(ZeroDivisionError), site.service.admit(request) as chain:
        site.decode(request, 0, 128)
        chain.arrived(128)
        wait_until(lambda: len(site.ran()) == 1, 20.0, "it runs")
        raise ZeroDivisionError
    runs = len(site.ran())
    assert site.done(site.request(2, "plus", 3))["state"] == "done"
    assert len(site.ran()) == runs + 1


def test_mistakes_are_told_before_anything_runs(site: Site) -> None:
    request = site.request(1, "plus", 3)
    request.chain[0]["settings"] = {"add": 9.0}  # type: ignore[index]
    with pytest.raises(SettingError):
        site.done(request)
    assert site.ran() == []


def test_what_is_outside_the_envelope_is_refused_and_leaves_nothing(site: Site) -> None:
    request = site.request(1, "plus", 3)
    with site.service.admit(request) as chain:  # all voxels are 0: nothing varies
        chain.arrived(3)
        report = chain.report()
    assert (report["state"], report["stages"][0]["folder"]) == ("refused", None)
    assert list(Path(request.out).iterdir()) == []


def test_an_idle_process_ends_and_is_started_again(tmp_path: Path, judges: WorkerPool) -> None:
    with closing((site := started(tmp_path, judges, idle_s=0.3)).service):
        assert site.done(site.request(1, "plus", 3))["state"] == "done"
        wait_until(lambda: site.service.pids == (), 20.0, "it gives its memory back")
        assert site.done(site.request(2, "plus", 3))["state"] == "done"


def test_memory_stays_flat_over_a_long_series(site: Site) -> None:
    assert site.done(site.request(1, "plus", 64, size=64))["state"] == "done"
    (pid,) = site.service.pids
    before = resident_bytes(pid)
    assert site.done(site.request(2, "plus", 2000, size=64))["state"] == "done"
    assert resident_bytes(pid) - before < 8 << 20, "the series has 33 MB"


def resident_bytes(pid: int) -> int:
    """The most that a process had, of its own and of what it mapped."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10
