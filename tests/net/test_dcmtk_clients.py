"""DCMTK's clients with their options: every transfer syntax that they propose, odd PDU sizes, repetition, aborts."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate

from dicomnode.core.types import AssociationEnd
from dicomnode.net.contexts import TRANSFER_SYNTAXES
from dicomnode.net.scp.server import StorageServer
from dicomnode.testing.objects import data_set_bytes
from dicomnode.testing.peers import Call
from dicomnode.testing.processes import wait_until
from tests.end_to_end.studies import phantom_series
from tests.net.clients import EXPLICIT, IMPLICIT, MemoryIntake

pytestmark = pytest.mark.peer("dcmtk")

BIG_ENDIAN = "1.2.840.10008.1.2.2"
UNCOMPRESSED = {"-x=": EXPLICIT, "-xe": EXPLICIT, "-xb": EXPLICIT, "-xi": IMPLICIT}
"""What comes of storescu's proposals: of several uncompressed syntaxes in a context we take explicit little endian."""
COMPRESSED = ("-xs", "-xy", "-xx", "-xv", "-xw", "-xt", "-xu", "-xr", "-xd")
VIDEO = ("-xm", "-xh", "-xn", "-xl", "-x2", "-x3", "-xo", "-x4", "-x5")
TO_RECEIVE = (4096, 4097, 5001, 16_383, 16_384, 65_537, 131_071, 131_072)
TO_SEND = (4096, 4098, 5002, 16_382, 65_538, 131_070, 131_072)
"""Even ones: DCMTK fails itself where it would have to send an odd one ("odd block length encountered")."""
SIZES = [("-pdu", size) for size in TO_RECEIVE] + [("--max-send-pdu", size) for size in TO_SEND]


@pytest.fixture(scope="module", name="series")
def _series(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return phantom_series(tmp_path_factory.mktemp("series"), slices=3)


@pytest.fixture(name="call")
def _call(server: StorageServer) -> Iterator[Call]:
    yield Call(server.port, "NODE", "SCANNER")


def run(program: str, call: Call, *options: str, paths: list[Path] | None = None) -> int:
    """One of DCMTK's clients as it is, without the options that our other tests give it."""
    command = [program, *options, *call.options, *call.address, *map(str, paths or [])]
    return subprocess.run(command, capture_output=True, timeout=120, check=False).returncode


def data_sets(series: list[Path]) -> dict[str, bytes]:
    return {dcmread(path).SOPInstanceUID: data_set_bytes(path.read_bytes()) for path in series}


def syntaxes(intake: MemoryIntake) -> set[str]:
    return {offer.transfer_syntax_uid for offer, _ in intake.stored}


@pytest.mark.parametrize(("option", "syntax"), UNCOMPRESSED.items())
@pytest.mark.parametrize("combined", [False, True], ids=["separate", "combined"])
def test_every_uncompressed_proposal(
    option: str, syntax: str, combined: bool, series: list[Path], call: Call, intake: MemoryIntake
) -> None:
    """All classes that storescu knows are proposed, and 128 contexts at most."""
    assert run("storescu", call, option, *(["+C"] if combined else []), paths=series) == 0
    assert {offer.sop_instance_uid for offer, _ in intake.stored} == data_sets(series).keys()
    assert syntaxes(intake) <= {EXPLICIT, IMPLICIT, BIG_ENDIAN}
    if combined or option == "-xi":
        assert syntaxes(intake) == {syntax}


@pytest.mark.parametrize("option", COMPRESSED)
def test_every_compressed_proposal(option: str, series: list[Path], call: Call, intake: MemoryIntake) -> None:
    """Uncompressed images go in one of the uncompressed contexts beside it (deflated ones in theirs)."""
    assert run("storescu", call, option, "-R", paths=series) == 0
    assert {offer.sop_instance_uid for offer, _ in intake.stored} == data_sets(series).keys()
    assert syntaxes(intake) <= {EXPLICIT, IMPLICIT, BIG_ENDIAN, "1.2.840.10008.1.2.1.99"}


@pytest.mark.parametrize("option", VIDEO)
def test_every_video_proposal_is_accepted(
    option: str, series: list[Path], call: Call, intake: MemoryIntake, tmp_path: Path
) -> None:
    """A file that says it is a video is sent as one: of what it holds nobody has to know anything."""
    names = {"-xm": 100, "-xh": 101, "-xn": 102, "-xl": 103, "-x2": 104, "-x3": 105, "-xo": 106, "-x4": 107, "-x5": 108}
    syntax = f"1.2.840.10008.1.2.4.{names[option]}"
    assert syntax in TRANSFER_SYNTAXES
    dataset = dcmread(series[0])
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([b"no video at all!"])
    dataset["PixelData"].is_undefined_length = True
    dataset["PixelData"].VR = "OB"
    path = tmp_path / "video.dcm"
    dataset.save_as(path, enforce_file_format=True)
    assert run("storescu", call, option, "-R", paths=[path]) == 0
    assert syntaxes(intake) == {syntax}


@pytest.mark.parametrize(("option", "size"), SIZES)
@pytest.mark.parametrize("program", ["storescu", "dcmsend"])
def test_any_pdu_size(
    program: str, option: str, size: int, series: list[Path], call: Call, intake: MemoryIntake
) -> None:
    assert run(program, call, option, str(size), paths=series) == 0
    assert intake.contents() == data_sets(series)


def test_repetition_and_invented_instances(series: list[Path], call: Call, intake: MemoryIntake) -> None:
    assert run("storescu", call, "--repeat", "4", paths=series) == 0
    assert len(intake.stored) == 12
    assert intake.contents().keys() == data_sets(series).keys()
    assert run("storescu", call, "--repeat", "3", "+II", "+IR", "2", "+IS", "2", paths=series) == 0
    assert len(intake.stored) == 21
    assert len(intake.contents()) == 12


@pytest.mark.parametrize("program", ["storescu", "echoscu"])
def test_an_abort_instead_of_a_release(program: str, series: list[Path], call: Call, intake: MemoryIntake) -> None:
    assert run(program, call, "--abort", paths=series if program == "storescu" else None) == 0
    assert intake.await_end() is AssociationEnd.ABORTED
    assert intake.contents() == (data_sets(series) if program == "storescu" else {})


def test_several_associations_of_dcmsend(series: list[Path], call: Call, intake: MemoryIntake) -> None:
    for option in ("+ma", "-ma", "-dn", "+dls", "+dly", "-nuc"):
        assert run("dcmsend", call, option, paths=series) == 0
    assert len(intake.stored) == 18
    assert intake.contents() == data_sets(series)


@pytest.mark.parametrize(
    "options", [("-pts", "1"), ("-pts", "38"), ("-ppc", "128"), ("-ppc", "128", "-pts", "38"), ("--repeat", "50"),
                ("-pdu", "4097"), ("-ta", "5", "-td", "5")],
)  # fmt: skip
def test_verification(options: tuple[str, ...], call: Call, intake: MemoryIntake) -> None:
    assert run("echoscu", call, *options) == 0
    wait_until(lambda: [how for _, how in intake.ended] == [AssociationEnd.RELEASED], 10, "the association ended")


@pytest.mark.parametrize("options", [("-usr", "user", "-pwd", "secret"), ("-usr", "user", "-epw")])
def test_a_user_identity_changes_nothing(
    options: tuple[str, ...], series: list[Path], call: Call, intake: MemoryIntake
) -> None:
    """PS3.7 D.3.3.7: an acceptor that does not support it lets the association be."""
    assert run("storescu", call, *options, paths=series) == 0
    assert intake.contents() == data_sets(series)
