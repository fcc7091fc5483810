"""Every command, option, setting and log event is documented, and nothing else is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
import typer.main
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from dicomnode import telemetry
from dicomnode.cli.app import app
from dicomnode.cli.console import FAILED, OK, PARTLY, STOPPED, USAGE
from dicomnode.config import Config, examine
from trainers import cli as trainers_cli

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def place(document: Path) -> str:
    """How a document is called here: two folders may have one of a name."""
    return str(document.relative_to(ROOT))


def text(name: str) -> str:
    return (ROOT / name).read_text()


def section(document: str, heading: str) -> str:
    """From a heading that begins so to the next heading of its depth or above."""
    found = re.search(rf"^(#+) {re.escape(heading)}.*?(?=^#{{1,3}} |\Z)", document, re.MULTILINE | re.DOTALL)
    assert found, f"no section {heading!r}"
    return found[0]


def commands(program: typer.Typer = app) -> dict[str, Any]:
    found = {}
    for name, command in typer.main.get_command(program).commands.items():  # type: ignore[attr-defined]
        children = getattr(command, "commands", None)
        found |= {f"{name} {sub}": child for sub, child in children.items()} if children else {name: command}
    return found


KNOWN = {"dicomnode": commands(), "trainers": commands(trainers_cli.app)}


@pytest.mark.parametrize("name", KNOWN["dicomnode"])
def test_every_command_is_documented_with_its_options(name: str) -> None:
    described = section(text("docs/commands.md"), f"`dicomnode {name}")
    for parameter in KNOWN["dicomnode"][name].params:
        if parameter.param_type_name == "option" and "--help" not in parameter.opts:
            assert parameter.opts[0] in described, f"{name} {parameter.opts[0]} is not in docs/commands.md"
    known = {option for parameter in KNOWN["dicomnode"][name].params for option in parameter.opts}
    assert set(re.findall(r"--[a-z][a-z-]*", described)) <= known


def test_no_command_is_documented_that_there_is_not() -> None:
    described = re.findall(r"^### `dicomnode ([a-z ]*[a-z])", text("docs/commands.md"), re.MULTILINE)
    assert sorted(described) == sorted(KNOWN["dicomnode"])


@pytest.mark.parametrize("name", KNOWN["trainers"])
def test_every_command_of_trainers_is_documented_with_its_options(name: str) -> None:
    assert f"| `trainers {name}" in section(text("docs/trainers/index.md"), "Commands")
    described = "".join(path.read_text() for path in (ROOT / "docs" / "trainers").glob("*.md"))
    options = {option for parameter in KNOWN["trainers"][name].params for option in parameter.opts}
    assert {option for option in options if option.startswith("--") and option not in described} == set()


def test_every_exit_code_is_documented() -> None:
    codes = re.findall(r"^\| (\d+) \|", text("docs/commands.md"), re.MULTILINE)
    assert [int(code) for code in codes] == [OK, FAILED, USAGE, PARTLY, STOPPED]
    ours = (trainers_cli.OK, trainers_cli.FAILED, trainers_cli.USAGE, trainers_cli.STOPPED)
    assert ours == (OK, FAILED, USAGE, STOPPED)


def settings_sections(model: type[BaseModel], place: str = "") -> Iterator[tuple[str, Mapping[str, FieldInfo]]]:
    """(section, its fields) for every table of the file but `[[rule]]`."""
    own = {}
    for name, entry in model.model_fields.items():
        annotation: Any = entry.annotation
        inner = f"{place}.{name}".strip(".")
        if get_origin(annotation) is Mapping:
            annotation, inner = get_args(annotation)[1], f"{inner}.NAME"
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from settings_sections(annotation, inner)
        if place:
            own[name] = entry
    if own:
        yield place, own


def documented_default(entry: FieldInfo, written: str) -> bool:
    """Whether the documentation's column `default` names the default."""
    if entry.is_required():
        return written == "required"
    if entry.default is None:
        return written == "none"
    if isinstance(entry.default, BaseModel):
        return written == "see below"
    return written.strip("`") in equal_spellings(entry.default)


def equal_spellings(default: Any) -> set[str]:
    if isinstance(default, bool):
        return {str(default).lower()}
    if isinstance(default, float | int):
        return {f"{default:g}", f'"{100 * default:g}%"', f'"{default / 2**30:g} GiB"'}
    return {"[]"} if default == () else {f'"{default}"'}


@pytest.mark.parametrize(("place", "fields"), list(settings_sections(Config)), ids=lambda value: str(value)[:40])
def test_every_setting_is_documented_with_its_default(place: str, fields: Mapping[str, FieldInfo]) -> None:
    described = section(text("docs/configuration.md"), f"[{place}]")
    rows = {row[0]: row[1] for row in re.findall(r"^\| `(\w+)` \| (.*?) \|", described, re.MULTILINE)}
    assert rows.keys() == fields.keys()
    wrong = {name: rows[name] for name, entry in fields.items() if not documented_default(entry, rows[name])}
    assert wrong == {}


@pytest.mark.parametrize("document", DOCUMENTS, ids=place)
def test_every_configuration_in_the_documentation_is_right(document: Path, tmp_path: Path) -> None:
    """Of examples that show whole sites; fragments name peers and destinations that they leave out."""
    for number, example in enumerate(re.findall(r"```toml\n(.*?)```", document.read_text(), re.DOTALL)):
        if "[node]" in example:
            path = tmp_path / f"{number}.toml"
            path.write_text(example)
            assert examine(path)[1] == ()


def test_every_log_event_is_documented() -> None:
    described = section(text("docs/operations.md"), "Events")
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*) \| (.*) \|$", described, re.MULTILINE)
    assert {name: (level, meaning, set(fields.split(", "))) for name, level, meaning, fields in rows} == {
        name: (event.level, event.meaning, set(event.field_names)) for name, event in telemetry.EVENTS.items()
    }


def test_every_log_field_is_documented() -> None:
    described = section(text("docs/operations.md"), "Fields")
    assert dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", described, re.MULTILINE)) == dict(telemetry.FIELDS)


@pytest.mark.parametrize("document", DOCUMENTS, ids=place)
def test_every_link_leads_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()):
        assert link.startswith("https://") or (document.parent / link).exists(), link


@pytest.mark.parametrize("program", ["dicomnode", "trainers"])
@pytest.mark.parametrize("document", DOCUMENTS, ids=place)
def test_every_command_line_in_the_documentation_could_be_typed(document: Path, program: str) -> None:
    known = KNOWN[program]
    whole_lines = document.read_text().replace("\\\n", " ")
    for line in re.findall(rf"^\$? ?{program} ([a-z].*)$", whole_lines, re.MULTILINE):
        words = line.partition(" # ")[0].partition(" && ")[0].split()
        name = next((name for name in (" ".join(words[:2]), words[0]) if name in known), None)
        assert name, f"{program} {line}: no such command"
        options = {option for parameter in known[name].params for option in parameter.opts}
        assert {word.partition("=")[0] for word in words if word.startswith("--")} <= options


def test_every_make_target_that_the_documentation_names_is_there() -> None:
    targets = set(re.findall(r"^([a-z]+):", text("Makefile"), re.MULTILINE))
    named = {target for document in DOCUMENTS for target in re.findall(r"`?make ([a-z]+)`?", document.read_text())}
    assert {target for target in named if target in targets} >= {"demo", "test", "lint"}
