"""`dicomnode demo`: a phantom CT study through the real node, over real associations, told line by line.

    scanner (our C-STORE sender) -> node (`dicomnode serve`, in processes of its own) -> archive (a second AE)

The node is configured by a file and asked by the same operations as any other; nothing here takes part in its work.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from dicomnode.config import Config, load_config
from dicomnode.core.phantom import phantom_study
from dicomnode.core.routing import Routing
from dicomnode.core.rules import load_rules
from dicomnode.core.types import CompletenessPolicy
from dicomnode.deliver.dicom import DeliverySettings, DicomDeliverer
from dicomnode.errors import NotFoundError, UsageError, WorkerError
from dicomnode.net.scp.server import StorageServer
from dicomnode.net.scp.settings import ScpSettings
from dicomnode.net.scu import PeerAddress
from dicomnode.operations.files import as_outgoing
from dicomnode.operations.status import Status, status
from dicomnode.operations.why import SeriesStory, why
from dicomnode.pixels.decode import decode
from dicomnode.pixels.read import read_dataset
from dicomnode.settings import DerivedSettings
from dicomnode.store.database import Database, migrate, sqlite_url
from dicomnode.store.files import FileStore
from dicomnode.store.index import overview
from dicomnode.store.intake import StoreIntake

Tell = Callable[[str], None]

_SLICES: Final = 6
_SIZE: Final = 320
_NOISE_HU: Final = 30.0
_TIMEOUT_S: Final = 60.0
_WINDOW: Final = (40.0, 400.0)
"""Centre and width in HU of the picture: soft tissue."""

_MARK: Final = "# written by `dicomnode demo`; the node it describes has ended"
_CONFIGURATION: Final = """
[node]
ae_title = "DICOMNODE"
host = "127.0.0.1"
port = {port}
data = "node"

[limits]
disk_reserve = "50 MB"

[completeness]
released_quiet_s = 0.3

[peer.ct1]
ae_title = "CT1"
host = "127.0.0.1"

[peer.archive]
ae_title = "ARCHIVE"
host = "127.0.0.1"
port = {archive_port}

[destination.archive]
peer = "archive"

[[rule]]
name = "thin CT"
match = {{ peer = "ct1", Modality = "CT", SliceThickness = "<= 3", ImageType = "ORIGINAL" }}
engines = ["ct-denoise"]
send = ["archive"]
"""


@dataclass(frozen=True)
class _Archive:
    """The second AE: the same receiver as the node's, with no rules."""

    database: Database
    files: FileStore
    port: int


def run_demo(folder: Path, derived: DerivedSettings, tell: Tell) -> bool:
    """Run the demonstration in `folder`, new or left by one before; whether everything arrived.

    Raises UsageError where the folder holds anything else: only what a demonstration made is ever removed.

    derived  how derived series are named and marked: a site's own settings, or the defaults
    """
    _clear(folder)
    folder.mkdir(parents=True)
    source = folder / "dicomnode.toml"
    source.write_text(_MARK)  # first, so that also a demonstration that was killed may be removed
    with _archive(folder / "archive") as archive:
        port = _free_port()
        source.write_text(_MARK + _CONFIGURATION.format(port=port, archive_port=archive.port) + _derived_table(derived))
        config = load_config(source)
        with _node(config, folder / "node.log") as node:
            sent = _write_phantom(folder / "scanner")  # while the node starts
            _await_port(node, port, folder / "node.log")
            tell(f"node      DICOMNODE listens on 127.0.0.1:{port}; ARCHIVE, a second AE, on {archive.port}")
            _scan(sent, PeerAddress("127.0.0.1", port, "DICOMNODE"), tell)
            told = _finished(config)
            node.send_signal(signal.SIGTERM)  # its index tells the rest, while it ends
            story, made = _stories(config, sent[0])
            _tell_story(story, made, tell)
            _tell_delivery(told, tell)
            return _tell_end(folder, (sent, _arrived(archive)), made, tell)


