"""Training runs as a process of their own, to be killed or to be one of several:

python -m tests.trainers.training.child RECIPE STEPS FOLDER...    one after another; 1 is returned where one was refused
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from tests.trainers.made import material, miniature
from trainers.errors import TrainerError
from trainers.recipes.reading import read_recipe
from trainers.training.distributed import joined_world
from trainers.training.shop import Shop
from trainers.training.stages import train_recipe


def main(recipe: str, steps: str, *folders: str) -> int:
    torch.set_num_threads(1)
    read, refused = miniature(read_recipe(recipe), int(steps)), 0
    with joined_world("cpu") as world:
        for folder in folders:
            try:
                train_recipe(read, material(), Shop(Path(folder), world, lambda line: print(line, flush=True)))
            except TrainerError as error:
                print(error, flush=True)
                refused = 1
    return refused


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
