"""A node whose file system calls are recorded while senders send, and what of it a power cut at any moment leaves."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from sqlalchemy import select, text

from dicomnode.config import load_config
from dicomnode.serve import wiring
from dicomnode.store.intake import StoreIntake
from dicomnode.store.schema import Instance
from dicomnode.testing.node import Node, settings
from dicomnode.testing.peers import Call, StoreScp
from dicomnode.testing.sender import NoContextError, RawObject, RawSender
from tests.durability import recording
from tests.durability.disk import Disk, Fate, Model
from tests.durability.recording import Answer, Record

SENT_AGAIN: Final = 4
KEEPS: Final = {"name": "keep", "match": {"Modality": "MR"}, "send": ["nowhere"]}


def site(folder: Path, durability: str) -> dict[str, object]:
    """The settings of a node that keeps what it is sent."""
    nowhere = StoreScp(folder / "nowhere", "NOWHERE")  # a destination must be named; it is never started or sent to
    return settings({"nowhere": nowhere}, [KEEPS], node={"durability": durability})


def send_shares(call: Call, objects: Sequence[RawObject], associations: int, acknowledged: set[str]) -> None:
    """Send over so many associations at once, each its share, until the node is gone; note what it acknowledges."""

    def send(share: Sequence[RawObject]) -> None:
        try:
            with RawSender(call, share) as sender:
                for each in share:
                    if sender.store(each) != 0:
                        return
                    acknowledged.add(each.sop_instance_uid)
        except (NoContextError, RuntimeError):
            return  # the node died while we called it

    shares = [objects[number::associations] for number in range(associations)]
    threads = [threading.Thread(target=send, args=(share,)) for share in shares if share]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@dataclass(frozen=True)
class Recorded:
    """One life of a node: its record, what was sent to it, and the folder above its data."""

    records: Sequence[Record]
    sent: Mapping[str, RawObject]
    folder: Path
    configuration: Path

    @cached_property
    def answers(self) -> list[Answer]:
        """The answers that said success."""
        return [answer for answer in recording.store_answers(self.records) if answer.status == 0]

    @property
    def successes(self) -> list[int]:
        """The moments at which the node was about to say success."""
        return [answer.at for answer in self.answers]

    def cuts(self, moments: Sequence[int], model: Model) -> Iterator[tuple[int, Disk, set[str]]]:
        """At each moment (a number of records that were done): the disk, and what had been acknowledged."""
        disk = Disk(self.folder.stat().st_ino, model)
        done = 0
        for moment in sorted(moments):
            for record in self.records[done:moment]:
                disk.play(record)
            done = moment
            yield moment, disk, {answer.sop_instance_uid for answer in self.answers if answer.at <= moment}


def record(folder: Path, library: Path, durability: str, objects: Sequence[RawObject], ignores: str = "") -> Recorded:
    """Let a node take a first half over one association, the rest over four and some again, and end in good order."""
    folder.mkdir()
    log = folder.parent / f"{folder.name}.log"
    environment = recording.surroundings(library, folder / "data", log, ignores)
    half = len(objects) // 2
    acknowledged: set[str] = set()
    with Node(folder, site(folder, durability), environment=environment) as node:
        send_shares(node.call(), objects[:half], 1, acknowledged)
        send_shares(node.call(), objects[half:], 4, acknowledged)
        send_shares(node.call(), objects[:SENT_AGAIN], 2, acknowledged)
        assert node.stop() == 0, node.tail()
    sent = {each.sop_instance_uid: each for each in objects}
    assert acknowledged == sent.keys(), node.tail()
    return Recorded(recording.read(log), sent, folder, node.configuration)


def losses(folder: Path, configuration: Path, sent: Mapping[str, RawObject], acknowledged: set[str]) -> list[str]:
    """What a store that is started on a data folder lacks, presents though it was never sent so, or leaves lying."""
    try:
        stored = recovered(folder, configuration)
    except Exception as error:  # noqa: BLE001  whatever a store trips over, it did not survive
        return [f"the store does not start: {type(error).__name__}: {error}"]
    missing = [f"{uid} was acknowledged and is not in the index" for uid in sorted(acknowledged - stored.keys())]
    wrong = [f"{uid} is not what was sent" for uid, path in sorted(stored.items()) if _read(path) != sent.get(uid)]
    strays = set((folder / "objects").rglob("*.dcm")) - set(stored.values())
    return missing + wrong + [f"{stray.name} has no row" for stray in sorted(strays)]


def recovered(folder: Path, configuration: Path) -> dict[str, Path]:
    """Start a store as all receivers do: the file of each instance that its index presents, by SOP Instance UID."""
    config = load_config(configuration)
    node = config.node.model_copy(update={"data": folder, "durability": "none"})
    config = config.model_copy(update={"node": node})
    for number in range(wiring.receivers(config)):
        process = f"receive-{number + 1}"
        store = wiring.open_store(config, process)
        with closing(store.database):
            StoreIntake(store.database, store.files, wiring.routing(config), wiring.owner(config, process)).recover()
    with closing(store.database) as database, database.read() as session:
        (verdict,) = session.execute(text("PRAGMA integrity_check")).one()
        if verdict != "ok":
            raise ValueError(f"integrity_check: {verdict}")
        rows = session.scalars(select(Instance).where(Instance.active)).all()
        return {row.sop_instance_uid: store.files.path(row.file) for row in rows}


def _read(path: Path) -> RawObject | None:
    return RawObject.read(path) if path.is_file() else None


def lost_at(recorded: Recorded, moments: Sequence[int], fates: Mapping[str, Fate], model: Model) -> list[str]:
    """What power cuts at these moments cost, under each of these fates."""
    lost = []
    for moment, disk, acknowledged in recorded.cuts(moments, model):
        for name, fate in fates.items():
            with tempfile.TemporaryDirectory(dir=recorded.folder.parent) as left:
                disk.materialise(Path(left), fate)
                found = losses(Path(left) / "data", recorded.configuration, recorded.sent, acknowledged)
            lost += [f"power cut at {moment}, {name} of what was not safe is left: {loss}" for loss in found]
    return lost


def cut_at(recorded: Recorded, moment: int, fate: Fate, into: Path) -> None:
    """Make the folder that a power cut leaves."""
    into.mkdir()
    for _, disk, _ in recorded.cuts([moment], Model.STRICT):
        disk.materialise(into, fate)
