"""One target under libFuzzer: `python -m fuzz.one TARGET [FOLDER ...] [-option ...]`; made by `python -m fuzz`."""

from __future__ import annotations

import sys
import warnings

import atheris

warnings.simplefilter("ignore")  # pydicom warns of all that is odd, and all is odd here

with atheris.instrument_imports(include=["dicomnode"]):
    from fuzz.targets import TARGETS


def main() -> None:
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, TARGETS[name])
    atheris.Fuzz()


main()
