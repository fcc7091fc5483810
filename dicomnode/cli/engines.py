"""enhance, and engines: what there is, and which bundles are installed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dicomnode.cli.console import (
    OK,
    ConfigOption,
    JsonOption,
    configured,
    configured_if_any,
    need_command,
    outcome,
    progress,
    show,
)

Reference = Annotated[str, typer.Argument(metavar="NAME[@VERSION]", help="An engine.")]

DeviceOption = Annotated[str, typer.Option("--device", metavar="cuda:N", help="The GPU.")]

engines_app = typer.Typer(
    help="Engines: what can be done with images.", callback=need_command, invoke_without_command=True
)


def enhance(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A folder of DICOM files.", exists=True)],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the derived files.")],
    engine: Annotated[str, typer.Option("--engine", metavar="NAME", help="An engine, as NAME or NAME@VERSION.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of the engine; may be repeated.")
    ] = None,
    quality: Annotated[
        Path | None, typer.Option("--quality", metavar="FOLDER", help="For pages (PNG) and a table (CSV) of figures.")
    ] = None,
    withheld: Annotated[
        bool, typer.Option("--withheld", help="Write what a gate withholds too, marked [gate failed].")
    ] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> int:
    """Enhance files to files, without a server. Of a configuration, if there is one, bundles and [derived] count."""
    from dicomnode.operations.engines import parse_settings
    from dicomnode.operations.enhance import Look, Site, enhance_folder

    configuration = configured_if_any(config, rules_matter=False)
    look = Look(quality, withheld)
    site = Site(look=look) if configuration is None else Site(configuration.derived, configuration.bundles, look)
    chosen = parse_settings(engine, settings or [], site.bundles)
    with progress() as report:
        answer = enhance_folder(source, target, engine, chosen, report, site)
    show(answer, as_json)
    return outcome(answer.failed, answer.partly)


@engines_app.command("list")
def list_engines(config: ConfigOption = None, as_json: JsonOption = False) -> int:
    """The engines there are. What they are for, their settings, their versions, and which rules use them."""
    from dicomnode.operations.engines import describe_engines

    show(describe_engines(configured_if_any(config)), as_json)
    return OK


@engines_app.command("show")
def show_engine(reference: Reference, config: ConfigOption = None, as_json: JsonOption = False) -> int:
    """Everything about one engine: what it was made for, by whom, on which images, how well it did, who let it in."""
    from dicomnode.operations.engines import show_engine as ask

    show(ask(configured_if_any(config, rules_matter=False), reference), as_json)
    return OK


@engines_app.command("add")
def add(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="An engine bundle.", exists=True, file_okay=False)],
    allow_unsigned: Annotated[
        bool, typer.Option("--allow-unsigned", help="Take it on your own word; that is remembered with your name.")
    ] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> int:
    """Install a bundle, after all that `check` does. The first version of a name is in use at once, others by `use`."""
    from dicomnode.operations.bundles import add_bundle

    show(add_bundle(configured(config, rules_matter=False), folder, allow_unsigned=allow_unsigned), as_json)
    return OK


@engines_app.command("check")
def check(
    what: Annotated[str, typer.Argument(metavar="FOLDER|NAME", help="A bundle's folder, or NAME or NAME@VERSION.")],
    runtime: Annotated[str, typer.Option("--runtime", metavar="NAME", help="Only in this runtime.")] = "auto",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> int:
    """Check a bundle: digests, signature, networks, and its golden test in each runtime of this machine."""
    from dicomnode.operations.check_engine import check_engine

    checked = check_engine(configured_if_any(config, rules_matter=False), what, runtime)
    show(checked, as_json)
    return outcome(not checked.passed, False)


@engines_app.command("bench")
def bench(
    reference: Annotated[str | None, typer.Argument(metavar="[NAME]", help="An engine; without it, all.")] = None,
    slices: Annotated[int, typer.Option("--slices", min=1, max=10_000, help="How many slices.")] = 16,
    size: Annotated[int, typer.Option("--size", min=64, max=4096, help="Their rows and columns.")] = 512,
    threads: Annotated[int, typer.Option("--threads", min=0, max=1024, help="0: one for each core.")] = 0,
    batch: Annotated[int, typer.Option("--batch", min=0, max=256, help="Slices at once; 0: as the node does.")] = 0,
    runtime: Annotated[str, typer.Option("--runtime", metavar="NAME", help="Only in this runtime.")] = "auto",
    precision: Annotated[str, typer.Option("--precision", metavar="NAME", help="Only in this precision.")] = "auto",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> int:
    """Measure how fast engines are here: slices/s, the share of what this machine can do, and where the rest goes."""
    from dicomnode.operations.bench_engines import Bench, bench_engines

    asked = Bench(slices, size, threads, batch, runtime, precision)
    show(bench_engines(configured_if_any(config, rules_matter=False), reference, asked), as_json)
    return OK


@engines_app.command("use")
def use(
    reference: Reference,
    back: Annotated[bool, typer.Option("--back", help="What NAME meant before the last switch.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> int:
    """Let NAME mean another of its versions: `use NAME@VERSION`; or again what it meant before: `use NAME --back`."""
    from dicomnode.operations import bundles

    configuration = configured(config, rules_matter=False)
    switch = bundles.go_back if back else bundles.use_engine
    show(switch(configuration, reference), as_json)
    return OK


@engines_app.command("remove")
def remove(reference: Reference, config: ConfigOption = None, as_json: JsonOption = False) -> int:
    """Delete an installed version. What a rule names stays, and so does what is in use while there are others."""
    from dicomnode.operations.bundles import remove_engine

    show(remove_engine(configured(config), reference), as_json)
    return OK


@engines_app.command("keygen")
def keygen(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="For the private key; the public one is FILE.pub.")],
    as_json: JsonOption = False,
) -> int:
    """Make a pair of keys to sign bundles with."""
    from dicomnode.operations.bundles import make_key

    show(make_key(file), as_json)
    return OK


@engines_app.command("new")
def new(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="For the card; made where it is missing.")],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="What the engine is to be called.")],
    task: Annotated[
        str, typer.Option("--task", metavar="TASK", help="image, contrast, super-resolution, segment, detect.")
    ] = "image",
    network: Annotated[
        Path | None,
        typer.Option("--network", metavar="FILE", help="Its ONNX file, which is copied there.", exists=True),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Begin a bundle: write a card.toml with comments, for you to complete."""
    from dicomnode.operations.make_engine import new_card

    show(new_card(folder, name, task, network), as_json)
    return OK


