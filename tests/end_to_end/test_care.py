"""Commissioning, review and release on a whole node, with a real destination."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from dicomnode.testing.node import Node, settings
from dicomnode.testing.peers import Call, Orthanc, StoreScp, dcmsend, storescu
from dicomnode.testing.processes import wait_until
from tests.end_to_end.observation import TIMEOUT_S, by_uid
from tests.end_to_end.studies import phantom_series

RULE = {"name": "tried", "match": {"Modality": "CT"}, "engines": ["ct-nlm"], "send": ["archive"]}


@pytest.mark.peer("dcmtk")
def test_in_commissioning_nothing_derived_reaches_a_destination_until_a_person_releases_it(
    tmp_path: Path, archive: StoreScp
) -> None:
    sources = by_uid(phantom_series(tmp_path / "series", 3))
    tree = settings({"archive": archive}, [RULE], node={"commissioning": True})
    with Node(tmp_path / "node", tree) as node:
        assert storescu(node.call(), sources.values()) == 0
        wait_until(lambda: node.unfinished() == 0 and arrived(archive) == sources.keys(), TIMEOUT_S, "all was done")
        status = node.status()
        assert (status["jobs"]["derived"], status["counts"]["instances_derived"]) == (1, 3)
        assert "COMMISSIONING" in node.command("status").stdout
        node.configure(settings({"archive": archive}, [RULE]))
        node.reload()
        node.wait_for_log("config_applied", times=4)
        assert storescu(node.call(), by_uid(phantom_series(tmp_path / "another", 3, seed=1)).values()) == 0
        wait_until(lambda: len(arrived(archive)) == 9, TIMEOUT_S, "what came afterwards left as ever")
        node.wait_until_idle()
        assert node.ask("release", "--commissioning", "--reason", "looked at all of it")["deliveries"] == 3
        wait_until(lambda: len(arrived(archive)) == 12, TIMEOUT_S, "what was released arrived")
        assert node.stop() == 0


def arrived(archive: StoreScp) -> set[str]:
    return set(by_uid(path for path in archive.files.rglob("*") if path.is_file()))


@pytest.mark.peer("dcmtk")
@pytest.mark.peer("orthanc")
def test_what_differs_at_the_pacs_waits_for_a_person_and_is_in_no_log(tmp_path: Path, pacs: Orthanc) -> None:
    sources = phantom_series(tmp_path / "series", 3)
    corrected = [with_name(path, tmp_path / "corrected", "Corrected^Name") for path in sources]
    assert dcmsend(Call(pacs.port, pacs.ae_title, "OTHER"), corrected) == 0
    rule = {"name": "results", "match": {"Modality": "CT"}, "engines": ["ct-nlm"], "send_results": ["pacs"]}
    tree = settings({"pacs": pacs}, [rule])
    tree["destination"]["pacs"]["check_patient"] = True
    with Node(tmp_path / "node", tree) as node:
        assert storescu(node.call(), sources) == 0
        node.wait_for_log("patient_differs", timeout_s=TIMEOUT_S)
        (withheld,) = node.status()["care"]["withheld"]
        assert (withheld["instances"], withheld["reason"]) == (3, "patient or study differs there: PatientName")
        assert len(pacs.sop_instance_uids()) == 3
        told = node.command("why", dcmread(sources[0]).StudyInstanceUID).stdout
        assert "'Phantom^Test' here, 'Corrected^Name' there" in told
        assert "Corrected" not in node.log()
        node.ask("release", dcmread(sources[0]).SeriesInstanceUID, "--reason", "spelling")
        wait_until(lambda: len(pacs.sop_instance_uids()) == 6, TIMEOUT_S, "what was released arrived")
        assert node.stop() == 0


@pytest.mark.peer("dcmtk")
def test_what_a_gate_withheld_is_released_by_a_person_or_done_again_after_a_fix(
    tmp_path: Path, archive: StoreScp
) -> None:
    first, second = (woven(phantom_series(tmp_path / str(seed), 3, seed)) for seed in (1, 2))
    careful, bold = (
        settings({"archive": archive}, [{**RULE, "send_results": ["archive"], "send": [], "settings": one}])
        for one in ({"ct-nlm": {"strength": 0.4}}, {"ct-nlm": {"strength": 1.0}})
    )
    with Node(tmp_path / "node", careful) as node:
        assert storescu(node.call(), [*first, *second]) == 0
        node.wait_for_log("job_withheld", times=2, timeout_s=TIMEOUT_S)
        listed = {entry["about"]: entry["id"] for entry in node.ask("quarantine", "list")["entries"]}
        job = listed[dcmread(first[0]).SeriesInstanceUID].removeprefix("job:")
        node.ask("release", job, "--reason", "the weave is real")
        wait_until(lambda: len(arrived(archive)) == 3, TIMEOUT_S, "what was released arrived")
        node.configure(bold)
        node.reload()
        node.wait_for_log("config_applied", times=4)
        assert node.ask("quarantine", "requeue", "--all", "--reason-like", "noise goes")["done"] == [
            listed[dcmread(second[0]).SeriesInstanceUID]
        ]
        wait_until(lambda: len(arrived(archive)) == 6, TIMEOUT_S, "what was done again arrived")
        assert node.ask("quarantine", "list")["entries"] == []
        assert node.stop() == 0
    notes = {"Released after review" in dcmread(path).DerivationDescription for path in of_study(archive, first)}
    assert notes == {True}
    assert not any("Released" in dcmread(path).DerivationDescription for path in of_study(archive, second))


def of_study(archive: StoreScp, sources: list[Path]) -> list[Path]:
    study = dcmread(sources[0]).StudyInstanceUID
    files = [path for path in archive.files.rglob("*") if path.is_file()]
    return [path for path in files if dcmread(path, stop_before_pixels=True).StudyInstanceUID == study]


def woven(paths: list[Path]) -> list[Path]:
    """The series with a texture that repeats itself: no filter that looks for its like takes it for noise."""
    tile = np.random.default_rng(0).normal(1064.0, 25.0, (5, 5))
    tile[2, 2], tile[0, 0] = 985.0, 980.0  # darker than water: the gate before the engine wants some of that
    for path in paths:
        dataset = dcmread(path)
        pixels = np.tile(tile, (dataset.Rows // 5 + 1, dataset.Columns // 5 + 1))[: dataset.Rows, : dataset.Columns]
        dataset.PixelData = np.rint(pixels).astype("<u2").tobytes()
        dataset.save_as(path)
    return paths


def with_name(source: Path, folder: Path, name: str) -> Path:
    """A copy of a file under another patient's name."""
    folder.mkdir(exist_ok=True)
    dataset = dcmread(source)
    dataset.PatientName = name
    dataset.save_as(folder / source.name)
    return folder / source.name
