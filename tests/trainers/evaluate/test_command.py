"""From images, a run and a bundle to a table on disk, by the command itself."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from engines.bundle.folder import read_card
from tests.trainers.made import write_images
from trainers.cli import FAILED, OK, USAGE, run_command
from trainers.evaluate.command import CSV, JSON, PAGE, TEXT, card_told
from trainers.recipes.plan import planned, steps_told
from trainers.recipes.reading import read_recipe
from trainers.recipes.recipe import OFF, Plan

_WHOLE = "ct-denoise (run, 50 % of its steps)"
_RUN = f"{_WHOLE} x 0.85"  # as it is shipped


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images, a run of half of its two steps, and its bundle."""
    folder = tmp_path_factory.mktemp("trained")
    recipe = str(write_images(folder / "images") / "mine.toml")
    images, run = str(folder / "images"), str(folder / "run")
    assert run_command(["train", recipe, "--images", images, "--run", run, "--share", "0.5", "--device", "cpu"]) == OK
    assert run_command(["export", recipe, "--run", run, str(folder / "bundle")]) == OK
    return folder


def _command(trained: Path, *more: str) -> list[str]:
    folder = trained / "images"
    return [
        "evaluate",
        str(folder / "mine.toml"),
        "--images",
        str(folder),
        "--slices",
        "1",
        "--realisations",
        "2",
        *more,
    ]


