"""Closed by default: who is let in, and when nothing more is taken."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file

from dicomnode.testing.node import Node, settings
from dicomnode.testing.sender import RawObject, echo, send_verbatim
from tests.end_to_end.observation import is_clear

CT_SMALL = Path(str(get_testdata_file("CT_small.dcm")))


@pytest.fixture(name="node", scope="module")
def _node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Knows its scanner, and a second one elsewhere; has two AE titles."""
    peers = {"ct2": {"ae_title": "CT2", "host": "192.0.2.1"}}
    tree = settings({}, [], peer=peers, node={"ae_titles": ["RESEARCH"]})
    with Node(tmp_path_factory.mktemp("closed"), tree) as node:
        yield node


def test_an_unknown_caller_is_refused_and_the_log_says_how_to_allow_it(node: Node) -> None:
    assert not echo(node.call(calling_ae="STRANGER"))
    node.wait_for_log("STRANGER")
    (refusal,) = [line for line in node.log().splitlines() if "STRANGER" in line]
    assert "association_refused" in refusal
    assert "[peer." in refusal
    assert "ae_title" in refusal


def test_a_known_title_from_another_address_is_refused(node: Node) -> None:
    assert not echo(node.call(calling_ae="CT2"))


def test_a_call_for_someone_else_is_refused(node: Node) -> None:
    assert not echo(node.call(called_ae="SOMEONE"))
    assert echo(node.call(called_ae="RESEARCH"))


def test_a_site_may_let_everybody_in(tmp_path: Path) -> None:
    with Node(tmp_path, settings({}, [], node={"accept_unknown": True})) as node:
        assert echo(node.call(calling_ae="STRANGER"))


def test_a_nearly_full_disk_is_said_to_be_full(tmp_path: Path) -> None:
    sent = RawObject.read(CT_SMALL)
    with Node(tmp_path, settings({}, [], limits={"disk_reserve": "900000 TB"})) as node:
        assert send_verbatim(node.call(), [sent]) == {sent.sop_instance_uid: 0xA700}
        node.wait_for_log("0xA700")
        node.configure(settings({}, [], limits={"disk_reserve": "1 MB"}))
        node.reload()
        node.wait_for_log("config_applied", times=4)
        assert send_verbatim(node.call(), [sent]) == {sent.sop_instance_uid: 0}


def test_a_uid_that_is_none_is_refused(node: Node) -> None:
    sent = RawObject.read(CT_SMALL)
    for uid in ("../../../../tmp/pwned", "1.2.3/4", "1" * 65, "", "1..2"):
        hostile = RawObject(sent.sop_class_uid, uid, sent.transfer_syntax_uid, sent.data_set)
        (status,) = send_verbatim(node.call(), [hostile]).values()
        assert is_clear(status), uid
        assert status != 0, uid
        assert echo(node.call())


def test_a_data_set_that_is_another_than_announced_is_refused(node: Node) -> None:
    sent = RawObject.read(CT_SMALL)
    other = RawObject(sent.sop_class_uid, "1.2.3.4", sent.transfer_syntax_uid, sent.data_set)
    assert send_verbatim(node.call(), [other]) == {"1.2.3.4": 0xA900}
