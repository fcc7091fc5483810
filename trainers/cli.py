"""The command line `trainers`. What is heavy is imported inside the command that needs it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten
from typing import Annotated, Literal

import typer

from engines.errors import EngineError
from trainers.errors import TrainerError

OK, FAILED, USAGE, STOPPED = 0, 1, 2, 130

app = typer.Typer(
    name="trainers",
    help="Make engine bundles: train the nets of a recipe, and export them for the node.",
    add_completion=False,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def help_where_nothing_is_asked(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(USAGE)


RecipeArgument = Annotated[str, typer.Argument(help="A recipe of the package by name, or the path of your own .toml.")]
ImagesOption = Annotated[Path, typer.Option("--images", help="Folder that the recipe's sources lie below.")]
RunOption = Annotated[Path, typer.Option("--run", help="Folder of the run: checkpoints, nets, figures, pictures.")]
CacheOption = Annotated[
    Path | None, typer.Option("--cache", help="Folder for HU and noise fields; else cache/ in the run's.")
]


@app.command()
def recipes(
    recipe: Annotated[str, typer.Argument(help="One of them, or your own .toml: its text.")] = "",
    whole: Annotated[bool, typer.Option("--whole", help="With all that it takes from the recipe it follows.")] = False,
) -> None:
    """The recipes that come with the package, and what each follows."""
    from trainers.recipes.reading import read_recipe, shipped

    if recipe:
        read = read_recipe(recipe)
        typer.echo(read.text if whole else read.content, nl=False)
        return
    for name in shipped():
        found = read_recipe(name).recipe
        typer.echo(f"{name}  ->  {found.name}@{found.version}\n    {shorten(found.paper, 114, placeholder=' ...')}")


@app.command()
def train(
    recipe: RecipeArgument,
    images: ImagesOption,
    run: RunOption,
    cache: CacheOption = None,
    features: Annotated[Path | None, typer.Option(help="Weights of VGG-16 or VGG-19, for losses of features.")] = None,
    share: Annotated[float, typer.Option(help="Train so much of each stage's steps, such as 0.05.")] = 1.0,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", help="STAGE.KEY=VALUE, such as g2.patches.batch=4: another number; again for more."),
    ] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="auto: a GPU where there is one.")] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="Processor threads; 0: all that there are.")] = 0,
) -> None:
    """Train all stages of a recipe; called again, go on where it stopped.

    On several GPUs: torchrun --nproc-per-node 4 -m -- trainers train ...
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: threads that spin take cores from others
    import torch

    from trainers.material import gather
    from trainers.nets.vgg import digest_of, load_vgg
    from trainers.recipes.plan import planned, steps_to_do
    from trainers.recipes.reading import read_recipe
    from trainers.recipes.recipe import OFF, Plan
    from trainers.run.folder import note_datasets, note_images
    from trainers.shipping.export import require_shippable
    from trainers.training.distributed import joined_world
    from trainers.training.shop import Shop
    from trainers.training.stages import begin, train_recipe

    read = planned(
        read_recipe(recipe), Plan(share, tuple(changes or ()), OFF if features is None else digest_of(features))
    )
    require_shippable(read.recipe)
    if threads:
        torch.set_num_threads(threads)
    with joined_world(device) as world:
        seen = None if features is None else load_vgg(features).to(world.device)
        begin(read, run, world)
        say = _say if world.is_first else _silent
        say(steps_to_do(read))
        with world.first_alone():
            gathered = gather(read.recipe, images, cache or run / "cache", say)
        if world.is_first:
            note_images(run, gathered.digests)
            note_datasets(run, gathered.datasets)
        train_recipe(read, gathered.material, Shop(run, world, say, seen))
        say(f"all stages are finished in {run}")
        say(f"next: trainers evaluate {recipe} --images {images} --run {run} --out OUT; trainers export {recipe} ...")


@app.command()
def export(
    recipe: RecipeArgument,
    run: RunOption,
    out: Annotated[Path, typer.Argument(help="A new folder for the bundle; it is written unsigned.")],
    table: Annotated[
        list[Path] | None,
        typer.Option(
            "--table", help="The table.txt of an evaluation: for CARD.md; again for more.", exists=True, dir_okay=False
        ),
    ] = None,
) -> None:
    """Write the engine bundle of a finished run, with its card, provenance and golden test."""
    from trainers.run.folder import provenance_of, trained_by
    from trainers.run.subject import require_table, subject_of
    from trainers.shipping.export import Trained, made_by, tell
    from trainers.shipping.export import export as write
    from trainers.training.stages import load_nets

    read = trained_by(recipe, run)
    nets = load_nets(read.recipe, run)
    judged = [path.read_text(errors="replace") for path in table or ()]
    for one in judged:
        require_table(one, subject_of(read.recipe, run))
    trained = Trained(read.recipe, nets, provenance_of(read, run))
    out.mkdir(parents=True, exist_ok=True)
    bundle = write(trained, out)
    if judged:
        bundle = tell(bundle, made_by(Path(recipe).stem, read.plan, judged))
    if not bundle.provenance.metrics:
        _say("its card has no figures: nobody evaluated the whole run on its test patients")
    size = sum(path.stat().st_size for path in out.iterdir())
    _say(f"{bundle.card.reference}  {bundle.digest[:16]}  {size / 1e6:.2f} MB  in {out}")
    _say(f"next: dicomnode engines keygen KEY; dicomnode engines sign {out} --key KEY; dicomnode engines check {out}")


