"""The benchmark and the soak run end to end: figures mean nothing here, only that all of them are there."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench import load
from bench.__main__ import main
from bench.aims import ratios
from bench.load import Load, compiled, sent
from bench.plot import svg
from bench.receive import FLOORS, IN_MEMORY, ON_DISK, ONE_EACH
from bench.results import Case, Figures, Results, tables
from bench.servers import BenchStoreScp
from bench.studies import CT, MARKER, Kind, written
from bench.wire import Association, read

pytestmark = pytest.mark.skipif(load.compiler() is None, reason="needs a C compiler: apt-get install gcc libc6-dev")

TINY = Kind("CT 32 x 32", CT.sop_class_uid, 32)


def measured(folder: Path) -> dict[str, object]:
    (file,) = folder.glob("*/results.json")
    content: dict[str, object] = json.loads(file.read_text())
    assert content["failures"] == []
    return content


@pytest.mark.peer("dcmtk")
@pytest.mark.peer("orthanc")
def test_every_receiver_and_floor_is_measured(tmp_path: Path) -> None:
    arguments = ["--only", "receive,singles", "--rounds", "1", "--instances", "4", "--results", str(tmp_path)]
    assert main(arguments) == 0
    cases = measured(tmp_path)["cases"]
    assert isinstance(cases, list)
    subjects = {case["subject"] for case in cases if case["median"]["instances_s"] > 0}
    assert subjects == {each.name for each in (*IN_MEMORY, *ON_DISK, *ONE_EACH)} | FLOORS.keys()
    assert not list(tmp_path.glob("work-*"))


@pytest.mark.peer("dcmtk")
def test_every_sender_is_measured(tmp_path: Path) -> None:
    assert main(["--only", "send", "--rounds", "1", "--instances", "4", "--results", str(tmp_path)]) == 0
    assert measured(tmp_path)["cases"]


@pytest.mark.peer("dcmtk")
@pytest.mark.parametrize("ending", ["held", "released", "each"])
@pytest.mark.parametrize("program", ["C", "Python"])
def test_each_pass_of_a_load_is_new_to_the_receiver(
    tmp_path: Path, program: str, ending: load.Ending, monkeypatch: pytest.MonkeyPatch
) -> None:
    if program == "Python":
        monkeypatch.setattr(load, "_program", lambda: (sys.executable, "-m", "bench.blast"))
    paths = written(tmp_path / "send", TINY, 3)
    with (
        BenchStoreScp(tmp_path / "sink", "SINK") as sink,
        sent(sink.port, "SINK", Load(paths, 4, 2, ending)) as sending,
    ):
        assert (sending.instances, sending.refused, sink.stored()) == (12, 0, 12)
        received = [read(path) for path in sink.files.iterdir()]
    assert len({each.sop_instance_uid for each in received}) == 12
    stored = {each.renamed(each.sop_instance_uid[5:25], MARKER).data_set for each in received}
    assert stored == {read(path).data_set for path in paths}


def test_a_load_that_breaks_off_says_why(tmp_path: Path, port: int) -> None:
    paths = written(tmp_path / "send", TINY, 1)
    with pytest.raises(RuntimeError, match="no connection"), sent(port, "NOBODY", Load(paths, 1, 1)):
        pass


def test_a_program_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = compiled(load.SOURCE)
    when = first.stat().st_mtime_ns
    assert compiled(load.SOURCE) == first
    assert first.stat().st_mtime_ns == when


@pytest.mark.peer("dcmtk")
def test_the_wire_echoes_stores_and_breaks_off(tmp_path: Path) -> None:
    (path,) = written(tmp_path / "send", TINY, 1)
    one = read(path)
    with BenchStoreScp(tmp_path / "sink", "SINK") as sink:
        association = Association(sink.port, "SINK", "TEST", [one.context])
        assert association.store(one) == 0
        association.store_part(one.renamed(MARKER, "1" * 20), 0.5)
        association.abort()
        assert not association.is_open
        assert read(sink.files / f"CT.{one.sop_instance_uid}").data_set == one.data_set


@pytest.mark.peer("dcmtk")
def test_a_soak_of_seconds_loses_nothing(tmp_path: Path) -> None:
    """Whether anything leaks cannot be told in seconds."""
    command = [sys.executable, "-m", "bench.soak", "--minutes", "0.1", "--rest", "1", "--results", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    (report,) = tmp_path.glob("*/report.md")
    said = report.read_text()
    assert "instances acknowledged" in said
    assert "instances are" not in said, said + ended.stderr
    assert "still to be done" not in said, said + ended.stderr


def test_ratios_are_of_medians_of_the_same_case() -> None:
    results = Results()
    for subject, rates in (("dicomnode, none", (100, 300, 200)), ("storescp", (100, 90, 110))):
        for rate in rates:
            results.add(Case("receive", subject, "tmpfs in memory", CT.name, 1), Figures(rate, rate / 2))
    results.add(Case("receive", "storescp", "tmpfs in memory", CT.name, 4), Figures(1, 1))
    assert [cell.strip() for cell in ratios(results).splitlines()[-1].split("|")] == [
        "",
        "receive: dicomnode, none / storescp",
        CT.name,
        "1",
        "2.00",
        ">= 1.5",
        "reached",
        "",
    ]
    assert "| dicomnode, none |    200 |" in tables(results)
    assert svg(results).count("<rect") == 4
