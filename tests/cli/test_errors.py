"""What goes wrong is said in two lines, on standard error, with an exit code that says whose fault it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file

from dicomnode.cli import ask
from dicomnode.cli.app import app, run
from dicomnode.cli.console import complain, outcome
from tests.cli.conftest import Command

USAGE = [
    (["nonsense"], "No such command", "dicomnode --help"),
    (["check", "--nonsense"], "No such option: --nonsense", "dicomnode check --help"),
    (["echo"], "Missing argument 'PEER'", "dicomnode echo --help"),
    (["send", "."], "Missing option '--to'", "dicomnode send --help"),
    (["serve", "--log-format", "xml"], "xml", "dicomnode serve --help"),
    (["rules", "explain", "nowhere.dcm"], "nowhere.dcm", "dicomnode rules explain --help"),
    (["rules"], "a command is missing: explain", "dicomnode rules --help"),
    (["engines"], "a command is missing: list", "dicomnode engines --help"),
    (["enhance", ".", "out", "--engine", "ct-nlm", "--set", "strength"], "no '='", "KEY=VALUE"),
]


def test_what_came_from_outside_does_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    complain("the network has the outputs \x1b[2Jz", "known here: \x9b31m")
    assert capsys.readouterr().err == "error: the network has the outputs ?[2Jz\n next: known here: ?31m\n"


@pytest.mark.parametrize(("arguments", "what", "hint"), USAGE)
def test_a_wrong_command_line_exits_2(command: Command, arguments: list[str], what: str, hint: str) -> None:
    ran = command(*arguments)
    assert (ran.code, ran.out) == (2, "")
    first, second = ran.error_lines
    assert first.startswith("error: ")
    assert what in first
    assert second.startswith(" next: ")
    assert hint in second


@pytest.mark.parametrize("name", ["check", "serve", "status", "echo", "send", "why", "rules"])
def test_a_missing_configuration_exits_1_and_says_how_to_get_one(command: Command, name: str, tmp_path: Path) -> None:
    file = tmp_path / "file.dcm"
    file.touch()
    arguments = {
        "echo": ["echo", "pacs"],
        "send": ["send", tmp_path, "--to", "pacs"],
        "why": ["why", "1.2.3"],
        "rules": ["rules", "explain", file],
    }
    ran = command(*arguments.get(name, [name]))
    assert (ran.code, ran.out) == (1, "")
    assert ran.error_lines == [
        "error: there is no configuration file dicomnode.toml",
        " next: write one with: dicomnode init (or name one: --config FILE)",
    ]


def test_a_faulty_configuration_is_two_lines(command: Command, tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text("[node]\nprot = 1\n")
    ran = command("status", "--config", tmp_path / "x.toml")
    assert ran.code == 1
    assert ran.error_lines == [f"error: {tmp_path}/x.toml: [node] prot: unknown key", " next: did you mean 'port'?"]


@pytest.mark.parametrize("arguments", [["status"], ["why", "1.2.3"], ["echo", "pacs"], ["send", ".", "--to", "pacs"]])
def test_an_error_in_a_rule_stops_no_command_that_uses_no_rules(
    command: Command, tmp_path: Path, arguments: list[str]
) -> None:
    (tmp_path / "dicomnode.toml").write_text("[[rule]]\nname = 'x'\nmach = {}\n")
    assert "unknown key" not in command(*arguments).err
    assert "unknown key 'mach'" in command("check").out


def test_an_unknown_engine_is_answered_with_the_nearest(command: Command, tmp_path: Path) -> None:
    asked = ("enhance", ".", "out", "--engine", "ct-nml")
    ran = command(*asked)
    assert ran.code == 1
    assert ran.error_lines[0] == "error: there is no engine 'ct-nml'"
    assert "did you mean 'ct-nlm'?" in ran.error_lines[1] and "no configuration was read" in ran.error_lines[1]
    site(tmp_path)
    assert command(*asked).error_lines == [
        "error: there is no engine 'ct-nml'",
        " next: did you mean 'ct-nlm'? (or add its bundle: dicomnode engines add FOLDER)",
    ]


def test_ctrl_c_is_not_a_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ask, "configured", interrupted)
    assert run(["status"]) == 130
    assert capsys.readouterr().err.splitlines() == ["error: stopped", " next: run it again to go on"]


@pytest.mark.parametrize(("failed", "partly", "code"), [(False, False, 0), (True, False, 1), (False, True, 3)])
def test_work_that_has_parts_tells_all_from_some(failed: bool, partly: bool, code: int) -> None:
    assert outcome(failed, partly) == code


def test_crashes_are_left_to_the_log() -> None:
    """typer would print local variables, and with them whatever a data set holds."""
    assert app.pretty_exceptions_enable is False


def site(folder: Path, data: str = "data") -> Path:
    """A configuration, and the place of its index."""
    (folder / "dicomnode.toml").write_text(f'[node]\nhost = "127.0.0.1"\nport = 11199\ndata = "{data}"\n')
    return folder / data / "node.sqlite"


def index_with(content: bytes, folder: Path) -> None:
    index = site(folder)
    index.parent.mkdir()
    index.write_bytes(content)


DAMAGED = b"Doe^Jane" * 1000


@pytest.mark.parametrize("content", [DAMAGED, b""], ids=["damaged", "empty"])
@pytest.mark.parametrize("arguments", [["status"], ["why", "1.2.3"]], ids=["status", "why"])
def test_an_index_that_cannot_be_used_is_two_lines(
    command: Command, tmp_path: Path, arguments: list[str], content: bytes
) -> None:
    index_with(content, tmp_path)
    ran = command(*arguments)
    assert (ran.code, ran.out, len(ran.error_lines)) == (1, "", 2), ran.err
    assert "node.sqlite" in ran.error_lines[0]
    assert "dicomnode check" in ran.error_lines[1]
    assert "Doe" not in ran.err


@pytest.mark.parametrize(
    ("subject", "what"), [(".", "is a folder"), ("/no/such", "no such file"), ("x.dcm", "no such file")]
)
def test_why_says_when_a_file_is_none(command: Command, subject: str, what: str) -> None:
    ran = command("why", subject)
    assert (ran.code, len(ran.error_lines)) == (2, 2)
    assert what in ran.error_lines[0]


def test_an_accession_number_with_a_slash_is_no_file(command: Command, tmp_path: Path) -> None:
    site(tmp_path)
    assert "nothing has been stored" in command("why", "2024/17").err


def test_a_node_does_not_start_on_a_damaged_index_and_says_so_in_two_lines(tmp_path: Path) -> None:
    index_with(DAMAGED, tmp_path)
    serve = [sys.executable, "-m", "dicomnode", "serve"]  # it takes the signals of its process
    ran = subprocess.run(serve, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, len(ran.stderr.splitlines())) == (1, 2), ran.stderr


def test_check_tells_a_damaged_index(command: Command, tmp_path: Path) -> None:
    index_with(DAMAGED, tmp_path)
    ran = command("check")
    assert ran.code == 1
    assert "node.sqlite cannot be read as a database" in ran.out


@pytest.mark.parametrize(
    "arguments",
    [["demo", "--folder", "file"], ["enhance", "{image}", "file/out", "--engine", "contrast-glcae"], ["serve"]],
    ids=["demo", "enhance", "serve"],
)
def test_a_folder_that_cannot_be_made_is_two_lines(command: Command, tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "file").touch()
    if arguments[0] == "serve":
        site(tmp_path, "file/data")
    image = str(get_testdata_file("CT_small.dcm"))
    ran = command(*(argument.format(image=image) for argument in arguments))
    assert (ran.code, ran.out) == (1, "")
    what, hint = [line for line in ran.error_lines if "node_stop" not in line]
    assert what.startswith("error: ")
    assert "file" in what
    assert hint.startswith(" next: ")


def test_who_reads_no_further_gets_no_traceback(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "dicomnode", "engines", "list"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as listing:  # fmt: skip
        assert listing.stdout is not None
        assert listing.stderr is not None
        listing.stdout.close()
        assert listing.stderr.read() == b""