def _clear(folder: Path) -> None:
    """Remove what a demonstration left; nothing else is ever removed."""
    mark = folder / "dicomnode.toml"
    ours = mark.is_file() and mark.read_text(errors="replace").startswith(_MARK)
    if folder.is_dir() and any(folder.iterdir()) and not ours:
        raise UsageError(f"{folder} is not empty", "name a folder that is new or empty: --folder FOLDER")
    if folder.is_dir():
        shutil.rmtree(folder)


def _scan(paths: list[Path], node: PeerAddress, tell: Tell) -> None:
    """Send the phantom as a scanner does: one association."""
    started = time.monotonic()
    scanner = DicomDeliverer(node, DeliverySettings(associations=1))
    try:
        batch = [as_outgoing(index, path, "CT1") for index, path in enumerate(paths)]
        receipts = [receipt for known in scanner.deliver(batch) for receipt in known]
    finally:
        scanner.close()
    stored = sum(receipt.outcome.arrived for receipt in receipts)
    tell(f"scanner   CT1 sent {len(paths)} slices by C-STORE; {stored} stored durably in {_since(started)}")


def _finished(config: Config) -> Status:
    """Wait until the node has nothing left to do."""
    deadline = time.monotonic() + _TIMEOUT_S
    while time.monotonic() < deadline:
        now = status(config)
        busy = now.counts["series_arriving"] + now.jobs["planned"] + now.jobs["enhanced"]
        waiting = sum(destination.ready + destination.held for destination in now.destinations)
        ended = now.counts["series_derived"] or now.jobs["refused"] + now.jobs["withheld"] + now.jobs["failed"]
        if now.counts["instances_received"] and ended and not busy and not waiting:
            return now
        time.sleep(0.2)
    raise WorkerError(f"the node did not finish within {_TIMEOUT_S:.0f} s", "see node.log beside the configuration")


def _stories(config: Config, sent: Path) -> tuple[SeriesStory, SeriesStory]:
    story = why(config, str(sent)).series[0]
    made = [uid for job in story.jobs for uid in job.derived_series]
    if not made:
        raise NotFoundError("nothing was derived", "; ".join(line.strip() for line in story.lines(each_check=True)))
    return story, why(config, made[0]).series[0]


def _tell_story(story: SeriesStory, derived: SeriesStory, tell: Tell) -> None:
    job = story.jobs[0]
    tell(f"arrived   {story.arrival[0]}")
    tell(f"closed    {story.completeness[0]}")
    tell(f"rule      {', '.join(job.rules)!r} matched:")
    for line in story.decisions:
        if line.strip().startswith("ok "):
            tell(f"          {line.strip()}")
    passed = len(job.gates) - len(job.failed_gates)
    tell(f"engine    {', '.join(job.engines)}; {passed} of {len(job.gates)} checks before and after it passed, so:")
    for gate in (gate for gate in job.gates if " HU on the mean" in gate or "noise goes" in gate):
        tell(f"          {gate.partition(': ')[2]}")
    tell(f"derived   {derived.arrival[0]}")


def _tell_delivery(told: Status, tell: Tell) -> None:
    for destination in told.destinations:
        tell(f"delivered {destination.sent} instances to {destination.name}, {destination.failed} failed")


