"""Presentation contexts: what we take, and what is proposed for what is to be sent."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import UID

from dicomnode.net.contexts import (
    REENCODABLE,
    STORAGE_CLASSES,
    TRANSFER_SYNTAXES,
    Kind,
    ProposedContext,
    propose,
    syntaxes_for,
)

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
EXPLICIT, IMPLICIT, JPEG = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.4.70"


def test_media_directories_are_not_stored_but_new_classes_are() -> None:
    assert "1.2.840.10008.1.3.10" not in STORAGE_CLASSES
    assert "1.2.840.10008.5.1.4.1.1.66.7" in STORAGE_CLASSES  # Label Map Segmentation
    assert len(STORAGE_CLASSES) > 170


def test_syntaxes_are_known_and_lossy_comes_last() -> None:
    known = [UID(syntax) for syntax in TRANSFER_SYNTAXES]
    assert len(set(known)) == len(known)
    assert TRANSFER_SYNTAXES[:2] == (EXPLICIT, IMPLICIT)
    assert known.index(UID("1.2.840.10008.1.2.4.50")) > known.index(UID("1.2.840.10008.1.2.4.111"))


def test_each_stored_syntax_is_a_context_of_its_own() -> None:
    assert propose([Kind(CT, EXPLICIT), Kind(CT, JPEG), Kind(MR, JPEG), Kind(CT, EXPLICIT)]) == (
        (
            ProposedContext(CT, (EXPLICIT,)),
            ProposedContext(CT, (IMPLICIT,)),
            ProposedContext(CT, (JPEG,)),
            ProposedContext(MR, (JPEG,)),
        ),
    )


def test_only_uncompressed_is_reencoded() -> None:
    assert syntaxes_for(JPEG) == (JPEG,)
    assert syntaxes_for(IMPLICIT) == (IMPLICIT, EXPLICIT)
    assert syntaxes_for("1.2.840.10008.1.2.2") == ("1.2.840.10008.1.2.2", EXPLICIT, IMPLICIT)
    assert len(REENCODABLE) == 4


def test_nothing_to_send_needs_nothing() -> None:
    assert propose([]) == ()


KINDS = st.builds(Kind, st.sampled_from(sorted(STORAGE_CLASSES)), st.sampled_from(TRANSFER_SYNTAXES))


@given(st.sets(KINDS, max_size=400))
def test_every_kind_has_its_context_and_no_association_too_many(kinds: set[Kind]) -> None:
    groups = propose(kinds)
    proposed = [
        Kind(each.abstract_syntax, syntax) for group in groups for each in group for syntax in each.transfer_syntaxes
    ]
    assert kinds <= set(proposed)
    assert len(proposed) == len(set(proposed))
    assert all(0 < len(group) <= 128 for group in groups)
    classes = [{each.abstract_syntax for each in group} for group in groups]
    assert sum(map(len, classes)) == len(set().union(*classes))  # a class is never split
