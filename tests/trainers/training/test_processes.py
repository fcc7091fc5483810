"""What only real processes show: going on after kill -9, and several that train as one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch import distributed
from torch.distributed.run import parse_args

from tests.trainers.made import material, miniature, shop, states_equal
from trainers.cli import train
from trainers.errors import RecipeError, SourceError, TrainerError
from trainers.recipes.reading import read_recipe
from trainers.training.distributed import World, joined_world
from trainers.training.stages import begin, train_recipe

_ROOT = Path(__file__).resolve().parents[3]
_STEPS = 12
_HANGS_S = 600
"""Longer than the busiest machine takes."""


def _child(recipe: str, steps: int, *folders: Path, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.trainers.training.child", recipe, str(steps), *map(str, folders)]
    return subprocess.Popen(
        command, cwd=_ROOT, env={**os.environ, "OMP_NUM_THREADS": "1", **environment}, stdout=subprocess.PIPE, text=True
    )


def test_a_killed_run_goes_on_to_the_same_weights_bit_for_bit(tmp_path: Path) -> None:
    """A generator, its critic and both optimisers are killed in the middle, and go on in another process."""
    child = _child("cascade-lsgan", _STEPS, tmp_path / "killed")
    assert child.stdout is not None
    for line in child.stdout:
        if f"step 5/{_STEPS}" in line:
            break
    child.kill()
    child.wait()
    child.stdout.close()
    assert not (tmp_path / "killed" / "lsgan" / "net.pt").exists()

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    read, said = miniature(read_recipe("cascade-lsgan"), _STEPS), list[str]()
    resumed = train_recipe(read, material(), shop(tmp_path / "killed", said))
    whole = train_recipe(read, material(), shop(tmp_path / "whole"))
    torch.set_num_threads(threads)
    assert not any("step 1/" in line for line in said)
    assert states_equal(resumed["lsgan"], whole["lsgan"])


@dataclass(frozen=True)
class _Together:
    """Two processes that train as one, first in a folder each, then in one that both see."""

    shared: Path
    returned: list[int]
    told: list[str]


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> _Together:
    folder = tmp_path_factory.mktemp("together")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    children = [
        _child("ct-denoise", 4, folder / rank, folder / "shared", RANK=rank, LOCAL_RANK=rank, **world)
        for rank in ("0", "1")
    ]
    told = [child.communicate(timeout=_HANGS_S)[0] for child in children]
    return _Together(folder / "shared", [child.returncode for child in children], told)


def test_machines_without_a_shared_folder_are_refused(together: _Together) -> None:
    assert together.returned == [1, 1]
    assert all("do not see the same files" in words for words in together.told)


def test_torchrun_leaves_our_options_to_us() -> None:
    """As the help says it: without -- it takes --run for one of its own."""
    (line,) = [line.strip() for line in (train.__doc__ or "").splitlines() if "torchrun" in line]
    words = line.partition("torchrun ")[2].removesuffix("...").split()
    asked = parse_args([*words, "sgan", "--images", "x", "--run", "y", "--share", "0.1"])
    assert (asked.training_script, asked.nproc_per_node) == ("trainers", "4")
    assert asked.training_script_args == ["train", "sgan", "--images", "x", "--run", "y", "--share", "0.1"]


def test_a_batch_has_a_patch_for_each_process(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="batches of 4 patches for 5 processes"):
        begin(miniature(read_recipe("ct-denoise")), tmp_path, World(4, 5))


def test_others_begin_when_the_first_is_done_and_not_where_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    told: list[str] = [""]

    def all_said(world: World, own: str) -> list[str]:
        told[0] = own or told[0]
        done.append("told")
        return told

    monkeypatch.setattr(World, "all_said", all_said)
    for world in (World(0, 2), World(1, 2)):
        with world.first_alone():
            done.append(f"work {world.rank}")
    assert done == ["work 0", "told", "told", "work 1"]

    with pytest.raises(SourceError), World(0, 2).first_alone():
        raise SourceError("no images")
    with pytest.raises(TrainerError, match="the first process could not go on"), World(1, 2).first_alone():
        pytest.fail("it has nothing to work with")


def test_gradients_and_figures_of_uneven_parts_are_those_of_the_whole_batch() -> None:
    """Through batch normalisation too, in two processes: each holds them to what one process finds."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    world = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.trainers.training.gradients"]
    children = [
        subprocess.Popen(command, cwd=_ROOT, env={**world, "RANK": rank, "LOCAL_RANK": rank}) for rank in ("0", "1")
    ]
    assert [child.wait(timeout=_HANGS_S) for child in children] == [0, 0]


def test_processes_wait_for_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[timedelta] = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(distributed, "init_process_group", lambda backend, timeout: told.append(timeout))
    monkeypatch.setattr(distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(distributed, "destroy_process_group", lambda: None)
    with joined_world("cpu"):
        assert told[0] >= timedelta(hours=12)


def test_two_processes_train_what_one_does_of_the_whole_batch(together: _Together, tmp_path: Path) -> None:
    first, second = together.told
    assert "step 4/4" in first and len(second.splitlines()) == 1  # that it was refused before; one speaks

    read = miniature(read_recipe("ct-denoise"), 4)
    one = train_recipe(read, material(), shop(tmp_path / "one"))["denoise"]
    two = train_recipe(read, material(), shop(together.shared))["denoise"]  # loads what the two have made
    for (name, wanted), found in zip(one.state_dict().items(), two.state_dict().values(), strict=True):
        assert torch.allclose(found, wanted, rtol=1e-3, atol=1e-5), name
