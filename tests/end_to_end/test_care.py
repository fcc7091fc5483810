"""Commissioning, review and release on a whole node, with a real destination."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicomnode.testing.node import Node, settings
from dicomnode.testing.peers import StoreScp, storescu
from dicomnode.testing.processes import wait_until
from tests.end_to_end.observation import TIMEOUT_S, by_uid
from tests.end_to_end.studies import phantom_series

RULE = {"name": "tried", "match": {"Modality": "CT"}, "engines": ["ct-nlm"], "send": ["archive"]}


@pytest.mark.peer("dcmtk")
def test_in_commissioning_nothing_derived_reaches_a_destination_until_a_person_releases_it(
    tmp_path: Path, archive: StoreScp
) -> None:
    sources = by_uid(phantom_series(tmp_path / "series", 3))
    tree = settings({"archive": archive}, [RULE], node={"commissioning": True})
    with Node(tmp_path / "node", tree) as node:
        assert storescu(node.call(), sources.values()) == 0
        wait_until(lambda: node.unfinished() == 0 and arrived(archive) == sources.keys(), TIMEOUT_S, "all was done")
        status = node.status()
        assert (status["jobs"]["derived"], status["counts"]["instances_derived"]) == (1, 3)
        assert "COMMISSIONING" in node.command("status").stdout
        node.configure(settings({"archive": archive}, [RULE]))
        node.reload()
        node.wait_for_log("config_applied", times=3)
        assert storescu(node.call(), by_uid(phantom_series(tmp_path / "another", 3, seed=1)).values()) == 0
        wait_until(lambda: len(arrived(archive)) == 9, TIMEOUT_S, "what came afterwards left as ever")
        node.wait_until_idle()
        assert node.ask("release", "--commissioning", "--reason", "looked at all of it")["deliveries"] == 3
        wait_until(lambda: len(arrived(archive)) == 12, TIMEOUT_S, "what was released arrived")
        assert node.stop() == 0


def arrived(archive: StoreScp) -> set[str]:
    return set(by_uid(path for path in archive.files.rglob("*") if path.is_file()))