@app.command()
def evaluate(
    recipe: RecipeArgument,
    images: ImagesOption,
    out: Annotated[Path, typer.Option("--out", help="Folder for the table: text, CSV, JSON, and a page.")],
    run: Annotated[Path | None, typer.Option("--run", help="A finished run of the recipe.")] = None,
    trained: Annotated[
        list[str] | None, typer.Option("--trained", help="RECIPE=RUN: another trained recipe; again for more.")
    ] = None,
    bundle: Annotated[list[Path] | None, typer.Option("--bundle", help="A bundle's folder; again for more.")] = None,
    peer: Annotated[
        list[str] | None, typer.Option("--peer", help="nlm, tv, wavelet, bm3d or bm3d-spectrum; again for more.")
    ] = None,
    patients: Annotated[
        list[str] | None, typer.Option("--patients", help="Names or patterns, in place of the recipe's own.")
    ] = None,
    split: Annotated[
        Literal["test", "validation"], typer.Option("--split", help="validation: for a decision; nothing is noted.")
    ] = "test",
    dose: Annotated[
        list[float] | None, typer.Option("--dose", help="Share of the full dose; 1, 0.5, 0.25 and 0.1 if not given.")
    ] = None,
    strength: Annotated[
        list[float] | None,
        typer.Option("--strength", help="Share of what ours remove, as a row beside the shipped one."),
    ] = None,
    slices: Annotated[int | None, typer.Option(min=1, help="Of each series; 3 if not given.")] = None,
    realisations: Annotated[
        int | None, typer.Option(min=0, help="Of the noise; 0: no nodules are planted; 4 if not given.")
    ] = None,
    window: Annotated[
        float,
        typer.Option("--window", min=0, max=4, help="Noise of a Hann window that ends here, not the series' own."),
    ] = 0.0,
    quick: Annotated[bool, typer.Option("--quick", help="Four patients; one slice, two doses if not given.")] = False,
    cache: Annotated[Path | None, typer.Option("--cache", help="Folder for noise fields; else in --out.")] = None,
) -> None:
    """Judge denoisers by patients that they have never seen: one table, beside the low dose itself."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from trainers.evaluate.cases import QUICK, Extent
    from trainers.evaluate.command import PAGE, TEXT, Asked
    from trainers.evaluate.command import evaluate as judge

    if not (run or trained or bundle or peer):
        raise typer.BadParameter("there is nothing to judge: give --run, --trained, --bundle or --peer")
    for share in (*(dose or ()), *(strength or ())):
        if not 0 < share <= 1:
            raise typer.BadParameter(f"{share:g} is no share: above 0, at most 1")
    usual = QUICK if quick else Extent()
    extent = Extent(
        tuple(dose or usual.doses),
        usual.patients,
        usual.slices if slices is None else slices,
        usual.realisations if realisations is None else realisations,
        window,
    )
    asked = Asked(
        recipe, images, out, cache or out / "cache", run, tuple(trained or ()), tuple(bundle or ()), tuple(peer or ()),
        tuple(strength or ()), tuple(patients or ()), extent, split,
    )  # fmt: skip
    judge(asked, _say)
    _say((out / TEXT).read_text())
    _say(f"{out / PAGE}")


@app.command()
def report(
    run: RunOption,
    out: Annotated[Path, typer.Argument(help="HTML file to be written.")],
) -> None:
    """One page of a run: its stages, how each term fell, and the last pictures."""
    from trainers.run.page import page_of

    out.write_text(page_of(run))
    _say(f"{out}")


@app.command()
def simulate(
    series: Annotated[list[Path], typer.Argument(help="DICOM folders or archives, or .npz volumes.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for an .npz of each series and dose.")],
    provenance: Annotated[Path, typer.Option("--provenance", help="Table of the series' licences, CSV or TOML.")],
    dose: Annotated[list[float], typer.Option("--dose", help="Share of the full dose; may be given several times.")],
    cache: Annotated[Path | None, typer.Option("--cache", help="Folder for noise fields; else in --out.")] = None,
) -> None:
    """Write series as they would be at lower doses: npz, which training reads; not DICOM."""
    from trainers.lowering import lowered, require_own_table, write_lowered

    require_own_table(out)
    for one in lowered(series, provenance, dose, cache or out / "cache", _say):
        _say(str(write_lowered(out, one)))


def main() -> None:
    """The console script `trainers`."""
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: Sequence[str]) -> int:
    """Run one command; an error is two lines: what, and what to do next."""
    try:
        return int(app(list(arguments), standalone_mode=False, prog_name="trainers") or OK)
    except typer.TyperException as error:  # the command line itself is wrong
        _complain(error.format_message(), "see: trainers --help")
        return USAGE
    except (TrainerError, EngineError) as error:
        _complain(str(error), error.hint or "see docs/trainers/index.md")
        return FAILED
    except ModuleNotFoundError as error:
        _complain(f"{error.name} is not installed", "in a clone: .venv/bin/pip install -e '.[train]'")
        return FAILED
    except (KeyboardInterrupt, typer.Abort):
        _complain("stopped", "run it again to go on")
        return STOPPED
    except OSError as error:
        where = f"{error.filename}: " if error.filename is not None else ""
        _complain(f"{where}{error.strerror or type(error).__name__}", "check the path, its owner and the free space")
        return FAILED


def _complain(what: str, hint: str) -> None:
    typer.echo(f"error: {' '.join(what.split())}\n next: {hint}", err=True)


def _say(line: str) -> None:
    typer.echo(line)


def _silent(line: str) -> None:
    """Of several processes one speaks."""
