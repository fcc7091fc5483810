"""A-ASSOCIATE: what we say is what a reader of the standard expects, and no bytes from outside break the reader."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import UID
from pynetdicom import build_context
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.presentation import PresentationContext, negotiate_as_acceptor

from dicomnode.core.identity import IMPLEMENTATION_CLASS_UID
from dicomnode.net.contexts import STORAGE_CLASSES, TRANSFER_SYNTAXES, VERIFICATION, ProposedContext
from dicomnode.net.negotiation import Proposal, read_answer, read_proposal, read_request, request
from dicomnode.net.pdu import ProtocolError
from dicomnode.net.scp import agreement
from dicomnode.net.scp.agreement import Agreement, Negotiator, Terms, accept, agree

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
REQUEST = request(
    "NODE", "CT1", [ProposedContext(CT_IMAGE, (IMPLICIT, EXPLICIT)), ProposedContext(VERIFICATION, (IMPLICIT,))]
)
TERMS = Terms(STORAGE_CLASSES | {VERIFICATION})
PRIVATE = "1.3.12.2.1107.5.9.1"


def encode_item(kind: int, content: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(content)) + content


def context(context_id: int, abstract_syntax: bytes, *syntaxes: bytes) -> bytes:
    parts = [encode_item(0x30, abstract_syntax), *(encode_item(0x40, syntax) for syntax in syntaxes)]
    return encode_item(0x20, bytes([context_id, 0, 0, 0]) + b"".join(parts))


def body(*items: bytes) -> bytes:
    fixed = struct.pack(">H2x16s16s32x", 1, b"NODE".ljust(16), b" CT1\0".ljust(16))
    return fixed + encode_item(0x10, b"1.2.840.10008.3.1.1.1") + b"".join(items)


def test_pynetdicom_reads_our_request() -> None:
    theirs = A_ASSOCIATE_RQ()
    theirs.decode(REQUEST)
    assert (theirs.called_ae_title, theirs.calling_ae_title) == ("NODE", "CT1")
    assert [each.context_id for each in theirs.presentation_context] == [1, 3]
    assert theirs.user_information is not None
    assert theirs.user_information.maximum_length == 131_072
    assert theirs.user_information.implementation_class_uid == IMPLEMENTATION_CLASS_UID


def proposal(*items: bytes, user: bytes = b"") -> Proposal:
    return read_proposal(body(*items, encode_item(0x50, encode_item(0x51, bytes([0, 0, 64, 0])) + user))[68:])


def decoded(agreement: Agreement) -> A_ASSOCIATE_AC:
    """Our answer as pynetdicom understands it."""
    theirs = A_ASSOCIATE_AC()
    theirs.decode(accept(read_request(body()), agreement))
    assert theirs.user_information is not None
    return theirs


def counted(uid: str) -> bytes:
    return struct.pack(">H", len(uid)) + uid.encode()


def results(agreement: Agreement) -> dict[int, int]:
    answer = read_answer(accept(read_request(body()), agreement)[6:])
    return {context_id: result for context_id, (result, _) in answer.results.items()}


def test_our_reader_reads_our_request() -> None:
    read = read_request(REQUEST[6:])
    assert (read.called_ae, read.calling_ae, read.protocol_version) == ("NODE", "CT1", 1)
    proposed = read_proposal(read.items)
    assert proposed.application_context == "1.2.840.10008.3.1.1.1"
    assert [each.abstract_syntax for each in proposed.contexts] == [CT_IMAGE, VERIFICATION]
    assert proposed.contexts[0].transfer_syntaxes == (IMPLICIT, EXPLICIT)
    assert proposed.maximum_bytes == 131_072
    assert proposed.implementation.startswith("DICOMNODE_")
    assert proposed.operations is None


def test_the_answer_prefers_explicit_and_repeats_what_it_must() -> None:
    fixed = body()[:36] + bytes(range(32))
    read = read_request(fixed + body(context(1, CT_IMAGE.encode(), IMPLICIT.encode(), EXPLICIT.encode()))[68:])
    agreement = Negotiator(TERMS)(read.items)
    assert [(each.context_id, each.abstract_syntax, each.transfer_syntax) for each in agreement.contexts.values()] == [
        (1, CT_IMAGE, EXPLICIT)
    ]
    encoded = accept(read, agreement)
    assert encoded[10:74] == b"NODE".ljust(16) + b" CT1\0".ljust(16) + bytes(range(32))
    theirs = decoded(agreement)
    assert theirs.user_information.implementation_class_uid == IMPLEMENTATION_CLASS_UID
    assert theirs.user_information.maximum_length == 131_072
    assert theirs.application_context_name == "1.2.840.10008.3.1.1.1"


def test_the_most_that_can_be_asked_for() -> None:
    classes = sorted(STORAGE_CLASSES)[:128]
    read = read_request(request("NODE", "CT1", [ProposedContext(each, TRANSFER_SYNTAXES) for each in classes])[6:])
    agreement = Negotiator(TERMS)(read.items)
    assert len(agreement.contexts) == 128
    assert set(read_answer(accept(read, agreement)[6:]).results.values()) == {(0, EXPLICIT)}


_PROPOSED_CONTEXTS = st.lists(
    st.tuples(
        st.sampled_from([CT_IMAGE, VERIFICATION, PRIVATE, "1.2.840.10008.5.1.4.1.1.4"]),
        st.lists(st.sampled_from([*TRANSFER_SYNTAXES[:8], "1.2.3.4.5"]), min_size=1, max_size=6),
    ),
    max_size=6,
)
_ROLES = st.dictionaries(st.sampled_from([CT_IMAGE, VERIFICATION]), st.tuples(st.booleans(), st.booleans()))


@settings(deadline=None, max_examples=100)
@given(_PROPOSED_CONTEXTS, _ROLES)
def test_pynetdicom_would_answer_the_same(
    wanted: list[tuple[str, list[str]]], roles: dict[str, tuple[bool, bool]]
) -> None:
    """It does not answer which transfer syntaxes it knows as we do: offered ones are known to both, or to none."""
    encoded = [
        context(2 * number + 1, each.encode(), *(syntax.encode() for syntax in syntaxes))
        for number, (each, syntaxes) in enumerate(wanted)
    ]
    user = b"".join(encode_item(0x54, counted(each) + bytes(role)) for each, role in roles.items())
    agreement = agree(proposal(*encoded, user=user), TERMS)
    theirs, their_roles = negotiate_as_acceptor(
        [_offered(2 * number + 1, *each) for number, each in enumerate(wanted)],
        [_supported(CT_IMAGE, TRANSFER_SYNTAXES), _supported("1.2.840.10008.5.1.4.1.1.4", TRANSFER_SYNTAXES),
         _supported(VERIFICATION, TRANSFER_SYNTAXES[:4])],
        {UID(each): role for each, role in roles.items()},
    )  # fmt: skip
    assert results(agreement) == {each.context_id: each.result for each in theirs}
    accepted = {each.context_id: each.transfer_syntax[0] for each in theirs if each.result == 0}
    assert {key: each.transfer_syntax for key, each in agreement.contexts.items()} == accepted
    answered = decoded(agreement).user_information.role_selection
    assert {each.sop_class_uid: (each.scu_role, each.scp_role) for each in their_roles} == {
        key: (bool(each.scu_role), bool(each.scp_role)) for key, each in answered.items()
    }


def _offered(context_id: int, abstract_syntax: str, syntaxes: list[str]) -> PresentationContext:
    offered = build_context(abstract_syntax, syntaxes)
    offered.context_id = context_id
    return offered


def _supported(abstract_syntax: str, syntaxes: tuple[str, ...]) -> PresentationContext:
    supported = build_context(abstract_syntax, list(syntaxes))
    supported.scu_role, supported.scp_role = True, False
    return supported


def test_a_requestor_that_would_only_receive_is_refused() -> None:
    """PS3.7 D.3.3.4: it proposes to be SCP and not SCU; we are no SCU on associations that others open."""
    offered = context(1, CT_IMAGE.encode(), EXPLICIT.encode())
    agreement = agree(proposal(offered, user=encode_item(0x54, counted(CT_IMAGE) + b"\0\1")), TERMS)
    assert results(agreement) == {1: 1}


@pytest.mark.parametrize(
    ("asked", "granted", "answered"),
    [(None, 1, None), (0, 1, 1), (1, 1, 1), (8, 1, 1), (8, 4, 4), (3, 4, 3), (0, 4, 4)],
)
def test_the_window_of_operations_is_never_larger_than_asked_for(
    asked: int | None, granted: int, answered: int | None
) -> None:
    """PS3.7 D.3.3.3: answered if asked for; 0 is any number. We invoke nothing, so the other number stays 1."""
    user = b"" if asked is None else encode_item(0x53, struct.pack(">HH", asked, 9))
    theirs = decoded(agree(proposal(user=user), Terms(frozenset(), operations=granted)))
    window = theirs.user_information.async_ops_window
    if answered is None:
        assert window is None
    else:
        assert (window.max_operations_invoked, window.max_operations_performed) == (answered, 1)


def test_extended_negotiation_says_what_storage_we_are() -> None:
    """PS3.4 table B.3-1; only for the classes for which it is asked, and only if they are accepted."""
    classes = (CT_IMAGE, VERIFICATION, "1.2.840.10008.5.1.4.1.1.4", PRIVATE)
    contexts = [context(2 * number + 1, each.encode(), EXPLICIT.encode()) for number, each in enumerate(classes)]
    user = b"".join(encode_item(0x56, counted(each) + b"\3\0\0\0\2\0") for each in (CT_IMAGE, VERIFICATION, PRIVATE))
    extended = decoded(agree(proposal(*contexts, user=user), TERMS)).user_information.ext_neg
    assert [(each.uid, each.app_info) for each in extended] == [(CT_IMAGE, b"\2\0\3\0\0\0")]


def test_common_extended_negotiation_and_user_identity_are_not_answered() -> None:
    """PS3.7 D.3.3.6: there is no answer; D.3.3.7: none from an acceptor that does not support it."""
    user = encode_item(0x57, counted(CT_IMAGE) + counted("1.2.840.10008.4.2") + b"\0\0")
    user += encode_item(0x58, b"\2\1" + counted("user") + counted("secret"))
    answered = decoded(agree(proposal(user=user), TERMS)).user_information
    assert {type(each).__name__ for each in answered.user_data} == {
        "MaximumLengthSubItem", "ImplementationClassUIDSubItem", "ImplementationVersionNameSubItem"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("abstract_syntax", "result"),
    [
        (PRIVATE, 0),
        ("1.2.840.10008.5.1.4.1.1.99999", 0),  # a class that is younger than we are
        (CT_IMAGE, 0),
        ("1.2.840.10008.1.3.10", 3),  # Media Storage Directory
        ("1.2.840.10008.5.1.4.1.2.2.1", 3),  # Study Root FIND
        ("1.2.840.10008.5.1.4.1.2.1.2", 3),  # Patient Root MOVE
        ("1.2.840.10008.5.1.4.1.2.2.3", 3),  # Study Root GET
        ("1.2.840.10008.5.1.4.31", 3),  # Modality Worklist
        ("1.2.840.10008.1.20.1", 3),  # Storage Commitment
        ("1.2.840.10008.3.1.2.3.3", 3),  # MPPS
        ("1.2.840.10008.5.1.1.9", 3),  # Basic Grayscale Print Management
        ("1.2.840.10008.5.1.4.34.6.1", 3),  # UPS Push
        (EXPLICIT, 3),  # not even a class
    ],
)
def test_unknown_classes_are_of_storage_where_that_is_configured(abstract_syntax: str, result: int) -> None:
    offered = proposal(context(1, abstract_syntax.encode(), b"1.2.3.4.5", EXPLICIT.encode()))
    agreement = agree(offered, Terms(TERMS.supported, accept_unknown_classes=True))
    assert results(agreement) == {1: result}
    assert results(agree(offered, TERMS)) == {1: 0 if abstract_syntax == CT_IMAGE else 3}


def test_no_configuration_accepts_an_unknown_transfer_syntax() -> None:
    terms = Terms(TERMS.supported, accept_unknown_classes=True)
    assert results(agree(proposal(context(1, PRIVATE.encode(), b"1.2.3.4.5")), terms)) == {1: 4}


def test_an_unknown_class_of_another_service_is_not_of_storage() -> None:
    """PS3.7 D.3.3.6: the requestor may say which service class it belongs to."""
    offered = context(1, PRIVATE.encode(), EXPLICIT.encode())
    for service, result in (("1.2.840.10008.4.2", 0), ("1.2.840.10008.5.1.4.34.6", 3)):
        user = encode_item(0x57, counted(PRIVATE) + counted(service) + b"\0\0")
        assert results(agree(proposal(offered, user=user), Terms(frozenset(), accept_unknown_classes=True))) == {
            1: result
        }


def test_unknown_items_are_skipped() -> None:
    """PS3.8 9.3.1: items of unrecognized types shall be ignored."""
    user = encode_item(0x58, b"secret") + encode_item(0xEE, b"?")
    read = proposal(encode_item(0x99, b"?"), context(1, CT_IMAGE.encode(), b"1.2.3", EXPLICIT.encode()), user=user)
    assert read.contexts[0].transfer_syntaxes == (EXPLICIT,)


def test_the_same_proposal_is_judged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    monkeypatch.setattr(agreement, "read_proposal", lambda items: read.append(items) or read_proposal(items))
    negotiate = Negotiator(TERMS)
    proposals = [REQUEST[74:], request("ELSE", "MR1", [ProposedContext(CT_IMAGE, (IMPLICIT,))])[74:]]
    answers = [negotiate(each) for each in (*proposals, *proposals)]
    assert read == proposals
    assert answers[0] is answers[2]
    assert answers[1].contexts != answers[0].contexts
    for number in range(200):
        negotiate(body(encode_item(0x99, b"%d" % number))[68:])
    negotiate(proposals[0])
    assert read.count(proposals[0]) == 2  # forgotten, for only so many are remembered


@pytest.mark.parametrize(
    "items",
    [
        [context(2, b"1.2", b"1.2")],
        [context(1, b"1.2", b"1.2")] * 2,
        [context(1, b"../x", b"1.2")],
        [context(1, b"1" * 65, b"1.2")],
        [encode_item(0x20, b"\1")],
        [encode_item(0x20, b"\1\0\0\0")],
        [struct.pack(">BxH", 0x20, 500) + b"short"],
        [b"\x20"],
        [encode_item(0x50, encode_item(0x54, b"\x00\xff1.2"))],
        [encode_item(0x50, encode_item(0x51, bytes([0, 0, 0, 9])))],
        [encode_item(0x50, encode_item(0x53, bytes(3)))],
        [encode_item(0x50, encode_item(0x54, counted("1.2") + b"\1"))],
        [encode_item(0x50, encode_item(0x56, b"\x00\x09" + b"1.2"))],
        [encode_item(0x50, encode_item(0x57, counted("1.2")))],
        [context(2 * number % 256 + 1, b"1.2", b"1.2") for number in range(129)],
        [context(1, b"1.2", b"1.2")] * 10_000,
    ],
    ids=["even ID", "ID twice", "path", "long", "cut", "no abstract syntax", "overlong", "crumb", "role", "tiny PDU",
         "window", "half a role", "extended", "common extended", "129 contexts", "thousands of contexts"],
)  # fmt: skip
def test_malformed_requests_are_protocol_errors(items: list[bytes]) -> None:
    with pytest.raises(ProtocolError):
        read_proposal(read_request(body(*items)).items)


def test_thousands_of_syntaxes_cost_nothing() -> None:
    """In pynetdicom's decoder this takes time with the square of their number."""
    syntaxes = [b"1.2.%d" % number for number in range(4000)]
    read = proposal(*(context(2 * number + 1, CT_IMAGE.encode(), *syntaxes) for number in range(14)))
    assert {each.transfer_syntaxes for each in read.contexts} == {()}
    assert set(results(agree(read, TERMS)).values()) == {4}


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=300), st.integers(0, 300), st.booleans())
def test_any_bytes_are_read_or_refused(noise: bytes, place: int, whole: bool) -> None:
    mutated = noise if whole else REQUEST[6 : 6 + place] + noise + REQUEST[6 + place + len(noise) :]
    with contextlib.suppress(ProtocolError):
        read = read_request(mutated)
        accept(read, Negotiator(TERMS)(read.items))
    with contextlib.suppress(ProtocolError):
        read_answer(mutated)
