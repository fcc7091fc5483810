"""A recipe's stages, one after another. What is finished lies in the run's folder and is not done again:

<folder>/run.json           which recipe this is
<folder>/<stage>/net.pt     the trained net; beside it checkpoints, figures and pictures of the training
<folder>/<stage>-without-1  nets that never saw one part of the patients, for a stage that is trained on their errors
<folder>/<stage>/round-1    rounds of a stage that takes in slices in growing numbers
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from trainers.data.patches import Noisy
from trainers.errors import CheckpointError, RecipeError
from trainers.nets import build, build_discriminator
from trainers.nets.base import Net
from trainers.recipes.reading import ReadRecipe
from trainers.recipes.recipe import Recipe, StageRecipe
from trainers.run import checkpoints
from trainers.run.checkpoints import ENDED, NET
from trainers.run.folder import claim, ended_now
from trainers.run.rounds import require_growth
from trainers.training.distributed import World
from trainers.training.growth import grown_pool
from trainers.training.loop import Pair, Run, Task, train
from trainers.training.losses import Terms
from trainers.training.pairs import Chain, Link, Material, Pairing, pairs_of
from trainers.training.rehearsal import rehearse
from trainers.training.shop import Shop

_FOLDED = "{}-without-{}"


def train_recipe(read: ReadRecipe, material: Material, shop: Shop) -> dict[str, Net]:
    """All stages of a recipe, each from where it stopped; the trained nets by stage, on the processor.

    Raises CheckpointError where the folder holds another recipe's run, or one of another plan, RecipeError and
    SourceError where the recipe and the images do not go together.
    """
    begin(read, shop.folder, shop.world)
    work = _Work(read.recipe, material, shop, {})
    for stage in read.recipe.stages:
        work.nets[stage.name] = _grown(work, stage) if stage.growth else _trained(work, stage, stage.name, material)
    return {name: net.cpu() for name, net in work.nets.items()}


def begin(read: ReadRecipe, run: Path, world: World) -> None:
    """Claim a run's folder for a recipe, and see that all processes may train there together.

    Raises CheckpointError where it is another run's, or each process sees a folder of its own, and RecipeError where
    its nets do not fit, or there are too few patches for so many processes.
    """
    rehearse(read.recipe)
    for stage in read.recipe.stages:
        if stage.patches.batch < world.size:
            raise RecipeError(
                f"{stage.name} has batches of {stage.patches.batch} patches for {world.size} processes",
                f"start fewer, or give --set {stage.name}.patches.batch={world.size}",
            )
    if world.is_first:
        claim(read, run)
    world.wait()
    files = sorted(path for pattern in ("run.json", "**/*.pt") for path in run.glob(pattern))
    seen = "\n".join(f"{path.relative_to(run)} {path.stat().st_size}" for path in files)
    if len(set(world.all_said(seen))) > 1:
        raise CheckpointError(
            f"the processes do not see the same files in {run}", "let --run be a folder that all machines share"
        )


def load_nets(recipe: Recipe, folder: Path) -> dict[str, Net]:
    """The trained nets of a run's folder, by stage. Raises CheckpointError where a stage is not finished, and
    TrainerError where one that is said to be of CT saw none."""
    for stage in recipe.stages:
        require_growth(stage.name, folder / stage.name)
        checkpoints.require_finished(folder / stage.name)
    return {stage.name: _loaded(stage, folder / stage.name / NET) for stage in recipe.stages}


@dataclass(frozen=True, eq=False)
class _Work:
    recipe: Recipe
    material: Material
    shop: Shop
    nets: dict[str, Net]


def _trained(work: _Work, stage: StageRecipe, name: str, material: Material, start: Net | None = None) -> Net:
    """One net: trained, or loaded where it was. `start` is what it begins with, in place of the recipe's word."""
    folder = work.shop.folder / name
    if not (folder / NET).exists():
        start = work.nets.get(stage.starts_from) if start is None else start
        task = Task(
            stage=stage,
            begin=lambda: _begun(stage, start),
            draw=_draw(work, stage, name, material),
            shown=pairs_of(_shown(work, stage, material), World(), _seed(work, "pictures"))(0),
            terms=_terms(work, stage),
            scale_hu=work.recipe.scale_hu,
            seed=_seed(work, name),
        )
        net = train(task, Run(folder, work.shop.world, work.shop.say, name))
        if work.shop.world.is_first:
            _finish(folder / NET, net)
        work.shop.world.wait()
    return _loaded(stage, folder / NET).to(work.shop.world.device)


