"""What each `durability` survives: the power is cut at every moment at which the node said success, and at others.

A recorder below the node (recorder.c) notes all it asks of the file system; from that the worst disk is built that a
cut may leave (disk.py), and a store is started on it (outage.py). That the proof can fail is shown by disks that lie.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from dicomnode.store.database import migrate, sqlite_url
from dicomnode.testing.node import Node
from dicomnode.testing.sender import RawObject
from tests.durability import disk, recording
from tests.durability.disk import Fate, Model
from tests.durability.outage import SENT_AGAIN, Recorded, cut_at, losses, lost_at, record, send_shares, site
from tests.end_to_end.studies import phantom_series
from tests.shared import shared_data

pytestmark = pytest.mark.peer("cc")

INSTANCES: Final = 24
FEW_INSTANCES: Final = 8
CT_INSTANCES: Final = 6
RANDOM_MOMENTS: Final = 16
MOMENTS_OF_THE_START: Final = 4
WORST: Final[Mapping[str, Fate]] = {"nothing": disk.nothing}
FATES: Final[Mapping[str, Fate]] = {
    **WORST,
    "names only": disk.names_only,
    "index only": disk.index_only,
    "files only": disk.files_only,
    "everything": disk.everything,
    **{f"chance {seed}": disk.chance(seed) for seed in range(2)},
}


@pytest.fixture(name="recorder", scope="module")
def _recorder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recording.build(tmp_path_factory.mktemp("recorder"))


def phantoms(folder: Path, count: int) -> list[RawObject]:
    return [RawObject.read(path) for path in phantom_series(folder, slices=count)]


@pytest.fixture(name="powered", scope="module")
def _powered(tmp_path_factory: pytest.TempPathFactory, recorder: Path) -> Recorded:
    """A node with `durability = "power"` that took in phantoms."""
    folder = tmp_path_factory.mktemp("powered")
    return record(folder / "node", recorder, "power", phantoms(folder / "sent", INSTANCES))


def test_the_record_holds_all_that_reached_the_disk(tmp_path: Path, powered: Recorded) -> None:
    cut_at(powered, len(powered.records), disk.everything, tmp_path / "replayed")
    assert dict(disk.tree(tmp_path / "replayed" / "data")) == dict(disk.tree(powered.folder / "data"))


def test_power_survives_a_power_cut_at_every_success(powered: Recorded) -> None:
    assert len(powered.successes) == INSTANCES + SENT_AGAIN
    assert lost_at(powered, powered.successes, FATES, Model.STRICT) == []


def test_power_survives_a_power_cut_at_any_moment(powered: Recorded) -> None:
    since_the_first = range(powered.successes[0], len(powered.records))
    moments = random.Random(4711).sample(since_the_first, RANDOM_MOMENTS)
    assert lost_at(powered, moments, FATES, Model.STRICT) == []
    assert lost_at(powered, moments, WORST, Model.ORDERED) == []


@pytest.mark.parametrize("fate", ["nothing", "chance 0"])
def test_a_power_cut_in_the_first_start_leaves_what_can_be_started(
    tmp_path: Path, powered: Recorded, fate: str
) -> None:
    for moment in random.Random(4711).sample(range(powered.successes[0]), MOMENTS_OF_THE_START):
        left = tmp_path / str(moment)
        cut_at(powered, moment, FATES[fate], left)
        (left / "data").mkdir(exist_ok=True)
        migrate(sqlite_url(left / "data"))
        assert losses(left / "data", powered.configuration, powered.sent, set()) == []


@pytest.mark.parametrize("fate", ["nothing", "files only"])
def test_a_node_goes_on_after_a_power_cut(tmp_path: Path, powered: Recorded, fate: str) -> None:
    """What is sent again is stored once, whatever the cut left of it."""
    cut_at(powered, powered.successes[INSTANCES - 4], FATES[fate], tmp_path / "node")
    acknowledged: set[str] = set()
    with Node(tmp_path / "node", site(tmp_path, "power")) as node:
        send_shares(node.call(), list(powered.sent.values()), 4, acknowledged)
        assert node.stop() == 0, node.tail()
    assert acknowledged == powered.sent.keys()
    assert losses(node.data, node.configuration, powered.sent, acknowledged) == []


def test_power_survives_power_cuts_with_slices_of_a_scanner(tmp_path: Path, recorder: Path) -> None:
    paths = sorted(shared_data("ct/dicom/lidc0002").rglob("*.dcm"))[:CT_INSTANCES]
    recorded = record(tmp_path / "node", recorder, "power", [RawObject.read(path) for path in paths])
    assert len(recorded.successes) == CT_INSTANCES + SENT_AGAIN
    assert lost_at(recorded, recorded.successes, FATES, Model.STRICT) == []


@pytest.mark.parametrize(
    ("lie", "complaint"),
    [("files", "is not what was sent"), ("folders", "is not what was sent"), ("log", "is not in the index")],
)
def test_a_disk_that_never_syncs_is_caught(tmp_path: Path, recorder: Path, lie: str, complaint: str) -> None:
    recorded = record(tmp_path / "node", recorder, "power", phantoms(tmp_path / "sent", FEW_INSTANCES), lie)
    lost = lost_at(recorded, recorded.successes, WORST, Model.STRICT)
    assert any(complaint in each for each in lost), lost


@pytest.mark.parametrize("durability", ["process", "none"])
def test_process_and_none_survive_a_killed_process_and_no_power_cut(
    tmp_path: Path, recorder: Path, durability: str
) -> None:
    recorded = record(tmp_path / "node", recorder, durability, phantoms(tmp_path / "sent", FEW_INSTANCES))
    assert lost_at(recorded, recorded.successes, {"everything": disk.everything}, Model.STRICT) == []
    assert lost_at(recorded, recorded.successes[-1:], WORST, Model.STRICT)
