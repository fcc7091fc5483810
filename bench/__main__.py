"""`python -m bench [receive] [engines]`: prints one table for each. Needs dcmtk and orthanc for `receive`."""

from __future__ import annotations

import sys
from collections.abc import Callable

from bench import engines, receive

BENCHES: dict[str, Callable[[], None]] = {"receive": receive.run, "engines": engines.run}


def main() -> None:
    for name in sys.argv[1:] or BENCHES:
        BENCHES[name]()


if __name__ == "__main__":
    main()