def _draw(work: _Work, stage: StageRecipe, name: str, material: Material) -> Callable[[int], Pair]:
    """Pairs by number: of all patients, or of each part of them through a net that never saw it."""
    world, seed = work.shop.world, _seed(work, name)
    if not stage.folds:
        return pairs_of((Pairing(stage, material, _chain(work, stage)),), world, seed)
    taken = work.recipe.stage(stage.takes)
    if taken.takes or taken.growth:
        raise RecipeError(f"{stage.name}: folds of a stage that is trained in several steps", "take a plain stage")
    pairings = []
    for part, (inside, outside) in enumerate(folds(material.train, stage.folds), start=1):
        net = _trained(work, taken, _FOLDED.format(taken.name, part), replace(material, train=outside))
        pairings.append(Pairing(stage, replace(material, train=inside), (Link(net, taken, work.recipe.scale_hu),)))
    return pairs_of(tuple(pairings), world, seed)


def _grown(work: _Work, stage: StageRecipe) -> Net:
    """A net that is trained in rounds, each on more slices than the one before."""
    path = work.shop.folder / stage.name / NET
    if path.exists():
        return _loaded(stage, path).to(work.shop.world.device)
    nets = work.nets
    nets[stage.name] = nets[stage.starts_from]

    def chain() -> Chain:
        return (*_chain(work, stage), _link(work, stage, nets[stage.name]))

    for pool in grown_pool(stage, work.material, work.shop, chain, _seed(work, stage.name)):
        name, material = f"{stage.name}/round-{pool.number}", replace(work.material, train=pool.slices)
        nets[stage.name] = _trained(work, stage, name, material, start=nets[stage.name])
    if work.shop.world.is_first:
        _finish(path, nets[stage.name])
    work.shop.world.wait()
    return nets[stage.name]


def folds(pool: Sequence[Noisy], count: int) -> list[tuple[tuple[Noisy, ...], tuple[Noisy, ...]]]:
    """(inside, outside) of each of `count` parts of the patients. Raises RecipeError where there are too few."""
    patients = sorted({noisy.series.patient for noisy in pool})
    if len(patients) < count:
        raise RecipeError(f"{len(patients)} patients cannot be parted in {count}", "name more training patients")
    parts = [set(patients[part::count]) for part in range(count)]
    return [
        (
            tuple(noisy for noisy in pool if noisy.series.patient in part),
            tuple(noisy for noisy in pool if noisy.series.patient not in part),
        )
        for part in parts
    ]


def _chain(work: _Work, stage: StageRecipe) -> Chain:
    """What a stage's patches go through first."""
    return tuple(_link(work, taken, work.nets[taken.name]) for taken in work.recipe.before(stage))


def _link(work: _Work, stage: StageRecipe, net: Net) -> Link:
    return Link(net, stage, work.recipe.scale_hu)


def _shown(work: _Work, stage: StageRecipe, material: Material) -> tuple[Pairing, ...]:
    pool = material.validation or material.train
    return (Pairing(stage, replace(material, train=pool), _chain(work, stage)),)


def _begun(stage: StageRecipe, start: Net | None) -> tuple[nn.Module, nn.Module | None]:
    net = build(stage.net.kind, stage.net.arguments)
    if start is not None:
        net.load_state_dict(start.state_dict())
    adversary = stage.adversary
    return net, None if adversary is None else build_discriminator(adversary.net, adversary.arguments)


def _terms(work: _Work, stage: StageRecipe) -> Terms:
    terms = Terms(stage.losses, work.shop.features)
    for kind in terms.off:
        work.shop.say(f"{stage.name}: the term {kind} is off: it needs weights, see --features")
    return terms


def _finish(path: Path, net: nn.Module) -> None:
    checkpoints.write(path, {"net": net.state_dict(), ENDED: ended_now()})


def _loaded(stage: StageRecipe, path: Path) -> Net:
    net = build(stage.net.kind, stage.net.arguments)
    try:
        net.load_state_dict(checkpoints.read(path)["net"])
    except (KeyError, RuntimeError):
        raise CheckpointError(f"{path} holds another net than {stage.name}", "give the run's own recipe") from None
    return net.eval()


def _seed(work: _Work, name: str) -> int:
    """Of each stage and fold its own."""
    return zlib.crc32(f"{work.recipe.seed} {name}".encode())
