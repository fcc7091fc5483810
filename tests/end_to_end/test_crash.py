"""kill -9 anywhere: after a restart the work goes on, nothing is lost, and the PACS sees everything once.

The scanner behaves as scanners do: what was not acknowledged it sends again. What a calm run delivers is what every
other run must deliver, to the last pixel.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from dicomnode.faults import POINTS
from dicomnode.testing.node import Node, settings
from dicomnode.testing.peers import Call, Orthanc
from dicomnode.testing.processes import wait_until
from dicomnode.testing.sender import NoContextError, RawObject, RawSender, echo
from tests.end_to_end.observation import TIMEOUT_S, wait_for_instances
from tests.end_to_end.studies import phantom_series

SLICES = 3
RULE = {"name": "denoise", "match": {"Modality": "CT"}, "engines": ["ct-nlm"], "send": ["pacs"]}
RANDOM_KILLS = 20
LONGEST_LIFE_S = 3.0


def send_unacknowledged(call: Call, series: Iterable[RawObject], acknowledged: set[str]) -> None:
    """Send what `acknowledged` lacks and note what is answered with success; give up where the node is gone."""
    missing = [each for each in series if each.sop_instance_uid not in acknowledged]
    if not missing:
        return
    try:
        with RawSender(call, missing) as sender:
            for each in missing:
                if sender.store(each) != 0:
                    return
                acknowledged.add(each.sop_instance_uid)
    except (NoContextError, RuntimeError):
        return  # the node died while we called it


@pytest.fixture(name="series", scope="module")
def _series(tmp_path_factory: pytest.TempPathFactory) -> list[RawObject]:
    return [RawObject.read(path) for path in phantom_series(tmp_path_factory.mktemp("phantom"), slices=SLICES)]


def delivered_calmly(folder: Path, series: list[RawObject], count: int) -> dict[str, str]:
    """Pixel digests by SOP Instance UID of all that a node delivers that nobody kills."""
    with Orthanc(folder / "pacs", "PACS") as pacs, Node(folder / "node", settings({"pacs": pacs}, [RULE])) as node:
        send_unacknowledged(node.call(), series, set())
        wait_for_instances(node, pacs, count)
        return pacs.pixel_digests()


@pytest.fixture(name="expected", scope="module")
def _expected(tmp_path_factory: pytest.TempPathFactory, series: list[RawObject]) -> dict[str, str]:
    return delivered_calmly(tmp_path_factory.mktemp("calm"), series, 2 * SLICES)


@pytest.mark.peer("orthanc")
@pytest.mark.parametrize("point", POINTS)
def test_a_kill_at_each_point_loses_and_doubles_nothing(
    tmp_path: Path, pacs: Orthanc, series: list[RawObject], expected: dict[str, str], point: str
) -> None:
    acknowledged: set[str] = set()
    with Node(tmp_path / "node", settings({"pacs": pacs}, [RULE]), kill_at=point) as node:
        send_unacknowledged(node.call(), series, acknowledged)
        wait_until(lambda: not node.running, TIMEOUT_S, f"the node was killed at {point}")
        node.kill()
        node.start()
        send_unacknowledged(node.call(), series, acknowledged)
        wait_for_instances(node, pacs, len(expected))
    assert pacs.sop_instance_uids() == sorted(expected)
    assert pacs.pixel_digests() == expected


@pytest.mark.peer("orthanc")
@pytest.mark.parametrize("role", ["receive-1", "deliver", "flow"])
def test_one_process_that_is_killed_is_started_again_and_the_work_goes_on(
    tmp_path: Path, pacs: Orthanc, series: list[RawObject], expected: dict[str, str], role: str
) -> None:
    acknowledged: set[str] = set()
    with Node(tmp_path / "node", settings({"pacs": pacs}, [RULE])) as node:
        killed = pid_of(node, role)
        send_unacknowledged(node.call(), series[:1], acknowledged)
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: pid_of(node, role) not in (None, killed), TIMEOUT_S, f"{role} was started again")
        wait_until(lambda: echo(node.call()), TIMEOUT_S, "the node answered again")
        send_unacknowledged(node.call(), series, acknowledged)
        assert len(acknowledged) == len(series)
        wait_for_instances(node, pacs, len(expected))
        assert node.running
        assert all(process["alive"] for process in node.status()["processes"])
    assert pacs.sop_instance_uids() == sorted(expected)
    assert pacs.pixel_digests() == expected


def pid_of(node: Node, role: str) -> int | None:
    """The process that has a role; None while none has."""
    return next((one["pid"] for one in node.status()["processes"] if one["role"] == role), None)


def moments() -> Iterator[float]:
    """Seconds of life before each kill."""
    random_moments = random.Random(20260101)
    for _ in range(RANDOM_KILLS):
        yield random_moments.uniform(0.0, LONGEST_LIFE_S)


@pytest.mark.peer("orthanc")
def test_kills_at_random_moments_lose_and_double_nothing(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, pacs: Orthanc
) -> None:
    """One node lives through all of them: each life gets a new series, and what the ones before left unfinished."""
    studies = [
        [RawObject.read(path) for path in phantom_series(tmp_path / f"scan{seed}", slices=2, seed=seed)]
        for seed in range(RANDOM_KILLS)
    ]
    everything = [each for study in studies for each in study]
    expected = delivered_calmly(tmp_path_factory.mktemp("calm"), everything, 2 * len(everything))
    acknowledged: set[str] = set()
    with Node(tmp_path / "node", settings({"pacs": pacs}, [RULE])) as node:
        for life, life_s in enumerate(moments()):
            started_at = time.monotonic()
            send_unacknowledged(node.call(), [each for study in studies[: life + 1] for each in study], acknowledged)
            time.sleep(max(0.0, started_at + life_s - time.monotonic()))
            node.kill()
            node.start()
        send_unacknowledged(node.call(), everything, acknowledged)
        assert len(acknowledged) == len(everything)
        wait_for_instances(node, pacs, len(expected))
    assert pacs.sop_instance_uids() == sorted(expected)
    assert pacs.pixel_digests() == expected
