"""What is learned of a sender's pauses, and how long its silence is waited out."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomnode.core.quiet import (
    LEARNING,
    Carried,
    Pace,
    Pause,
    Silence,
    Sketch,
    longest_pauses,
    pauses,
    silence_of,
)
from dicomnode.core.types import AssociationEnd, CompletenessPolicy

POLICY = CompletenessPolicy(released_quiet_s=5.0)
RELEASED, ABORTED = AssociationEnd.RELEASED, AssociationEnd.ABORTED
OPEN, BROKEN = Silence.OPEN, Silence.BROKEN

PAUSES = st.dictionaries(st.sampled_from(Silence), st.floats(0, 5000, allow_nan=False), max_size=4)


def pace(*series: dict[Silence, float]) -> Pace:
    known = Pace()
    for longest in series:
        known = known.learned(longest)
    return known


def test_nothing_learned_is_what_is_configured() -> None:
    quiet = Pace().quiet(POLICY)
    assert (quiet.open_s, quiet.released_s, quiet.broken_s, quiet.moved_on_s, quiet.series) == (60, 5, 60, 60, 0)


def test_what_is_configured_counts_for_less_with_each_series() -> None:
    never = {OPEN: 0.0, Silence.RELEASED: 0.0}
    open_s = [pace(*[never] * series).quiet(POLICY).open_s for series in (1, 20, 40, 400, 3000)]
    assert open_s[0] == 60
    assert open_s == sorted(open_s, reverse=True)
    assert open_s[2] == pytest.approx(30, rel=0.02)
    assert open_s[3] == pytest.approx(3.3, rel=0.1)
    assert open_s[-1] == POLICY.quiet_min_s
    assert pace(*[never] * 3000).quiet(POLICY).released_s == POLICY.quiet_min_s


def test_one_longer_pause_is_believed_at_once_and_forgotten_in_time() -> None:
    steady = pace(*[{Silence.RELEASED: 0.5}] * 300)
    assert steady.quiet(POLICY).released_s == pytest.approx(1.0, rel=0.1)
    burnt = steady.learned({Silence.RELEASED: 12.0})
    assert burnt.quiet(POLICY).released_s >= 12.0 * LEARNING.margin
    for _ in range(3000):
        burnt = burnt.learned({Silence.RELEASED: 0.5})
    assert burnt.quiet(POLICY).released_s < 2.0


def test_bounds_hold_and_nothing_is_learned_where_they_forbid_it() -> None:
    slow = pace(*[{OPEN: 100.0}] * 50)
    assert slow.quiet(POLICY).open_s == POLICY.quiet_max_s
    assert slow.quiet(replace(POLICY, quiet_max_s=0.0)).open_s == POLICY.quiet_s
    assert slow.quiet(replace(POLICY, quiet_s=2.0, quiet_max_s=2.0)).open_s == 2.0


@settings(deadline=None, max_examples=60)
@given(st.lists(PAUSES, max_size=40), PAUSES)
def test_times_stay_between_their_bounds_and_cover_the_last_pause(
    series: list[dict[Silence, float]], last: dict[Silence, float]
) -> None:
    known = pace(*series, last)
    quiet = known.quiet(POLICY)
    times = {OPEN: quiet.open_s, Silence.RELEASED: quiet.released_s, BROKEN: quiet.broken_s}
    for kind, seconds in times.items():
        assert POLICY.quiet_min_s <= seconds <= POLICY.quiet_max_s
        assert seconds >= min(last.get(kind, 0.0), POLICY.quiet_max_s)


@settings(deadline=None, max_examples=60)
@given(st.lists(PAUSES, max_size=200))
def test_what_is_kept_is_bounded_and_survives_json(series: list[dict[Silence, float]]) -> None:
    known = pace(*series)
    read = Pace.from_json(known.to_json())
    assert all(len(sketch.weights) <= 98 for sketch in known.sketches.values())
    for kind, sketch in known.sketches.items():
        assert read.series(kind) == pytest.approx(sketch.series, rel=1e-3)
        assert read.sketches[kind].longest_s(0.0004) == sketch.longest_s(0.0004)


@settings(deadline=None)
@given(st.floats(0.25, 900))
def test_a_bin_never_makes_a_pause_shorter_nor_much_longer(pause_s: float) -> None:
    longest_s = Sketch().with_pause(pause_s, 2000.0).longest_s(0.0)
    assert pause_s <= longest_s * (1 + 1e-9)
    assert longest_s <= pause_s * 1.1


def carried(opened_at: float, ended_at: float | None = None, how: AssociationEnd | None = RELEASED) -> Carried:
    return Carried(opened_at, ended_at, None if ended_at is None else how)


def test_pauses_are_told_by_how_the_associations_stood() -> None:
    first, second, third = carried(0.0, 4.0, ABORTED), carried(9.0, 20.0), carried(30.0)
    arrivals = [(1.0, first), (1.5, first), (10.0, second), (15.0, second), (31.0, third), (32.0, third)]
    assert pauses(arrivals, 1.0) == [
        (1.5, Pause(8.5, 2.5, is_broken=True)),
        (10.0, Pause(5.0, 5.0, is_broken=False)),
        (15.0, Pause(16.0, 5.0, is_broken=False)),
        (31.0, Pause(1.0, 1.0, is_broken=False)),
    ]


def test_a_series_teaches_its_longest_pause_of_each_kind() -> None:
    found = [
        Pause(8.0, 2.0, is_broken=True),
        Pause(5.0, 5.0, is_broken=False),
        Pause(16.0, 3.0, is_broken=False),
        Pause(4.0, 4.0, is_broken=False, moved_on=True),
        Pause(900.0, 0.0, is_broken=False),
    ]
    assert longest_pauses(found, Silence.RELEASED, moved_on=False, most_s=120.0) == {
        OPEN: 5.0,
        BROKEN: 8.0,
        Silence.RELEASED: 16.0,
        Silence.MOVED_ON: 4.0,
    }
    assert longest_pauses([], Silence.RELEASED, moved_on=True, most_s=120.0) == dict.fromkeys(
        (OPEN, Silence.RELEASED, Silence.MOVED_ON), 0.0
    )


@pytest.mark.parametrize(
    ("carriers", "silence"),
    [
        ([], None),
        ([carried(0.0, 5.0), carried(1.0)], OPEN),
        ([carried(0.0, 5.0, ABORTED), carried(1.0)], OPEN),
        ([carried(0.0, 5.0), carried(6.0, 7.0)], Silence.RELEASED),
        ([carried(0.0, 5.0, ABORTED), carried(6.0, 7.0)], Silence.RELEASED),
        ([carried(0.0, 5.0, ABORTED), carried(4.0, 7.0)], BROKEN),
        ([carried(0.0, 5.0), carried(6.0, 7.0, AssociationEnd.LOST)], BROKEN),
    ],
)
def test_what_a_silence_is(carriers: list[Carried], silence: Silence | None) -> None:
    assert silence_of(carriers) == silence


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1000), st.integers(0, 2)), max_size=20),
    st.lists(
        st.tuples(st.floats(0, 500), st.none() | st.floats(500, 1000), st.sampled_from(AssociationEnd)), min_size=3
    ),
)
def test_pauses_fit_between_the_instances(
    arrivals: list[tuple[float, int]], ends: list[tuple[float, float | None, AssociationEnd]]
) -> None:
    carriers = [carried(*end) for end in ends]
    known = [(at, carriers[number]) for at, number in sorted(arrivals, key=lambda one: one[0])]
    found = pauses(known, 1.0)
    times = [at for at, _ in known]
    assert len(found) == sum(later - at >= 1.0 for at, later in pairwise(times))
    for began, pause in found:
        assert began in times
        assert began + pause.seconds == pytest.approx(min(at for at in times if at > began))
        assert 0 <= pause.open_s <= pause.seconds
