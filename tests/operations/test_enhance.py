"""`dicomnode enhance`: files to files, each stack with what became of it."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicomnode.errors import EngineError, NotFoundError, UsageError
from dicomnode.operations.enhance import EnhanceReport, Look, Site, enhance_folder
from dicomnode.settings import DerivedSettings
from dicomnode.store import bundles
from dicomnode.store.bundles import By
from dicomnode.testing.bundles import engine_of, made, made_bundle
from engines.bundle.examples import example_inputs
from engines.bundle.folder import write_bundle
from engines.bundle.golden import Golden, Tolerance
from engines.bundle.provenance import Provenance, Training
from tests.flow.rooms import phantom


def write(folder: Path, study: list[Dataset]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, dataset in enumerate(study):
        dataset.save_as(folder / f"{len(list(folder.iterdir())):03d}-{number}", enforce_file_format=True)
    return folder


def enhance(source: Path, target: Path, engine: str = "ct-nlm", **settings: float) -> EnhanceReport:
    return enhance_folder(source, target, engine, settings, lambda *_: None)


def states(report: EnhanceReport) -> list[str]:
    return sorted(stack.state for stack in report.stacks)


def test_a_series_becomes_a_derived_series(tmp_path: Path) -> None:
    study = phantom()
    told: list[tuple[str, int, int]] = []
    source = write(tmp_path / "in", study)
    report = enhance_folder(source, tmp_path / "out", "ct-nlm", {}, lambda *told_: told.append(told_))
    (stack,) = report.stacks
    assert (stack.state, stack.slices, stack.source_series) == ("derived", 4, study[0].SeriesInstanceUID)
    assert not report.failed
    assert not report.partly
    images = [dcmread(path) for path in sorted(Path(stack.folder).iterdir())]
    assert {image.SeriesInstanceUID for image in images} == {stack.derived_series}
    assert [image.SourceImageSequence[0].ReferencedSOPInstanceUID for image in images] == [
        dataset.SOPInstanceUID for dataset in study
    ]
    assert all(gate.startswith("ok") for gate in stack.gates)
    assert told == [("ct-nlm@1.0.0", 0, 1), ("ct-nlm@1.0.0", 1, 1)]
    json.dumps(report.to_json())


def test_the_same_files_give_the_same_uids(tmp_path: Path) -> None:
    source = write(tmp_path / "in", phantom())
    uids = [
        {dcmread(path).SOPInstanceUID for path in (tmp_path / name / "series-001").iterdir()}
        for name in ("one", "two")
        if enhance(source, tmp_path / name)
    ]
    assert uids[0] == uids[1]
    assert len(uids[0]) == 4


def test_what_may_not_be_enhanced_is_skipped_and_no_failure(tmp_path: Path) -> None:
    localizer = phantom(1, seed=2)
    localizer[0].ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    report = enhance(write(write(tmp_path / "in", phantom()), localizer), tmp_path / "out")
    assert states(report) == ["derived", "skipped"]
    assert not report.partly
    again = enhance(tmp_path / "out", tmp_path / "again")
    assert states(again) == ["skipped"]
    assert again.stacks[0].reasons == ("derived by this software: never enhanced again",)
    assert again.failed


def test_what_is_refused_makes_it_partly_done(tmp_path: Path) -> None:
    coarse = phantom(2, seed=2)
    for dataset in coarse:
        dataset.PixelSpacing = [9, 9]
    report = enhance(write(write(tmp_path / "in", phantom()), coarse), tmp_path / "out")
    assert states(report) == ["derived", "refused"]
    assert report.partly
    refused = next(stack for stack in report.stacks if stack.state == "refused")
    assert any("row spacing 9 mm" in reason for reason in refused.reasons)
    assert any(gate.startswith("FAILS") for gate in refused.gates)
    assert len(list((tmp_path / "out").iterdir())) == 1


def test_what_fails_is_told_with_the_reason(tmp_path: Path) -> None:
    damaged = phantom(2, seed=2)
    damaged[1].PixelData = damaged[1].PixelData[:50]
    report = enhance(write(tmp_path / "in", damaged), tmp_path / "out")
    (stack,) = report.stacks
    assert (stack.state, report.failed, report.partly) == ("failed", True, False)
    assert any("bytes" in reason for reason in stack.reasons)


def test_another_modality_goes_to_the_engine_that_takes_it(tmp_path: Path) -> None:
    study = phantom(2)
    for dataset in study:
        dataset.Modality, dataset.SOPClassUID = "MR", "1.2.840.10008.5.1.4.1.1.4"
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        del dataset.RescaleType
    source = write(tmp_path / "in", study)
    assert states(enhance(source, tmp_path / "nlm")) == ["refused"]
    assert states(enhance(source, tmp_path / "glcae", "contrast-glcae")) == ["derived"]


def test_files_between_that_are_no_dicom_do_not_matter(tmp_path: Path) -> None:
    source = write(tmp_path / "in", phantom(2))
    (source / "note.txt").write_text("no DICOM")
    (source / "link").symlink_to(source / "note.txt")
    report = enhance(source, tmp_path / "out")
    assert (states(report), report.unreadable) == (["derived"], ())


@pytest.mark.parametrize("what", ["a file in it", "a file"])
def test_nothing_is_overwritten(tmp_path: Path, what: str) -> None:
    source = write(tmp_path / "in", phantom(2))
    target = tmp_path / "out"
    kept = target if what == "a file" else target / "mine"
    kept.parent.mkdir(exist_ok=True)
    kept.write_text("mine")
    with pytest.raises(UsageError):
        enhance(source, target)
    assert kept.read_text() == "mine"


def test_an_empty_folder_has_nothing_to_enhance(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(NotFoundError):
        enhance(tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("engine", "settings"), [("no-such", {}), ("ct-nlm", {"strength": 9.0}), ("ct-nlm", {"x": 1.0})]
)
def test_what_there_is_not_is_refused_before_anything_is_read(
    tmp_path: Path, engine: str, settings: dict[str, float]
) -> None:
    with pytest.raises(EngineError):
        enhance(tmp_path / "nowhere", tmp_path / "out", engine, **settings)


def test_derived_files_say_what_the_configuration_says(tmp_path: Path) -> None:
    derived = DerivedSettings(description_prefix="X ", institution="Hospital", content_qualification="SERVICE")
    source = write(tmp_path / "in", phantom(2))
    report = enhance_folder(source, tmp_path / "out", "ct-nlm", {}, lambda *_: None, Site(derived))
    image = dcmread(next(Path(report.stacks[0].folder).iterdir()))
    assert image.SeriesDescription.startswith("X ")
    assert image.ContentQualification == "SERVICE"


def test_hostile_text_never_reaches_the_terminal(tmp_path: Path) -> None:
    study = phantom(1)
    source = write(tmp_path / "in", study)
    (path,) = source.iterdir()
    uid = study[0].SeriesInstanceUID.encode()
    path.write_bytes(path.read_bytes().replace(uid, b"\x1b[2J" + uid[4:]))
    report = enhance(source, tmp_path / "out")
    assert any("[2J" in line for line in report.lines())
    assert all(line.isprintable() for line in report.lines())


def test_an_installed_bundle_enhances_files(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    bundle = made_bundle(tmp_path / "made", "adjacent")
    bundles.add(tmp_path / "engines", bundle, "", By("somebody", 1.7e9))
    source = write(tmp_path / "in", phantom(3))
    site = Site(bundles=tmp_path / "engines")
    report = enhance_folder(source, tmp_path / "out", bundle.card.reference, {}, lambda *_: None, site)
    assert report.engine == bundle.card.reference
    assert states(report) == ["derived"]


def test_an_engine_that_makes_no_images_is_refused_by_its_name_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    bundle = made_bundle(tmp_path / "made", "detect")
    bundles.add(tmp_path / "engines", bundle, "", By("somebody", 1.7e9))
    site = Site(bundles=tmp_path / "engines")
    with pytest.raises(UsageError, match=f"^{bundle.card.reference} gives findings") as refused:
        enhance_folder(tmp_path / "nowhere", tmp_path / "out", "random-detect", {}, lambda *_: None, site)
    assert "engines check" in refused.value.hint
    assert not (tmp_path / "out").exists()


@pytest.fixture(name="strict", scope="module")
def _strict(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of bundles of a node with an engine whose gate lets nothing through."""
    source, installed = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("engines")
    subject = made("adjacent")
    card = replace(subject.card, limits=replace(subject.card.limits, noise_ratio=(0.0, 0.001)))
    with engine_of(replace(subject, card=card)) as engine:
        inputs = example_inputs(card)
        test = Golden(inputs, engine.run(inputs, {}), {one: {"image": Tolerance(9, 9, 999)} for one in card.precisions})
    bundle = write_bundle(source, card, Provenance("Somebody", "MIT", Training("1")), subject.networks, test)
    bundles.add(installed, bundle, "", By("somebody", 1.7e9))
    return installed


