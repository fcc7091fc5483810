from __future__ import annotations

from dataclasses import fields, replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dicomnode.core.identity import (
    IMAGE_ROLE,
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    INSTANCE_CREATOR_UID,
    OtherSeries,
    SourceInstance,
    StageIdentity,
    chain_influence,
    derived_series_instance_uid,
    derived_sop_instance_uid,
    is_valid_uid,
)

SLICE = StageIdentity("a" * 64, "slice", "numpy/float32", {"strength": 1.0, "radius": 3})
VOLUME = replace(SLICE, digest="b" * 64, influence="volume")
SERIES = ("1.2.3", "axial")

sources = st.builds(
    SourceInstance,
    sop_instance_uid=st.integers(0, 10**6).map("1.2.{}".format),
    digest=st.integers(0, 2**256 - 1).map("{:064x}".format),
)
stacks = st.lists(sources, min_size=2, max_size=8, unique=True)
stages = st.builds(
    StageIdentity,
    digest=st.sampled_from(["a" * 64, "b" * 64]),
    influence=st.sampled_from(["slice", "volume"]),
    runtime=st.sampled_from(["numpy/float32", "openvino/bf16"]),
    settings=st.dictionaries(
        st.sampled_from(["strength", "radius"]), st.floats(0, 9) | st.integers(0, 9) | st.booleans()
    ),
)
chains = st.lists(stages, min_size=1, max_size=3)


def _both(stack: list[SourceInstance], chain: list[StageIdentity]) -> tuple[str, str]:
    return (
        derived_sop_instance_uid(stack[0], stack, IMAGE_ROLE, chain),
        derived_series_instance_uid(SERIES, stack, IMAGE_ROLE, chain),
    )


@settings(deadline=None)
@given(stacks, chains, st.randoms(use_true_random=False))
def test_order_of_sources_does_not_matter(stack: list[SourceInstance], chain: list[StageIdentity], chance) -> None:
    shuffled = stack.copy()
    chance.shuffle(shuffled)
    own = stack[0]
    assert derived_sop_instance_uid(own, shuffled, IMAGE_ROLE, chain) == _both(stack, chain)[0]
    assert derived_series_instance_uid(SERIES, shuffled, IMAGE_ROLE, chain) == _both(stack, chain)[1]


@settings(deadline=None)
@given(stacks, chains)
def test_uids_are_valid_and_of_the_uuid_root(stack: list[SourceInstance], chain: list[StageIdentity]) -> None:
    for uid in _both(stack, chain):
        assert is_valid_uid(uid)
        assert uid.startswith("2.25.")
        assert not uid.startswith("2.25.0")


@settings(deadline=None)
@given(stacks, chains)
def test_every_slice_has_its_own_uid(stack: list[SourceInstance], chain: list[StageIdentity]) -> None:
    assert len({derived_sop_instance_uid(own, stack, IMAGE_ROLE, chain) for own in stack}) == len(stack)


@settings(deadline=None)
@given(stacks, st.sampled_from([SLICE, VOLUME]), st.data())
def test_whatever_changes_an_output_changes_its_uids(stack, stage: StageIdentity, data) -> None:
    other = data.draw(
        st.sampled_from(
            [
                replace(stage, digest="c" * 64),
                replace(stage, runtime="openvino/bf16"),
                replace(stage, settings={**stage.settings, "strength": 1.5}),
                replace(stage, settings={**stage.settings, "extra": True}),
            ]
        )
    )
    before, after = _both(stack, [stage]), _both(stack, [other])
    assert before[0] != after[0]
    assert before[1] != after[1]


@settings(deadline=None)
@given(stacks, sources)
def test_a_late_slice_joins_a_slicewise_series_and_renews_a_volume_series(stack, late: SourceInstance) -> None:
    if late in stack:
        return
    assert _both(stack, [SLICE]) == _both([*stack, late], [SLICE])
    before, after = _both(stack, [VOLUME]), _both([*stack, late], [VOLUME])
    assert before[0] != after[0]
    assert before[1] != after[1]


