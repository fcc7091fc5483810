"""A store as a receiver has it, on real files, and instances that arrive in it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from sqlalchemy import inspect, select

from dicomnode.core.routing import DestinationPolicy, Routing
from dicomnode.core.rules import RuleSpec, load_rules
from dicomnode.core.types import CompletenessPolicy, Offer, Sender
from dicomnode.store.database import Database, migrate, sqlite_url
from dicomnode.store.files import FileStore
from dicomnode.store.intake import StoreIntake
from dicomnode.store.schema import Base, Instance, Outbox

_Row = TypeVar("_Row", bound=Base)

SCANNER = Sender("scanner", "SCANNER", "DICOMNODE", "10.0.0.1", 1000.0)
PACS = Sender("pacs", "PACS", "DICOMNODE", "10.0.0.2", 2000.0)
TO_PACS = RuleSpec("all to pacs", {"Modality": "*"}, send=("pacs",))
WAITS = CompletenessPolicy(quiet_s=60.0, released_quiet_s=5.0, deadline_s=600.0)


@cache
def _migrated() -> tempfile.TemporaryDirectory[str]:
    """A folder with a migrated database; gone at the end of the tests."""
    folder = tempfile.TemporaryDirectory()
    url = sqlite_url(Path(folder.name))
    migrate(url)
    with closing(Database(url)) as database, database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    return folder


@contextmanager
def open_database(folder: Path) -> Iterator[Database]:
    """A database of its own, with all tables: a copy of one that was migrated once."""
    folder.mkdir(parents=True, exist_ok=True)
    with closing(Database(migrated_url(folder), "none")) as database:
        yield database


def migrated_url(folder: Path) -> str:
    """The URL of a folder's database, made where there is none. Tests that run on a server put theirs in its place."""
    if not (folder / "node.sqlite").exists():
        shutil.copy(Path(_migrated().name) / "node.sqlite", folder)
    return sqlite_url(folder)


def routing(
    *rules: RuleSpec,
    policies: Mapping[str, DestinationPolicy] | None = None,
    waits: CompletenessPolicy = WAITS,
) -> Routing:
    """The rules with two destinations: `pacs`, which leads to the peer of that name, and `archive`."""
    peers = {"pacs": "pacs", "archive": "archive"}
    known = {name: DestinationPolicy(calling_ae="DICOMNODE") for name in peers}
    return Routing(load_rules(rules, peers, ("ct-nlm", "contrast-glcae")), {**known, **(policies or {})}, waits, {})


def ct_header(number: int = 1, **attributes: Any) -> Dataset:
    """The header of one CT slice, 2 mm above the one before; `attributes` replace or (None) remove its own."""
    given: dict[str, Any] = {
        "SOPClassUID": CTImageStorage, "SOPInstanceUID": f"1.2.3.4.{number}",
        "StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4", "Modality": "CT",
        "PatientID": "P1", "PatientName": "Doe^Jane", "AccessionNumber": "A1",
        "ImagePositionPatient": [0, 0, 2 * number], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
    }  # fmt: skip
    dataset = Dataset()
    for keyword, value in {**given, **attributes}.items():
        if value is not None:
            setattr(dataset, keyword, value)
    return dataset


def encoded(dataset: Dataset) -> bytes:
    """The data set in Explicit VR Little Endian, without file meta information."""
    file = DicomBytesIO()
    file.is_little_endian, file.is_implicit_VR = True, False
    write_dataset(file, dataset)
    return file.getvalue()


@dataclass
class Reception:
    """A receiver's store and index."""

    folder: Path
    database: Database
    files: FileStore
    intake: StoreIntake

    def receive(
        self, dataset: Dataset, sender: Sender = SCANNER, *, at: float | None = None, association: int | None = None
    ) -> None:
        """One C-STORE of a data set, in two chunks."""
        self.receive_bytes(dataset, encoded(dataset), sender, at=at, association=association)

    def receive_bytes(
        self,
        announced: Dataset,
        content: bytes,
        sender: Sender = SCANNER,
        *,
        at: float | None = None,
        association: int | None = None,
    ) -> None:
        """One C-STORE of any bytes, announced by the UIDs of a data set."""
        sender = sender if at is None else replace(sender, received_at=at)
        row = self.intake.association_opened(sender) if association is None else association
        incoming = self.intake.begin(
            Offer(sender, row, announced.SOPClassUID, announced.SOPInstanceUID, ExplicitVRLittleEndian)
        )
        middle = len(content) // 2
        incoming.write([content[:middle]])
        incoming.write([memoryview(content)[middle:]])
        incoming.commit()

    def rows(self, kind: type[_Row]) -> Sequence[_Row]:
        with self.database.read() as session:
            return session.scalars(select(kind).order_by(*inspect(kind).primary_key)).all()

    def versions(self, dataset: Dataset) -> list[Instance]:
        """All versions of an instance, in the order of their arrival."""
        return [row for row in self.rows(Instance) if row.sop_instance_uid == dataset.SOPInstanceUID]

    def outbox(self) -> list[tuple[str, str, str]]:
        """(destination, SOP Instance UID, state) of each outbox row."""
        uids = {row.id: row.sop_instance_uid for row in self.rows(Instance)}
        return [(row.destination, uids[row.instance_row], row.state) for row in self.rows(Outbox)]


@contextmanager
def receiving(folder: Path, routes: Routing | None = None) -> Iterator[Reception]:
    """A receiver that takes in what a test gives it."""
    with open_database(folder) as database:
        files = FileStore(folder, 0, sync=False)
        yield Reception(folder, database, files, StoreIntake(database, files, routes or routing(TO_PACS)))
