"""What goes wrong is drawn from the seed alone, and every kind of it comes in every run."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from chaos.faults import CUT_OFF_S, EVERYWHERE, Extent, Kind, drawn

EXTENT = Extent(("one", "two", "three"), ("pacs", "archive"), 40.0, can_mount=True)
SEEDS = st.integers(0, 10**6)


@given(SEEDS)
@settings(deadline=None, max_examples=50)
def test_a_seed_says_everything(seed: int) -> None:
    faults = drawn(seed, EXTENT)
    assert faults == drawn(seed, EXTENT)
    assert {fault.kind for fault in faults} == set(Kind)
    assert [fault.at_s for fault in faults] == sorted(fault.at_s for fault in faults)
    assert all(0 <= fault.at_s <= EXTENT.span_s and 0 <= fault.draw < 1 for fault in faults)
    assert {fault.target for fault in faults} <= {*EXTENT.machines, *EXTENT.destinations, EVERYWHERE}


@given(SEEDS)
@settings(deadline=None, max_examples=50)
def test_one_machine_is_lost_and_stays_so(seed: int) -> None:
    faults = drawn(seed, EXTENT)
    (lost,) = (fault for fault in faults if fault.kind is Kind.MACHINE_LOST)
    assert not [fault for fault in faults if fault.target == lost.target and fault.at_s > lost.at_s]
    killed = [fault for fault in faults if fault.kind is Kind.MACHINE_KILLED]
    assert {fault.target for fault in killed} == set(EXTENT.machines) - {lost.target}
    one, other = sorted(killed, key=lambda fault: fault.at_s)
    assert one.at_s + one.for_s <= other.at_s


@given(SEEDS)
@settings(deadline=None, max_examples=20)
def test_the_database_is_cut_off_as_long_as_is_said(seed: int) -> None:
    (cut,) = (fault for fault in drawn(seed, EXTENT) if fault.kind is Kind.DATABASE_CUT_OFF)
    assert cut.for_s == CUT_OFF_S


def test_no_disk_is_filled_where_none_could_be_mounted() -> None:
    without = Extent(EXTENT.machines, EXTENT.destinations, 40.0, can_mount=False)
    assert Kind.DISK_FULL not in {fault.kind for fault in drawn(1, without)}
