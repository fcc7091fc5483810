"""Open associations are counted over all processes, and by peer and address."""

from __future__ import annotations

import os

from hypothesis import given, settings
from hypothesis import strategies as st

from dicomnode.net.scp.slots import MOST_ASSOCIATIONS, Most, Slots


def test_the_total_is_that_of_all_processes() -> None:
    slots = Slots()
    one, two = slots.of(0), slots.of(1)
    most = Most(in_all=3, from_address=1000)
    taken = [one.take("a", "", most), two.take("b", "", most), one.take("c", "", most)]
    assert None not in taken
    assert two.take("d", "", most) is None
    assert taken[0] is not None
    one.give_back(taken[0])
    assert two.take("d", "", most) is not None


def test_an_address_has_its_limit_and_others_go_on() -> None:
    slots = Slots()
    one, two = slots.of(0), slots.of(1)
    most = Most(in_all=1000, from_address=2)
    assert one.take("a", "x", most) is not None
    assert two.take("a", "y", most) is not None
    assert one.take("a", "z", most) is None
    assert one.take("b", "z", most) is not None


def test_a_peer_with_a_number_of_its_own_has_that_wherever_it_calls_from() -> None:
    """Behind the address of a translator of addresses the others may have used up what an address may have."""
    slots = Slots()
    one, two = slots.of(0), slots.of(1)
    for _ in range(2):
        assert one.take("nat", "", Most(1000, 2)) is not None
    assert one.take("nat", "", Most(1000, 2)) is None
    most = Most(1000, 2, of_peer=3)
    taken = [one.take("nat", "ct", most), two.take("nat", "ct", most), two.take("elsewhere", "ct", most)]
    assert None not in taken
    assert one.take("nat", "ct", most) is None


def test_what_a_process_held_that_died_is_free_again() -> None:
    slots = Slots()
    survivor = slots.of(0)
    most = Most(in_all=2, from_address=1000)
    if (child := os.fork()) == 0:
        own = slots.of(1)
        own.open()
        own.tell_connections(0)
        own.take("a", "", most)
        own.take("a", "", most)
        os._exit(0)
    os.waitpid(child, 0)
    survivor.open()
    survivor.tell_connections(1)
    assert survivor.take("b", "", most) is None
    assert survivor.others_are_idler()
    slots.free(1)
    assert not survivor.others_are_idler()
    assert survivor.take("b", "", most) is not None


def test_who_has_more_connections_gives_way_to_those_that_accept() -> None:
    slots = Slots()
    one, two = slots.of(0), slots.of(1)
    one.open()
    one.tell_connections(1)
    assert not one.others_are_idler(), "the other does not accept"
    two.open()
    assert one.others_are_idler()
    assert not two.others_are_idler()
    two.tell_connections(1)
    assert not one.others_are_idler()
    one.tell_connections(2)
    two.close()
    assert not one.others_are_idler()


def test_one_process_has_so_many_slots_and_no_more() -> None:
    own, most = Slots().of(0), Most(10 * MOST_ASSOCIATIONS, 10 * MOST_ASSOCIATIONS)
    taken = [own.take("a", "", most) for _ in range(MOST_ASSOCIATIONS)]
    assert None not in taken
    assert own.take("a", "", most) is None
    assert taken[7] is not None
    own.give_back(taken[7])
    assert own.take("a", "", most) == taken[7]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["", "p", "q"]), st.booleans()), max_size=60))
def test_it_counts_as_one_who_looks_at_all(steps: list[tuple[str, str, bool]]) -> None:
    slots = Slots()
    processes = (slots.of(0), slots.of(1))
    held: list[tuple[int, int, str, str]] = []
    for number, (address, peer, takes) in enumerate(steps):
        if takes:
            most = Most(in_all=8, from_address=5, of_peer=3 if peer == "p" else None)
            allowed = most.allows(
                len(held) + 1,
                sum(each[2] == address for each in held) + 1,
                sum(each[3] == peer for each in held) + 1,
            )
            slot = processes[number % 2].take(address, peer, most)
            assert (slot is not None) == allowed
            if slot is not None:
                held.append((number % 2, slot, address, peer))
        elif held:
            process, slot, _, _ = held.pop(0)
            processes[process].give_back(slot)
