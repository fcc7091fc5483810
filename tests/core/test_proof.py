"""What is asked of a destination, and what the answers come to."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomnode.core.identity import is_valid_uid
from dicomnode.core.proof import (
    Action,
    Method,
    ProofKind,
    ProofPolicy,
    ProofState,
    Sent,
    Sight,
    asks_of,
    failure_reason,
    method_for,
    next_step,
    series_proof,
    transaction_uid,
)

POLICY = ProofPolicy(after_s=5.0, answer_s=600.0, again_s=60.0, patience_s=86400.0)
SENT_AT = 1000.0
SIGHT = Sight(("1.1", "1.2"), SENT_AT, SENT_AT)
BOTH = frozenset({Method.COMMITMENT, Method.FIND})
MISSING = {"1.2": 0x0112}


def test_nothing_is_asked_where_all_is_proved_and_before_a_pause() -> None:
    assert next_step(POLICY, replace(SIGHT, unproved=()), SENT_AT + 100).action is Action.NOTHING
    step = next_step(POLICY, SIGHT, SENT_AT + 4)
    assert (step.action, step.until) == (Action.WAIT, SENT_AT + 5)
    assert next_step(POLICY, SIGHT, SENT_AT + 5).action is Action.ASK


def test_receipts_are_proof_where_no_more_is_wanted() -> None:
    policy = replace(POLICY, kind=ProofKind.RECEIPTS)
    assert next_step(policy, SIGHT, SENT_AT + 4).action is Action.WAIT
    assert next_step(policy, SIGHT, SENT_AT + 5).action is Action.CONFIRM


def test_an_answer_is_waited_for_and_then_asked_for_again() -> None:
    asked = replace(SIGHT, asked_at=2000.0, method="commitment", asks=1)
    step = next_step(POLICY, asked, 2300.0)
    assert (step.action, step.until) == (Action.WAIT, 2600.0)
    assert next_step(POLICY, asked, 2600.0).action is Action.ASK


def test_pauses_between_questions_grow_to_an_hour() -> None:
    pauses = []
    for asks in range(1, 9):
        answered = replace(SIGHT, answered_at=2000.0, method="find", asks=asks)
        step = next_step(POLICY, answered, 2001.0)
        assert step.action is Action.WAIT
        pauses.append(step.until - 2000.0)
    assert pauses == [60, 120, 240, 480, 960, 1920, 3600, 3600]


def test_what_is_missing_is_sent_again_once_it_was_said_twice() -> None:
    once = replace(SIGHT, answered_at=2000.0, method="find", asks=1, failures=MISSING)
    assert next_step(POLICY, once, 2001.0).action is Action.WAIT
    assert next_step(POLICY, once, 2060.0).action is Action.ASK
    step = next_step(POLICY, replace(once, asks=2), 2061.0)
    assert (step.action, step.sop_instance_uids) == (Action.SEND_AGAIN, ("1.2",))


@pytest.mark.parametrize("resends", [0, 3])
@pytest.mark.parametrize(("method", "is_named"), [("find", True), ("commitment", False)])
def test_what_to_set_is_told_where_c_find_does_not_show_what_was_taken(
    method: str, is_named: bool, resends: int
) -> None:
    lost = replace(SIGHT, answered_at=2000.0, method=method, asks=2, failures=MISSING, resends=resends)
    assert ('proof = "receipts" in its [destination.NAME]' in next_step(POLICY, lost, 2061.0).hint) == is_named


def test_what_was_sent_again_three_times_is_for_a_person() -> None:
    lost = replace(SIGHT, answered_at=2000.0, method="commitment", asks=2, failures=MISSING, resends=3)
    step = next_step(POLICY, lost, 2061.0)
    assert (step.action, step.sop_instance_uids) == (Action.GIVE_UP, ("1.2",))
    assert step.hint


@pytest.mark.parametrize("reason", [0x0110, 0x0119, 0x0122, 0x0131, 0x0213, 0x4711])
def test_another_failure_sends_nothing_again_and_is_told_when_patience_ends(reason: int) -> None:
    failed = replace(SIGHT, answered_at=2000.0, method="commitment", asks=5, failures={"1.1": reason})
    assert next_step(POLICY, failed, SENT_AT + POLICY.patience_s - 1).action is Action.ASK
    step = next_step(POLICY, failed, SENT_AT + POLICY.patience_s)
    assert (step.action, step.meaning, step.hint) == (
        Action.GIVE_UP,
        failure_reason(reason).meaning,
        failure_reason(reason).hint,
    )
    assert step.hint


def test_a_destination_that_never_answers_is_given_up() -> None:
    silent = replace(SIGHT, asked_at=SENT_AT + 80000.0, method="commitment", asks=3)
    step = next_step(POLICY, silent, SENT_AT + POLICY.patience_s)
    assert step.action is Action.GIVE_UP
    assert "3 questions by commitment" in step.meaning


@pytest.mark.parametrize(
    ("kind", "offered", "method"),
    [
        (ProofKind.AUTO, BOTH, Method.COMMITMENT),
        (ProofKind.AUTO, frozenset({Method.FIND}), Method.FIND),
        (ProofKind.AUTO, frozenset(), Method.RECEIPTS),
        (ProofKind.COMMITMENT, BOTH, Method.COMMITMENT),
        (ProofKind.COMMITMENT, frozenset({Method.FIND}), Method.FIND),
        (ProofKind.COMMITMENT, frozenset(), None),
        (ProofKind.FIND, BOTH, Method.FIND),
        (ProofKind.FIND, frozenset({Method.COMMITMENT}), None),
    ],
)
def test_the_best_is_asked_for_that_is_offered(
    kind: ProofKind, offered: frozenset[Method], method: Method | None
) -> None:
    assert method_for(replace(POLICY, kind=kind), SIGHT, offered) is method


def test_a_commitment_that_is_never_reported_on_gives_way_to_find_and_find_stays() -> None:
    tired = replace(SIGHT, method="commitment", asks=3)
    assert method_for(POLICY, replace(tired, asks=2), BOTH) is Method.COMMITMENT
    assert method_for(POLICY, tired, BOTH) is Method.FIND
    assert method_for(POLICY, tired, frozenset({Method.COMMITMENT})) is Method.COMMITMENT
    assert method_for(POLICY, replace(SIGHT, method="find", asks=1), BOTH) is Method.FIND
    assert (asks_of(tired, Method.FIND), asks_of(tired, Method.COMMITMENT)) == (1, 4)


def test_a_transaction_is_the_same_for_the_same_question_only() -> None:
    uid = transaction_uid("pacs", ["1.1", "1.2"], 7.0, 1)
    assert is_valid_uid(uid)
    assert uid == transaction_uid("pacs", ["1.2", "1.1"], 7.0, 1)
    others = {
        transaction_uid("archive", ["1.1", "1.2"], 7.0, 1),
        transaction_uid("pacs", ["1.1"], 7.0, 1),
        transaction_uid("pacs", ["1.1", "1.2"], 8.0, 1),
        transaction_uid("pacs", ["1.1", "1.2"], 7.0, 2),
    }
    assert len(others) == 4
    assert uid not in others


_COMMITTED, _FOUND = Method.COMMITMENT, Method.FIND


@pytest.mark.parametrize(
    ("rows", "state", "lacking"),
    [
        ([Sent("1", "sent", _COMMITTED), Sent("2", "sent", _FOUND)], ProofState.CONFIRMED, ()),
        ([Sent("1", "sent", _COMMITTED), Sent("2", "sent")], ProofState.SENT, ()),
        ([Sent("1", "sent", _COMMITTED), Sent("2", "waiting")], ProofState.SENDING, ()),
        ([Sent("1", "sent", _COMMITTED), Sent("2", "failed")], ProofState.PARTIAL, ("2",)),
        ([Sent("1", "sent", _COMMITTED), Sent("2", "sent", None, is_missing=True)], ProofState.PARTIAL, ("2",)),
        ([Sent("1", "sent", _COMMITTED), Sent("2", "apart")], ProofState.CONFIRMED, ()),
    ],
)
def test_the_state_of_a_series_at_a_destination(rows: list[Sent], state: ProofState, lacking: tuple[str, ...]) -> None:
    proof = series_proof(rows)
    assert proof is not None
    assert (proof.state, proof.lacking) == (state, lacking)


def test_a_series_of_which_nothing_is_meant_for_a_destination_has_no_state_there() -> None:
    assert series_proof([Sent("1", "apart")]) is None


_ROWS = st.builds(
    Sent,
    st.sampled_from("123456"),
    st.sampled_from(["waiting", "sent", "failed", "apart"]),
    st.none() | st.sampled_from(list(Method)),
    st.booleans(),
)


@settings(deadline=None)
@given(st.lists(_ROWS, max_size=8))
def test_confirmed_is_never_said_of_what_lacks_anything(rows: list[Sent]) -> None:
    proof = series_proof(rows)
    if proof is not None and proof.state is ProofState.CONFIRMED:
        meant = [row for row in rows if row.fate != "apart"]
        assert all(row.confirmed_by and row.fate == "sent" and not row.is_missing for row in meant)
        assert proof.confirmed == proof.instances == len(meant)


@settings(deadline=None)
@given(
    st.builds(
        Sight,
        st.lists(st.sampled_from(["1", "2"]), unique=True).map(tuple),
        st.just(SENT_AT),
        st.just(SENT_AT),
        st.none() | st.floats(SENT_AT, 2e5),
        st.none() | st.floats(SENT_AT, 2e5),
        st.sampled_from(["", "commitment", "find", "receipts"]),
        st.integers(0, 40),
        st.integers(0, 4),
        st.dictionaries(st.sampled_from(["1", "2"]), st.sampled_from([0x0110, 0x0112, 0x0122])),
    ),
    st.floats(SENT_AT, 2e5),
)
def test_whatever_is_known_a_step_leads_on(sight: Sight, now: float) -> None:
    """No wait is over when it begins, and with patience at its end nothing is asked for ever."""
    step = next_step(POLICY, sight, now)
    if step.action is Action.WAIT:
        assert step.until > now
    if step.action in (Action.SEND_AGAIN, Action.GIVE_UP):
        assert step.meaning
        assert step.hint
    if step.action is Action.ASK and sight.asks:
        assert now < sight.began_at + POLICY.patience_s
