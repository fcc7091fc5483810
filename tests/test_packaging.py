"""What setuptools makes of the packages: every file is in the wheel, and what they import is among what it requires."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def metadata() -> ConfigParser:
    parser = ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def package_data() -> dict[str, list[str]]:
    return {
        package: [pattern.strip() for pattern in patterns.replace("\n", ",").split(",") if pattern.strip()]
        for package, patterns in metadata()["options.package_data"].items()
    }


def carried(file: Path, patterns: dict[str, list[str]]) -> bool:
    if file.suffix == ".py" and (file.parent / "__init__.py").exists():
        return True
    return any(
        file.relative_to(folder).match(pattern)
        for package, listed in patterns.items()
        if file.is_relative_to(folder := ROOT / package.replace(".", "/"))
        for pattern in listed
    )


@pytest.mark.parametrize("package", ["dicomnode", "engines", "trainers"])
def test_the_wheel_carries_every_file(package: str) -> None:
    files = [file for file in (ROOT / package).rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    patterns = package_data()
    assert files
    assert [file for file in files if not carried(file, patterns)] == []


def required(*extras: str) -> set[str]:
    """The distributions that an installation with these extras asks for."""
    parser = metadata()
    lists = [parser["options"]["install_requires"], *(parser["options.extras_require"][extra] for extra in extras)]
    return {plain(line) for listed in lists for line in listed.splitlines() if line.strip()}


def plain(requirement: str) -> str:
    """The name of a distribution as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\s\[<>=#]", requirement.strip(), maxsplit=1)[0]).lower()


def imported(package: str) -> set[str]:
    """The distributions that the modules of a package import themselves, wherever in them."""
    modules = {name for file in (ROOT / package).rglob("*.py") for name in imported_names(ast.parse(file.read_text()))}
    brought_by = packages_distributions()
    foreign = modules - sys.stdlib_module_names - {"dicomnode", "engines", "trainers"}
    return {plain(name) for module in foreign for name in brought_by.get(module, ())}


def imported_names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def test_trainers_import_what_their_extra_brings_and_it_brings_no_more() -> None:
    named = imported("trainers") | {"tensorboard"}  # torch.utils.tensorboard is a face of it
    assert named - required("train") == set()
    assert required("train") - required() - named == set()


def test_the_tests_have_what_trainers_need() -> None:
    """But BM3D, whose licence not everybody may accept."""
    assert required("train", "evaluate") - required("test") == {"bm3d"}