@settings(deadline=None)
@given(stacks)
def test_another_digest_of_a_source_changes_what_it_influences(stack: list[SourceInstance]) -> None:
    resent = [replace(stack[0], digest="0" * 63 + "x"), *stack[1:]]
    for chain in ([SLICE], [VOLUME]):
        assert _both(stack, chain)[0] != _both(resent, chain)[0]
    neighbour = stack[1]
    for chain, same in (([SLICE], True), ([VOLUME], False)):
        before, after = (derived_sop_instance_uid(neighbour, of, IMAGE_ROLE, chain) for of in (stack, resent))
        assert (before == after) is same


@given(st.lists(stages, min_size=1, max_size=4))
def test_one_volume_engine_makes_a_chain_volume(chain: list[StageIdentity]) -> None:
    assert (chain_influence(chain) == "slice") is all(stage.influence == "slice" for stage in chain)


def test_order_of_engines_matters() -> None:
    stack = [SourceInstance("1.2.3.4", "0" * 64)]
    other = replace(SLICE, digest="c" * 64)
    assert _both(stack, [SLICE, other]) != _both(stack, [other, SLICE])


def test_stack_and_role_tell_series_apart() -> None:
    stack = [SourceInstance("1.2.3.4", "0" * 64)]
    uids = {
        derived_series_instance_uid(series, stack, role, [SLICE])
        for series in (SERIES, ("1.2.3", "coronal"), ("1.2.4", "axial"))
        for role in (IMAGE_ROLE, "mask")
    }
    assert len(uids) == 6


def test_nothing_of_patient_study_or_run_can_enter() -> None:
    assert {field.name for field in fields(SourceInstance)} == {"sop_instance_uid", "digest"}
    assert {field.name for field in fields(StageIdentity)} == {"digest", "influence", "runtime", "settings"}


def test_uids_are_the_same_for_ever() -> None:
    """These were sent to PACS: a change of the algorithm would send everything a second time."""
    stack = [SourceInstance("1.2.3.4", "0" * 64), SourceInstance("1.2.3.5", "1" * 64)]
    assert _both(stack, [SLICE]) == (
        "2.25.273412254195625149650878846971525645159",
        "2.25.239857516845725472844069366169768160676",
    )
    assert _both(stack, [VOLUME]) == (
        "2.25.26043478815178701901788408032923305676",
        "2.25.245712635074488991425757998839619841863",
    )


@pytest.mark.parametrize("uid", ["1", "1.2.840.10008.1.1", "999.999.01.23", "0.0", "1" * 64, "2.25." + "9" * 39])
def test_valid_uids(uid: str) -> None:
    assert is_valid_uid(uid)


@pytest.mark.parametrize(
    "uid", ["", ".", "1.", ".1", "1..2", "1" * 65, "1.2\n", "1.2 ", "../1", "1.2/3", "1.a", "1.2\0", "１.２", "-1.2"]
)
def test_invalid_uids(uid: str) -> None:
    assert not is_valid_uid(uid)


def test_constants_fit_their_fields() -> None:
    assert is_valid_uid(INSTANCE_CREATOR_UID)
    assert is_valid_uid(IMPLEMENTATION_CLASS_UID)
    assert 1 <= len(IMPLEMENTATION_VERSION_NAME) <= 16


@settings(deadline=None)
@given(stacks, stacks, chains)
def test_other_series_enter_by_their_input(
    stack: list[SourceInstance], other: list[SourceInstance], chain: list[StageIdentity]
) -> None:
    """Which input it was counts, and each of its slices that can influence the object; none keeps the old UIDs."""
    assume(other[0].digest != "f" * 64)
    portal = OtherSeries("portal", ("1.2.4", "axial"), tuple(other))
    delayed = replace(portal, input="delayed")
    changed = replace(portal, stack=(replace(other[0], digest="f" * 64), *other[1:]))

    def both(*others: OtherSeries) -> tuple[str, str]:
        return (
            derived_sop_instance_uid(stack[0], stack, IMAGE_ROLE, chain, others),
            derived_series_instance_uid(SERIES, stack, IMAGE_ROLE, chain, others),
        )

    assert both() == _both(stack, chain)
    found = [both(), both(portal), both(delayed), both(portal, delayed)]
    assert len({one for one, _ in found}) == len({series for _, series in found}) == len(found)
    assert both(portal, delayed) == both(delayed, portal)
    assert both(changed)[0] != both(portal)[0]
    assert (both(changed)[1] == both(portal)[1]) == (chain_influence(chain) == "slice")