@engines_app.command("make")
def make(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="With card.toml and its networks.", exists=True, file_okay=False)
    ],
    slices: Annotated[
        Path | None,
        typer.Option("--slices", metavar="PATH", help="DICOM images, or an .npz, for the golden test.", exists=True),
    ] = None,
    key: Annotated[
        Path | None, typer.Option("--key", metavar="FILE", help="Sign it with this private key, of `keygen`.")
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Make a bundle of a card and its networks, or make it anew after any change: golden test, CARD.md, digests."""
    from dicomnode.operations.make_engine import make_engine

    show(make_engine(folder, slices, key), as_json)
    return OK


@engines_app.command("sign")
def sign(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="An engine bundle.", exists=True, file_okay=False)],
    key: Annotated[Path, typer.Option("--key", metavar="FILE", help="The private key that `keygen` wrote.")],
    as_json: JsonOption = False,
) -> int:
    """Sign a bundle. A signature that was there is replaced."""
    from dicomnode.operations.bundles import sign_bundle

    show(sign_bundle(folder, key), as_json)
    return OK


@engines_app.command("import")
def import_bundle(
    source: Annotated[Path, typer.Argument(metavar="FOLDER", help="A MONAI bundle.", exists=True, file_okay=False)],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the engine bundle; new or empty.")],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="What the engine is to be called.")],
    offset: Annotated[
        float | None, typer.Option("--offset", help="Its network sees (value - offset) / divisor.")
    ] = None,
    divisor: Annotated[float | None, typer.Option("--divisor", help="As for --offset.")] = None,
    as_json: JsonOption = False,
) -> int:
    """Make an engine bundle of a MONAI bundle, as far as it maps. Tells what it does not say, and you have to."""
    from dicomnode.operations.monai import import_from_monai
    from engines.card import Scale

    is_said = offset is not None or divisor is not None
    scale = Scale(offset or 0.0, 1.0 if divisor is None else divisor) if is_said else None
    show(import_from_monai(source, target, name, scale), as_json)
    return OK


@engines_app.command("export")
def export_bundle(
    what: Annotated[str, typer.Argument(metavar="FOLDER|NAME", help="A bundle's folder, or NAME or NAME@VERSION.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the MONAI bundle; new or empty.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> int:
    """Write a bundle as a MONAI bundle, as far as it maps. Tells what is lost."""
    from dicomnode.operations.monai import export_to_monai

    show(export_to_monai(configured_if_any(config, rules_matter=False), what, target), as_json)
    return OK


@engines_app.command("build")
def build(
    reference: Reference,
    slices: Annotated[
        Path, typer.Option("--slices", metavar="FOLDER", help="DICOM series of yours to prove it on.", exists=True)
    ],
    device: DeviceOption = "cuda:0",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> int:
    """Compile a bundle for this machine's GPU by TensorRT, and use that once it is proved on your slices."""
    from dicomnode.operations.build_engine import build_engine

    with progress() as report:
        built = build_engine(configured(config, rules_matter=False), reference, slices, device, report)
    show(built, as_json)
    return outcome(built.failed, False)


@engines_app.command("selftest")
def selftest(device: DeviceOption = "cuda:0", as_json: JsonOption = False) -> int:
    """Try TensorRT on this machine: driver, device, libraries, builds, parity, speed, memory."""
    from dicomnode.operations.selftest_engines import selftest as run

    tested = run(device)
    show(tested, as_json)
    return outcome(tested.failed, False)
