"""What setuptools puts into the wheel: every file of the packages, also those that no package holds."""

from __future__ import annotations

from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def package_data() -> dict[str, list[str]]:
    parser = ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return {
        package: [pattern.strip() for pattern in patterns.replace("\n", ",").split(",") if pattern.strip()]
        for package, patterns in parser["options.package_data"].items()
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
