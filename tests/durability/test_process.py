"""`durability = "process"`: what was answered with success survives a killed node, however many send to it."""

from __future__ import annotations

import random
import shutil
import threading
import time
from pathlib import Path
from typing import Final

import pytest

from dicomnode.faults import POINTS
from dicomnode.testing.node import Node
from dicomnode.testing.processes import wait_until
from dicomnode.testing.sender import RawObject
from tests.durability.outage import losses, send_shares, site
from tests.end_to_end.studies import phantom_series

ASSOCIATIONS: Final = 4
INSTANCES: Final = 16
PASSES_BEFORE: Final = 2
"""Of a point, in one process: each association has four instances to take past it, one after the other."""
LIVES: Final = 6
LONGEST_DELAY_S: Final = 0.02
TIMEOUT_S: Final = 60.0


def phantoms(folder: Path, count: int, seed: int = 0) -> list[RawObject]:
    return [RawObject.read(path) for path in phantom_series(folder, slices=count, seed=seed)]


def lost(node: Node, sent: list[RawObject], acknowledged: set[str]) -> list[str]:
    """What the killed node lost; looked for in a copy, for the node itself is to find all as it was left."""
    copy = node.folder / "copy"
    shutil.copytree(node.data, copy)
    try:
        return losses(copy, node.configuration, {each.sop_instance_uid: each for each in sent}, acknowledged)
    finally:
        shutil.rmtree(copy)


@pytest.mark.parametrize("point", [point for point in POINTS if point.startswith("receive.")])
def test_a_kill_at_each_point_under_load_loses_nothing(tmp_path: Path, point: str) -> None:
    sent = phantoms(tmp_path / "sent", INSTANCES)
    acknowledged: set[str] = set()
    after = {"DICOMNODE_KILL_AFTER": str(PASSES_BEFORE)}
    with Node(tmp_path / "node", site(tmp_path, "process"), kill_at=point, environment=after) as node:
        send_shares(node.call(), sent, ASSOCIATIONS, acknowledged)
        wait_until(lambda: not node.running, TIMEOUT_S, f"the node was killed at {point}")
        node.kill()
        assert len(acknowledged) < INSTANCES
        assert lost(node, sent, acknowledged) == []


def test_kills_at_random_moments_under_load_lose_nothing(tmp_path: Path) -> None:
    """One node lives through all of them, and takes in the end what each life left unanswered."""
    chance = random.Random(4711)
    sent: list[RawObject] = []
    acknowledged: set[str] = set()
    with Node(tmp_path / "node", site(tmp_path, "process")) as node:
        for life in range(LIVES):
            fresh = phantoms(tmp_path / f"sent{life}", INSTANCES, seed=life)
            sent += fresh
            _send_until_killed(node, fresh, acknowledged, chance)
            assert lost(node, sent, acknowledged) == []
            node.start()
        send_shares(node.call(), sent, ASSOCIATIONS, acknowledged)
        assert len(acknowledged) == len(sent)
        assert node.stop() == 0, node.tail()
        assert lost(node, sent, acknowledged) == []


def _send_until_killed(node: Node, objects: list[RawObject], acknowledged: set[str], chance: random.Random) -> None:
    """Kill the node a moment after it has acknowledged some of them, while all associations send."""
    enough = len(acknowledged) + chance.randrange(len(objects))
    senders = threading.Thread(target=send_shares, args=(node.call(), objects, ASSOCIATIONS, acknowledged))
    senders.start()
    wait_until(lambda: len(acknowledged) >= enough or not senders.is_alive(), TIMEOUT_S, "enough was acknowledged")
    time.sleep(chance.uniform(0.0, LONGEST_DELAY_S))
    node.kill()
    senders.join()
