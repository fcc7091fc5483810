"""Made material and recipes cut down to a few steps: the real ones, with small nets and patches."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch

from dicomnode.core.phantom import phantom_study, stored_hu
from trainers.data.patches import Noisy
from trainers.data.series import Credit, Picture, Series
from trainers.recipes.reading import ReadRecipe
from trainers.recipes.recipe import Adversary, StageRecipe
from trainers.training.distributed import World
from trainers.training.pairs import Material
from trainers.training.shop import Shop

CREDIT = Credit("Phantoms", "CC0", "nobody", "made")
SIZE_PX = 96


_SMALL = {
    r"\bsteps = \d{4,}": "steps = 2",
    r"channels = 48, blocks = 4": "channels = 8, blocks = 1",
    r"batch = \d+": "batch = 2",
    r"size_px = \d+": "size_px = 32",
    r"log_steps = \d+": "log_steps = 1",
}
_SOURCE = """[[sources]]
kind = "npz"
files = ["ct/npz/*.npz"]
provenance = "ct/provenance.csv"
"""


def patient(number: int, slices: int = 2) -> Noisy:
    """A few slices of the node's phantom, with white noise in place of a scanner's."""
    rng = np.random.default_rng(number)
    study = phantom_study(rng, slices, SIZE_PX, noise_hu=10.0)
    hu = stored_hu(study)
    series = Series(f"patient-{number}", f"phantom-{number}", hu, (2.0, 3.75, 3.75), None, CREDIT)
    noise = rng.normal(0, 15, (2, *hu.shape)).astype(np.float16)
    return Noisy(series, noise, np.full(slices, 10, np.float32), np.ones(slices, np.float32))


def picture(number: int) -> Picture:
    rng = np.random.default_rng(number)
    return Picture(f"picture-{number}", rng.integers(0, 256, (80, 70), dtype=np.uint8), CREDIT)


def material() -> Material:
    return Material(
        train=tuple(patient(number) for number in range(3)),
        validation=(patient(9),),
        pictures=tuple(picture(number) for number in range(2)),
    )


def shop(folder: Path, said: list[str] | None = None) -> Shop:
    lines = [] if said is None else said
    return Shop(folder, World(), lines.append)


def miniature(read: ReadRecipe, steps: int = 2) -> ReadRecipe:
    """The same recipe with nets of a few channels, patches of 32 px and a few steps."""
    recipe = read.recipe
    return replace(read, recipe=replace(recipe, stages=tuple(_small(stage, steps) for stage in recipe.stages)))


def _small(stage: StageRecipe, steps: int) -> StageRecipe:
    arguments = {**stage.net.arguments, "channels": 8}
    arguments |= {"blocks": 1} if "blocks" in arguments else {}
    arguments |= {"layers": 3} if "layers" in arguments else {}
    patches = replace(stage.patches, batch=4, size_px=32, tissue_share=0.0)
    growth = stage.growth and replace(stage.growth, rounds=2, most=2, candidates=3, gain_db=-99.0, bias_hu=1e6,
                                      edge_modulation=(0.0, 1e6))  # fmt: skip
    return replace(
        stage, steps=steps, net=replace(stage.net, arguments=arguments), patches=patches, growth=growth,
        adversary=stage.adversary and _small_adversary(stage.adversary), checkpoint_steps=2, sample_steps=2,
        log_steps=1, precision="float32",
    )  # fmt: skip


def _small_adversary(adversary: Adversary) -> Adversary:
    size = {"patch_px": 32} if adversary.net == "patch" else {"dense": 8}
    return replace(
        adversary, arguments={**adversary.arguments, "channels": 4, **size}, critic_steps=min(2, adversary.critic_steps)
    )


def states_equal(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    """Bit for bit."""
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(first, second) for first, second in pairs)


def write_images(folder: Path) -> Path:
    """Three patients as npz volumes with their table of licences, and `mine.toml`: the default cut down."""
    (folder / "ct" / "npz").mkdir(parents=True)
    rows = []
    for number in (1, 2, 3):
        series = patient(number).series
        meta = [{"PatientID": f"patient-{number}", "PixelSpacing": [3.75, 3.75], "SliceThickness": 2.0}] * series.slices
        np.savez(
            folder / "ct" / "npz" / f"p{number}.npz", hu=series.hu, z=np.arange(series.slices) * 2.0,
            spacing=np.array([3.75, 3.75]), meta=json.dumps(meta),
        )  # fmt: skip
        rows.append({"file": f"npz/p{number}.npz", "licence": "CC BY 4.0", "collection": "Phantoms",
                     "attribution": f"Maker {number}"})  # fmt: skip
    with (folder / "ct" / "provenance.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    (folder / "mine.toml").write_text(miniature_text(_SOURCE, "patient-1 patient-2", "", "patient-3"))
    return folder


def miniature_text(sources: str, train: str, validation: str, test: str) -> str:
    """The default's recipe cut down, with other sources and other patients: names or patterns, with spaces between."""
    text = files("trainers.recipes").joinpath("ct-denoise.toml").read_text()
    named = zip(("train", "validation", "test"), (train, validation, test), strict=True)
    patients = "".join(f"{split} = {json.dumps(patterns.split())}\n" for split, patterns in named if patterns)
    given = {
        r"(?s)\[\[sources\]\].*?(?=\[patients\])": f"{sources}\n",
        r"(?s)\[patients\].*?\n\n": f"[patients]\n{patients}\n",
    }
    for old, new in {**_SMALL, **given}.items():
        text, count = re.subn(old, new, text)
        assert count, old
    return text
