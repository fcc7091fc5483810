"""CPU seconds a slice of each engine, and of the gate behind it, on one core."""

from __future__ import annotations

import statistics
import time

import cv2
import numpy as np

from bench.results import Results
from bench.rounds import Surroundings
from dicomnode.core import guards
from dicomnode.core.phantom import phantom_study, stored_hu
from dicomnode.testing.bundles import opened
from engines.base import Engine
from engines.registry import default_registry
from engines.volume import HU, Volume

SLICES = 6


def run(surroundings: Surroundings, results: Results) -> None:
    """One phantom stack of 512 x 512, every engine by turns. The figures are facts."""
    cv2.setNumThreads(1)
    volume = phantom_volume()
    registry = default_registry(opener=opened)
    seconds: dict[str, list[float]] = {}
    for _ in range(surroundings.rounds):
        for name in registry.names():
            running, judging = measured(registry.get(name), volume)
            seconds.setdefault(name, []).append(running)
            seconds.setdefault(f"{name}, gate after", []).append(judging)
    for name, rounds in sorted(seconds.items()):
        results.facts[f"{name}: CPU s a slice of 512 x 512, one core"] = statistics.median(rounds) / SLICES


def measured(engine: Engine, volume: Volume) -> tuple[float, float]:
    """CPU seconds of the engine, and of judging what it made."""
    settings = engine.card.resolve({})
    started = time.process_time()
    output = engine.run({"image": volume}, settings)["image"]
    ran = time.process_time()
    assert isinstance(output, Volume)
    guards.after(engine.card, volume, output)
    return ran - started, time.process_time() - ran


def phantom_volume() -> Volume:
    study = phantom_study(np.random.default_rng(1), SLICES, 512)
    affine = np.diag([*map(float, study[0].PixelSpacing), 2.0, 1.0])
    return Volume(stored_hu(study).astype(np.float32), affine, HU)
