"""An engine process for tests: engines that tell what they are given, and sleep, die, hang or eat as they are named.

Voxels say whose they are: 1000 x job + slice. Each run appends a line of them to `ran` in the folder.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

from dicomnode.inference.opening import Opened
from dicomnode.inference.process import EngineProcess
from dicomnode.inference.warm import Keeping, WarmEngines
from dicomnode.workers import Operation
from engines.base import Value
from engines.card import EngineCard, Envelope, Limits, Port, Setting, SettingValue
from engines.errors import EngineInputError, RuntimeFailedError
from engines.volume import Volume

CARD = EngineCard(
    name="plus",
    version="1.0.0",
    task="image",
    operation="denoise",
    intended_use="tests",
    influence="slice",
    inputs={"image": Port()},
    outputs={"image": Port()},
    envelope=Envelope(rows_columns=(1, 4096)),
    limits=Limits(**dict.fromkeys(field.name for field in fields(Limits))),
    settings={"add": Setting(0.5, "what is added", 0.0, 1.0)},
)

KEEPING: Final = Keeping(8 << 30, 3600.0)


@dataclass(frozen=True)
class Plus:
    """Adds to every voxel; `name` says what else it does."""

    name: str
    folder: Path

    @property
    def card(self) -> EngineCard:
        return replace(CARD, name=self.name, influence="volume" if self.name == "whole" else "slice")

    def run(self, inputs: Mapping[str, Value], settings: Mapping[str, SettingValue]) -> Mapping[str, Value]:
        volume = inputs["image"]
        assert isinstance(volume, Volume)
        slices = [str(int(value)) for value in volume.voxels[:, 0, 0]]
        self._note("ran", f"{os.getpid()} {' '.join(slices)}")
        self._misbehave(slices)
        return {"image": volume.with_voxels(volume.voxels + float(settings["add"]))}

    def _misbehave(self, slices: list[str]) -> None:
        if self.name == "slow":
            time.sleep(0.05)
        if self.name == "waits" or (self.name == "refuses-second" and int(slices[0]) % 1000 > 0):
            while not (self.folder / "go").exists():
                time.sleep(0.005)
        if self.name == "hangs":
            time.sleep(600)
        if self.name == "dies" or (self.name == "dies-once" and self._is_first()):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.name == "dies-of-1000" and any(1000 <= int(value) < 2000 for value in slices):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.name == "faults-once" and self._is_first():
            raise RuntimeFailedError("the device fell off the bus", "look at the driver")
        if self.name == "eats-once" and self._is_first():
            bytearray(64 << 30)
        if self.name == "refuses-second" and int(slices[0]) % 1000 > 0:
            raise EngineInputError("not this one", "give another")
        if self.name == "refuses-1000" and any(1000 <= int(value) < 2000 for value in slices):
            raise EngineInputError("not this one", "give another")

    def _is_first(self) -> bool:
        try:
            (self.folder / "once").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def _note(self, file: str, line: str) -> None:
        with (self.folder / file).open("a") as notes:
            notes.write(f"{line}\n")


class Telling(EngineProcess):
    """Takes several jobs' slabs at once, and notes of how many."""

    def __init__(self, folder: Path) -> None:
        super().__init__(WarmEngines(lambda source: Opened(Plus(source, folder), lambda: None), KEEPING))
        self._folder = folder

    def prepare(self, engine: str, settings: Mapping[str, SettingValue]) -> dict[str, Any]:
        return {**super().prepare(engine, settings), "joinable": True}

    def run(
        self, engine: str, digest: str, settings: Mapping[str, SettingValue], parts: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        with (self._folder / "batches").open("a") as notes:
            notes.write(f"{len(parts)}\n")
        return super().run(engine, digest, settings, parts)


def operations(folder: str) -> Mapping[str, Operation]:
    process = Telling(Path(folder))
    return {"describe": process.describe, "prepare": process.prepare, "run": process.run}
