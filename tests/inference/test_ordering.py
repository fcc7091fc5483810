"""Which slab goes next."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from dicomnode.inference.ordering import ATTEMPTS, PATIENCE_S, Process, Progress, Slab, Waiting, choose

URGENT, NORMAL = 10, 100
HERE = Process(0)


def job(number: int, priority: int = NORMAL, *, slices: int = 64, batch: str = "", **more: object) -> Waiting:
    """A job whose slices are all there, handed in a moment ago."""
    progress = Progress(slices).arrived_to(slices)
    return replace(Waiting(number, priority, 1000.0, "a@1", batch, 16, progress), **more)  # type: ignore[arg-type]


def first(*jobs: Waiting, process: Process = HERE, now_s: float = 1000.0) -> tuple[int, Slab]:
    (one, slab), *_ = choose(jobs, process, now_s)
    return one.job, slab


def test_the_first_come_is_the_first_served() -> None:
    assert first(job(2), job(1), job(3)) == (1, Slab(0, 16))


def test_an_urgent_job_overtakes_where_a_slab_ends() -> None:
    begun = job(1, progress=Progress(64).arrived_to(64).given_out(Slab(0, 16)))
    assert first(begun, job(2, URGENT)) == (2, Slab(0, 16))


def test_an_engine_that_is_open_goes_before_one_that_is_not_but_not_before_an_urgent_one() -> None:
    warm = Process(0, warm=("b@1",))
    assert first(job(1), job(2, engine="b@1"), process=warm)[0] == 2
    assert first(job(1, URGENT), job(2, engine="b@1"), process=warm)[0] == 1


def test_who_waited_long_goes_first_whatever_is_urgent() -> None:
    assert first(job(1, URGENT), job(2, since_s=1000.0 - PATIENCE_S), job(3, since_s=999.0 - PATIENCE_S))[0] == 3


def test_nothing_is_given_out_that_cannot_be_read_yet() -> None:
    progress = Progress(64, halo=1).arrived_to(10)
    assert progress.next_slab(16) == Slab(0, 9)
    assert Progress(64, halo=1).arrived_to(1).next_slab(16) is None
    assert Progress(64, halo=None).arrived_to(63).next_slab(16) is None
    assert Progress(64, halo=None).arrived_to(64).next_slab(16) == Slab(0, 64)
    assert choose([job(1, progress=Progress(64))], HERE, 0.0) == ()


def test_slabs_of_one_kind_make_a_batch_up_to_a_slab() -> None:
    jobs = [job(1, slices=6, batch="k"), job(2, slices=6, batch="k"), job(3, slices=3, batch="l"), job(4, batch="k")]
    batch = choose(jobs, HERE, 1000.0)
    assert [(one.job, slab) for one, slab in batch] == [(1, Slab(0, 6)), (2, Slab(0, 6)), (4, Slab(0, 4))]


def test_a_slab_whose_process_died_is_computed_alone_and_elsewhere() -> None:
    lost = Progress(6).arrived_to(6).given_out(Slab(0, 6)).lost(Slab(0, 6), 0)
    jobs = [job(1, batch="k", progress=lost), job(2, slices=6, batch="k")]
    assert [one.job for one, _ in choose(jobs, Process(0, others=1), 1000.0)] == [2]
    assert choose(jobs, Process(1, others=1), 1000.0) == ((jobs[0], Slab(0, 6, (0,))),)
    assert choose(jobs, HERE, 1000.0) == ((jobs[0], Slab(0, 6, (0,))),), "there is no other"


waitings = st.builds(
    lambda number, priority, waited, engine, batch, size: job(
        number, priority, slices=size, batch=batch, engine=engine, since_s=1000.0 - waited
    ),
    st.integers(0, 1000),
    st.sampled_from([URGENT, NORMAL]),
    st.floats(0.0, 2 * PATIENCE_S),
    st.sampled_from(["a@1", "b@1"]),
    st.sampled_from(["", "k", "l"]),
    st.integers(1, 40),
)
several = st.lists(waitings, min_size=1, max_size=8, unique_by=lambda one: one.job)
processes = st.builds(Process, st.just(0), st.sets(st.sampled_from(["a@1", "b@1"])).map(tuple), st.integers(0, 3))


@given(several, processes)
@settings(deadline=None)
def test_whoever_is_chosen_nobody_more_urgent_or_more_patient_is_passed_over(
    jobs: list[Waiting], process: Process
) -> None:
    leader, _ = choose(jobs, process, 1000.0)[0]
    waited = {one.job: 1000.0 - one.since_s for one in jobs}
    longest = max(waited.values())
    if longest >= PATIENCE_S:
        assert waited[leader.job] == longest
    else:
        assert leader.priority == min(one.priority for one in jobs)


@given(several, processes)
@settings(deadline=None)
def test_a_batch_is_of_one_kind_and_no_larger_than_a_slab(jobs: list[Waiting], process: Process) -> None:
    batch = choose(jobs, process, 1000.0)
    assert len({one.job for one, _ in batch}) == len(batch)
    assert sum(slab.slices for _, slab in batch) <= 16
    if len(batch) > 1:
        assert {one.batch for one, _ in batch} == {batch[0][0].batch} != {""}


@given(several, st.data())
@settings(deadline=None, max_examples=60)
def test_every_slice_is_computed_once_though_processes_die(jobs: list[Waiting], data: st.DataObject) -> None:
    """Two processes take slabs by turns; some die at theirs."""
    waiting = {one.job: replace(one, since_s=0.0) for one in jobs}
    computed = {one.job: [0] * one.progress.slices for one in jobs}
    for turn in range(1000):
        number = turn % 2
        batch = choose(list(waiting.values()), Process(number, others=1), float(turn))
        dies = data.draw(st.integers(0, 9)) == 0 and all(len(slab.lost_on) + 1 < ATTEMPTS for _, slab in batch)
        for one, slab in batch:
            assert not slab.lost_on or len(batch) == 1
            progress = waiting[one.job].progress.given_out(slab)
            assert slab in progress.running
            progress = progress.lost(slab, number) if dies else progress.finished(slab)
            waiting[one.job] = replace(one, progress=progress, since_s=float(turn))
            for index in range(slab.begin, slab.end) if not dies else ():
                computed[one.job][index] += 1
        if all(one.progress.is_done for one in waiting.values()):
            break
    assert all(one.progress.is_done for one in waiting.values())
    assert all(set(counts) == {1} for counts in computed.values())


@given(st.integers(2, 30))
@settings(deadline=None, max_examples=20)
def test_a_job_among_ever_new_urgent_ones_is_not_starved(urgent: int) -> None:
    """Each slab takes a second; an urgent job comes with every one."""
    patient = job(0, since_s=0.0, slices=32)
    served_at = None
    for second in range(urgent + int(PATIENCE_S) + 2):
        others = [job(1 + second + index, URGENT, since_s=float(second)) for index in range(urgent)]
        if choose([patient, *others], HERE, float(second))[0][0].job == 0:
            served_at = second
            break
    assert served_at is not None
    assert served_at <= PATIENCE_S
