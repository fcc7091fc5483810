"""Scanners: each sends its series one after the other, and what was not answered with success again, until it was."""

from __future__ import annotations

import random
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydicom import dcmread

from bench.studies import CT, MARKER, Kind, written
from bench.wire import Association, BrokenError, Sent, read
from dicomnode.testing.node import NODE_AE, SCANNER_AE

SMALL: Final = Kind("CT 128 x 128", CT.sop_class_uid, 128)
_PIXEL_MM: Final = 1.5
_MOST_SLICES: Final = 8
_FEWEST_SLICES: Final = 4
_RETRY_S: Final = 0.5
_PATIENCE_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class Series:
    """One series to send."""

    uid: str
    instances: tuple[Sent, ...]


@dataclass
class Sending:
    """How sending a series went; times are seconds since the epoch. `acknowledged_at` is None until all of it was."""

    series: Series
    began_at: float | None = None
    acknowledged_at: float | None = None
    acknowledged: set[str] = field(default_factory=set)
    failures: int = 0


def generated(count: int, seed: int) -> list[Series]:
    """Series of 4 to 8 small slices under UIDs of their own, the same for the same seed."""
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as made:
        paths = written(Path(made) / "study", SMALL, _MOST_SLICES)
        for path in paths:
            dataset = dcmread(path)
            dataset.PixelSpacing = [_PIXEL_MM, _PIXEL_MM]
            dataset.save_as(path, enforce_file_format=True)
        uid = str(dcmread(paths[0]).SeriesInstanceUID)
        prototypes = [read(path) for path in paths]
    stamps = [str(10**19 + draw.randrange(10**18)) for _ in range(count)]
    return [
        Series(
            uid.replace(MARKER, stamp),
            tuple(each.renamed(MARKER, stamp) for each in prototypes[: draw.randint(_FEWEST_SLICES, _MOST_SLICES)]),
        )
        for stamp in stamps
    ]


class Scanner:
    """A thread that sends its series in a span of time.

    Some come over one association, some over one for each image, some out of order, some a second time.
    """

    def __init__(self, port: int, series: Sequence[Series], span_s: float, seed: int) -> None:
        self.sendings = [Sending(each) for each in series]
        self._port = port
        self._span_s = span_s
        self._draw = random.Random(seed)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        began = time.monotonic()
        pause_s = self._span_s / max(1, len(self.sendings))
        for number, sending in enumerate(self.sendings):
            time.sleep(max(0.0, began + number * pause_s - time.monotonic()))
            self._send(sending)

    def _send(self, sending: Sending) -> None:
        """Send a series until all of it was answered with success, or no more can be hoped for."""
        instances = list(sending.series.instances)
        if self._draw.random() < 0.3:
            self._draw.shuffle(instances)
        if self._draw.random() < 0.2:
            instances += instances[: len(instances) // 2]
        at_once = self._draw.random() < 0.7
        give_up_at = time.monotonic() + _PATIENCE_S
        sending.began_at = time.time()
        while instances and time.monotonic() < give_up_at:
            for share in [instances] if at_once else [[each] for each in instances]:
                self._try(sending, share)
            instances = [each for each in instances if each.sop_instance_uid not in sending.acknowledged]
            if instances:
                sending.failures += 1
                time.sleep(_RETRY_S)
        if not instances:
            sending.acknowledged_at = time.time()

    def _try(self, sending: Sending, instances: Sequence[Sent]) -> None:
        """One association; what was answered with success is noted, whatever came after."""
        with suppress(BrokenError):
            association = Association(self._port, NODE_AE, SCANNER_AE, {each.context for each in instances})
            try:
                for each in instances:
                    if association.store(each) == 0:
                        sending.acknowledged.add(each.sop_instance_uid)
                association.release()
            finally:
                association.close()


def sendings(scanners: Sequence[Scanner]) -> Iterator[Sending]:
    """Of all scanners."""
    for scanner in scanners:
        yield from scanner.sendings
