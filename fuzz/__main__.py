"""`python -m fuzz --minutes 60`: every target for its share of the time, guided by what code the bytes reach.

Needs atheris (libFuzzer for Python). What a target fails on is kept in `out/fuzz`, and fails this command; what reached
something new is added to `fuzz/corpus`, reduced to the least that reaches the same, with --keep.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Final

from fuzz.reach import Step, steps_of
from fuzz.targets import TARGETS

_FOLDER: Final = Path(__file__).parent
_MOST_BYTES: Final = 4096
_MOST_MEMORY_MB: Final = 1024
_SLOWEST_S: Final = 5


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="for all targets together")
    parser.add_argument(
        "--target", choices=sorted(TARGETS), action="append", help="only this one; may be given several times"
    )
    parser.add_argument("--out", type=Path, default=Path("out/fuzz"), help="where findings and new inputs are put")
    parser.add_argument("--keep", action="store_true", help="add to the corpus what reached something new")
    options = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        print("atheris is missing: pip install atheris", file=sys.stderr)
        return 2
    targets = options.target or sorted(TARGETS)
    found = [name for name in targets if not _fuzz(name, options.minutes * 60 / len(targets), options.out)]
    if options.keep:
        for name in targets:
            _keep(name, options.out)
    print(f"{len(targets)} targets, {options.minutes:g} minutes, {len(found)} with findings: {' '.join(found)}")
    return 1 if found else 0


def _fuzz(name: str, seconds: float, out: Path) -> bool:
    """Run one target in a process of its own; whether nothing was found."""
    new = out / name
    new.mkdir(parents=True, exist_ok=True)
    command = [
        *(sys.executable, "-m", "fuzz.one", name, str(new), str(_FOLDER / "corpus" / name)),
        f"-max_total_time={max(1, int(seconds))}",
        f"-max_len={_MOST_BYTES}",
        f"-rss_limit_mb={_MOST_MEMORY_MB}",
        f"-timeout={_SLOWEST_S}",
        f"-artifact_prefix={out}/{name}-",
        "-print_final_stats=1",
        "-verbosity=0",
    ]
    ran = subprocess.run(command, stderr=subprocess.PIPE, text=True, errors="replace", check=False)
    print(
        f"{name}: {_executions(ran.stderr)} inputs, {'nothing found' if ran.returncode == 0 else 'FAILED'}", flush=True
    )
    if ran.returncode:
        print(ran.stderr[-4000:], flush=True)
    return ran.returncode == 0


def _executions(report: str) -> str:
    lines = (line.rpartition(" ")[2] for line in report.splitlines() if "number_of_executed_units" in line)
    return next(lines, "?")


def _keep(name: str, out: Path) -> None:
    """Of the old and the new inputs the least that reach all that they reach become the corpus."""
    corpus = _FOLDER / "corpus" / name
    candidates = sorted((path.read_bytes() for folder in (corpus, out / name) for path in folder.iterdir()), key=len)
    reached: set[Step] = set()
    kept = []
    for content in candidates:
        steps = steps_of(TARGETS[name], content)
        if not steps <= reached:
            kept.append(content)
            reached |= steps
    for path in corpus.iterdir():
        path.unlink()
    for content in kept:
        (corpus / hashlib.sha1(content).hexdigest()).write_bytes(content)


if __name__ == "__main__":
    sys.exit(main())