def _tell_end(folder: Path, paths: tuple[list[Path], list[Path]], derived: SeriesStory, tell: Tell) -> bool:
    sent, arrived = paths
    by_uid = {str(read_dataset(path, with_pixels=False).SOPInstanceUID): path for path in arrived}
    middle = sent[len(sent) // 2]
    source = read_dataset(middle, with_pixels=False)
    results = [path for path in arrived if _series_of(path) == derived.series_instance_uid]
    result = next((path for path in results if _position(path) == list(source.ImagePositionPatient)), None)
    if result is None or str(source.SOPInstanceUID) not in by_uid:
        tell("FAILED    the archive does not hold what was sent and derived")
        return False
    before, after = _hounsfield(by_uid[str(source.SOPInstanceUID)]), _hounsfield(result)
    tell(
        f"noise     {_noise_hu(before):.1f} HU before, {_noise_hu(after):.1f} HU after, measured in the archive's files"
    )
    picture = folder / "before-after.png"
    cv2.imwrite(str(picture), np.hstack([_shown(before), _shown(after)]))
    tell(f"archive   holds {len(arrived) - len(results)} originals and {len(results)} derived instances")
    tell(f"picture   {picture}")
    tell(f"next      {_program()} why {source.SeriesInstanceUID} --config {folder / 'dicomnode.toml'}")
    return len(arrived) == 2 * len(sent)


@contextmanager
def _archive(folder: Path) -> Iterator[_Archive]:
    folder.mkdir()
    url = sqlite_url(folder)
    migrate(url)
    database, files = Database(url), FileStore(folder, reserve_bytes=0, sync=True)
    routing = Routing(load_rules((), destinations={}, engines=()), {}, CompletenessPolicy(), {})
    intake = StoreIntake(database, files, routing)
    server = StorageServer(ScpSettings(("ARCHIVE",), "127.0.0.1", 0, accept_unknown=True), intake)
    server.start()
    try:
        yield _Archive(database, files, server.port)
    finally:
        server.stop(1.0)
        database.close()


@contextmanager
def _node(config: Config, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`dicomnode serve` as a process, from its start to its clean end."""
    with log.open("wb") as output:
        node = subprocess.Popen(
            [sys.executable, "-m", "dicomnode", "serve", "--config", str(config.source)],
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            env={name: text for name, text in os.environ.items() if not name.startswith("DICOMNODE_")},
        )
    try:
        yield node
    finally:
        node.send_signal(signal.SIGTERM)
        node.wait()


def _await_port(node: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _TIMEOUT_S
    while node.poll() is None and time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise WorkerError("the node did not start", f"see {log}")


def _derived_table(derived: DerivedSettings) -> str:
    """`[derived]` as TOML: JSON's texts and numbers are TOML's."""
    lines = (f"{key} = {json.dumps(value)}" for key, value in derived.model_dump().items())
    return "\n".join(["\n[derived]", *lines]) + "\n"


def _program() -> str:
    """What to type for this program: its path where it is not found by its name."""
    if shutil.which("dicomnode"):
        return "dicomnode"
    beside = Path(sys.executable).parent / "dicomnode"
    return str(beside.relative_to(Path.cwd()) if beside.is_relative_to(Path.cwd()) else beside)


def _write_phantom(folder: Path) -> list[Path]:
    folder.mkdir()
    paths = []
    for index, dataset in enumerate(phantom_study(np.random.default_rng(7), _SLICES, _SIZE, _NOISE_HU)):
        paths.append(folder / f"{index:03d}.dcm")
        dataset.save_as(paths[-1], enforce_file_format=True)
    return paths


def _arrived(archive: _Archive) -> list[Path]:
    with archive.database.read() as session:
        return [archive.files.path(instance.file) for instance in overview.all_instances(session)]


def _series_of(path: Path) -> str:
    return str(read_dataset(path, with_pixels=False).SeriesInstanceUID)


def _position(path: Path) -> list[float]:
    return list(read_dataset(path, with_pixels=False).ImagePositionPatient)


def _hounsfield(path: Path) -> NDArray[np.float32]:
    dataset = read_dataset(path, with_pixels=True)
    return (decode(dataset) * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)).astype(np.float32)


def _noise_hu(slice_hu: NDArray[np.float32]) -> float:
    """Standard deviation in the middle of the phantom's body, which is flat there."""
    size = slice_hu.shape[0]
    half = size // 40
    middle = slice(size // 2 - half, size // 2 + half)
    return float(slice_hu[middle, middle].std())


def _shown(slice_hu: NDArray[np.float32]) -> NDArray[np.uint8]:
    centre, width = _WINDOW
    return ((slice_hu - (centre - width / 2)) / width * 255).clip(0, 255).astype(np.uint8)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _since(started: float) -> str:
    return f"{time.monotonic() - started:.2f} s"