def test_what_a_gate_withholds_can_be_looked_at(tmp_path: Path, strict: Path) -> None:
    source = write(tmp_path / "in", phantom())
    look = Look(tmp_path / "pages", withheld=True)
    site = Site(bundles=strict, look=look)
    report = enhance_folder(source, tmp_path / "out", "random-adjacent", {}, lambda *_: None, site)
    (stack,) = report.stacks
    assert (stack.state, report.failed) == ("withheld", True)
    assert "marked [gate failed]" in "\n".join(report.lines())
    image = dcmread(next(Path(stack.folder).iterdir()))
    assert image.SeriesDescription.endswith("[gate failed]")
    assert image.ContentQualification == "RESEARCH"
    assert "noise goes from" in image.DerivationDescription
    (page,) = stack.pages
    assert Path(page).read_bytes().startswith(b"\x89PNG")
    (row,) = csv.DictReader((tmp_path / "pages" / "quality.csv").open())
    assert (row["page"], row["passed"], float(row["noise_ratio"]) > 0) == (Path(page).name, "False", True)
    assert "noise goes from" in row["reasons"]


def test_what_is_withheld_is_not_written_unless_it_is_asked_for(tmp_path: Path, strict: Path) -> None:
    source = write(tmp_path / "in", phantom())
    site = Site(bundles=strict, look=Look(tmp_path / "pages"))
    report = enhance_folder(source, tmp_path / "out", "random-adjacent", {}, lambda *_: None, site)
    assert states(report) == ["withheld"]
    assert list((tmp_path / "out").iterdir()) == []
    assert len(report.stacks[0].pages) == 1