def test_a_run_its_bundle_and_a_peer_in_one_table(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    asked = _command(trained, "--run", str(trained / "run"), "--bundle", str(trained / "bundle"), "--peer", "nlm",
                     "--dose", "0.25", "--strength", "0.5", "--patients", "patient-3", "--out", str(out))  # fmt: skip
    assert run_command(asked) == OK
    said = capsys.readouterr().out
    assert "noise: slices to be simulated: 1" in said and "noise: slice 1/1 100 %" in said
    assert re.search(r"^ct-denoise@\S+: Trained for 50 % of its steps: 3 of 6", said, re.M)
    assert "Nobody can check" not in said and "nothing is noted for the card" in said and "This is a part" in said
    assert re.search(
        r"^made by: trainers evaluate mine .* --bundle BUNDLE --peer nlm --patients PATIENTS --strength=0.5 "
        r"--dose=0.25 --slices=1 --realisations=2$",
        said,
        re.M,
    )
    assert f"aims, {_RUN}" in said and "MISSED" in said and str(out / PAGE) in said
    told = json.loads((out / JSON).read_text())
    names = {one["denoiser"] for one in told["figures"]}
    assert names >= {"low dose", _RUN, f"{_WHOLE} x 0.5", "nlm"} and len(names) == 6
    psnr = {one["denoiser"]: one["value"] for one in told["figures"] if one["figure"] == "PSNR abdomen"}
    (bundle,) = (name for name in names if name.startswith("ct-denoise@") and name.endswith("x 0.85"))
    assert psnr[bundle] == pytest.approx(psnr[_RUN], abs=0.1)  # the same net, in bfloat16
    assert psnr["nlm"] > psnr["low dose"]
    assert (out / TEXT).stat().st_size and (out / CSV).read_text().startswith("denoiser,dose,patient")
    assert "data:image/png;base64" in (out / PAGE).read_text()
    assert "patient-3" not in (out / CSV).read_text() + (out / PAGE).read_text() + (out / JSON).read_text()

    assert "Trained for 50 % of its steps: 3 of 6" in (trained / "bundle" / "CARD.md").read_text()


@pytest.mark.parametrize(
    ("plan", "wanted"),
    [
        (Plan(0.5, ("g1.patches.batch=2",), OFF), ["Trained for 50 % of its steps", "Changed: g1", "vgg is off"]),
        (Plan(features=OFF), ["The loss term vgg is off: no weights were given for it"]),
        (Plan(features="ab" * 32), ["SHA-256 abababababababab"]),
        (Plan(), ["Nobody noted whether the loss term vgg is on"]),
    ],
)
def test_a_bundles_row_tells_what_its_card_says_of_its_schedule(trained: Path, plan: Plan, wanted: list[str]) -> None:
    card, provenance = read_card(trained / "bundle")
    read = planned(read_recipe("sgan-g1"), plan)
    training = replace(provenance.training, recipe=f"{' '.join(read.recipe.paper.split())} {steps_told(read)}.")
    told = card_told((card, replace(provenance, training=training)))
    assert told.startswith(f"{card.reference}: ") and all(one in told for one in wanted)
    assert " ".join(read.recipe.paper.split())[:40] not in told
    of_others = replace(provenance, training=replace(training, recipe="Nets of somebody else. No more is known."))
    assert not card_told((card, of_others))
    hostile = replace(provenance, training=replace(training, recipe=f"Trained for \x1b[2J{'x' * 2000}"))
    assert card_told((card, hostile)).isprintable() and len(card_told((card, hostile))) < 800


def test_a_card_tells_of_whole_evaluations_alone_and_on_whom(trained: Path, tmp_path: Path) -> None:
    run, images = trained / "run", trained / "images"
    asked = ["evaluate", str(images / "mine.toml"), "--images", str(images), "--run", str(run)]
    assert run_command([*asked, "--out", str(tmp_path / "whole")]) == OK
    noted, whole = (run / "metrics.json").read_text(), (tmp_path / "whole" / TEXT).read_text()
    assert "This is a part" not in whole
    assert re.search(r"^made by: trainers evaluate mine --images IMAGES --out OUT --run RUN$", whole, re.M)
    for less in (["--quick"], ["--patients", "patient-3"], ["--dose", "0.25"], ["--slices", "1"]):
        run_command([*asked, "--out", str(tmp_path / "less"), "--realisations", "0", *less])
        assert (run / "metrics.json").read_text() == noted
    assert {(one["subgroup"], one["patients"]) for one in json.loads(noted)["metrics"]} == {
        (f"{dose} % dose, simulated", 1) for dose in (100, 50, 25, 10)
    }

    assert run_command(["report", "--run", str(run), str(tmp_path / "page.html")]) == OK
    assert "PSNR abdomen, 25 % dose, simulated" in (tmp_path / "page.html").read_text()
    export = ["export", str(images / "mine.toml"), "--run", str(run), "--table", str(tmp_path / "whole" / TEXT)]
    assert run_command([*export, str(tmp_path / "bundle")]) == OK
    data = {one.role: one for one in read_card(tmp_path / "bundle")[1].data}
    assert (data["test"].name, data["test"].attribution, data["test"].patients) == ("Phantoms", "Maker 3", 1)
    assert data["training"].patients == 2


def test_a_bundle_of_another_text_is_vouched_for_by_nobody(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is called ct-denoise, as is a recipe of the package: the name alone says nothing of its patients."""
    mine = trained / "images" / "mine.toml"
    other = tmp_path / "other.toml"
    others = mine.read_text().replace('"patient-1", "patient-2"', '"patient-9"').replace("patient-3", "patient-?")
    other.write_text(others)
    asked = ["evaluate", str(other), "--images", str(trained / "images"), "--bundle", str(trained / "bundle"),
             "--slices", "1", "--realisations", "0", "--dose", "0.25"]  # fmt: skip
    assert run_command([*asked, "--out", str(tmp_path / "out")]) == OK
    assert "Nobody can check here whether ct-denoise@" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (["--peer", "nlm", "--patients", "patient-*"], FAILED, "split 'train'"),
        (["--peer", "nlm", "--patients", "nobody"], FAILED, "no patient to judge by"),
        (["--trained", "redcnn"], FAILED, "names no run"),
        (["--trained", "redcnn=nowhere"], FAILED, "nowhere is no run's folder"),
        (["--bundle", "nowhere"], FAILED, "nowhere is no folder"),
        (["--peer", "nlmm"], FAILED, "did you mean 'nlm'"),
        (["--peer", "nlm", "--dose", "25"], USAGE, "no share"),
        ([], USAGE, "nothing to judge"),
    ],
)
def test_errors_say_what_next(
    trained: Path, more: list[str], code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(_command(trained, "--out", str(tmp_path / "out"), *more)) == code
    assert said in capsys.readouterr().err
