"""Which deliveries go next: two urgent ones for a normal one, nothing starves, small studies pass by huge ones."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

from hypothesis import given, settings
from hypothesis import strategies as st

from dicomnode.core.fairness import Waiting, next_batch

LIMIT = 8


def rows(kinds: str, calling_ae: str = "A", series: int = 1, first: int = 0) -> list[Waiting]:
    """One row for each letter: u(rgent) or n(ormal)."""
    return [Waiting(first + place, kind == "u", calling_ae, series) for place, kind in enumerate(kinds)]


def kinds(batch: Sequence[Waiting]) -> str:
    return "".join("u" if each.is_urgent else "n" for each in batch)


def test_nothing_waits() -> None:
    assert next_batch([], LIMIT, 5) == ([], 0)


def test_of_three_that_go_two_are_urgent_while_both_wait() -> None:
    batch, _ = next_batch(rows("n" * 9 + "u" * 9), 9, 0)
    assert kinds(batch) == "uunuunuun"


def test_what_is_owed_is_paid_by_the_next_batch() -> None:
    first, owed = next_batch(rows("nnnn" + "uuuuuuuu"), 2, 0)
    second, _ = next_batch(rows("nnnn" + "uuuuuu"), 2, owed)
    assert (kinds(first), kinds(second)) == ("uu", "nu")


def test_one_kind_alone_has_all() -> None:
    assert kinds(next_batch(rows("nnnnnnnnnn"), LIMIT, 0)[0]) == "n" * LIMIT
    assert next_batch(rows("uuuuuuuuuu"), LIMIT, 7) == (rows("u" * LIMIT), 0)


def test_the_oldest_go_first() -> None:
    assert [each.outbox_id for each in next_batch(rows("nnnnnnnnnn"), 3, 0)[0]] == [0, 1, 2]


def test_a_small_series_does_not_wait_for_a_huge_one() -> None:
    huge, small = rows("n" * 500, series=1), rows("nn", series=2, first=1000)
    batch, _ = next_batch(huge + small, 32, 0)
    assert {each.outbox_id for each in small} <= {each.outbox_id for each in batch}
    assert batch[0] == huge[0]


def test_a_batch_has_one_calling_ae_title() -> None:
    waiting = rows("nn", "A") + rows("nn", "B", series=2, first=10) + rows("n", "A", series=3, first=20)
    assert {each.calling_ae for each in next_batch(waiting, LIMIT, 0)[0]} == {"A"}
    assert len(next_batch(waiting, LIMIT, 0)[0]) == 3


def test_normal_ones_of_another_calling_ae_title_have_their_third_too() -> None:
    waiting = rows("u" * 4000, "A") + rows("n" * 4000, "B", series=2, first=5000)
    went: list[Waiting] = []
    owed = 0
    for _ in range(40):
        batch, owed = next_batch(waiting, 64, owed)
        assert batch
        went += batch
        waiting = [each for each in waiting if each not in set(batch)]
    share = kinds(went).count("n") / len(went)
    assert 0.25 < share < 0.4, share


arrivals = st.lists(
    st.tuples(st.integers(0, 3), st.booleans(), st.sampled_from("ABC"), st.integers(1, 4)), min_size=1, max_size=60
)


@settings(deadline=None)
@given(st.lists(arrivals, min_size=1, max_size=12), st.integers(1, 20))
def test_everything_goes_once_and_nothing_waits_for_what_came_much_later(
    bursts: list[list[tuple[int, bool, str, int]]], limit: int
) -> None:
    """However they come: each batch takes something, and the one that waits longest of its kind goes within a bounded
    number of batches (the model: of any 2 + _MOST_OWED / 2 batches one is begun by each kind that waits)."""
    numbers, waiting, owed = count(), list[Waiting](), 0
    seen: set[int] = set()
    oldest_for: dict[tuple[bool, int], int] = {}
    for burst in [*bursts, *([[]] * 2000)]:
        waiting += [
            Waiting(next(numbers), urgent, ae, series) for copies, urgent, ae, series in burst for _ in range(copies)
        ]
        if not waiting:
            continue
        batch, owed = next_batch(waiting, limit, owed)
        went = {each.outbox_id for each in batch}
        assert batch
        assert len(batch) <= limit
        assert len({each.calling_ae for each in batch}) == 1
        assert not went & seen
        seen |= went
        waiting = [each for each in waiting if each.outbox_id not in went]
        for kind in (True, False):
            oldest = next((each.outbox_id for each in waiting if each.is_urgent == kind), None)
            if oldest is not None:
                oldest_for[kind, oldest] = oldest_for.get((kind, oldest), 0) + 1
                assert oldest_for[kind, oldest] <= 2 + 64 + 1
    assert not waiting


@settings(deadline=None)
@given(st.integers(1, 64), st.lists(st.sampled_from("AB"), min_size=200, max_size=200))
def test_while_both_wait_neither_kind_gets_more_than_its_share_for_long(limit: int, titles: list[str]) -> None:
    waiting = [Waiting(n, n % 2 == 0, ae, n % 5) for n, ae in enumerate(titles)]
    owed, urgent, normal = 0, 0, 0
    while any(each.is_urgent for each in waiting) and any(not each.is_urgent for each in waiting):
        batch, owed = next_batch(waiting, limit, owed)
        urgent += sum(each.is_urgent for each in batch)
        normal += sum(not each.is_urgent for each in batch)
        waiting = [each for each in waiting if each not in set(batch)]
        assert urgent <= 2 * normal + 2 + 128
        assert normal <= urgent / 2 + limit + 1
