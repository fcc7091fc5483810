"""`python -m chaos --seeds 20 --series 20`: exit code 0 where nothing was lost and nothing was doubled."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench.results import aligned
from chaos.run import Outcome, Run, forget
from chaos.story import unexplained

RESULTS: Final = Path(__file__).parents[1] / "out" / "chaos"
_SHOWN: Final = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """0 where every seed passed."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: leave no server running
    asked = _asked(arguments)
    kept = asked.results / time.strftime("%Y-%m-%dT%H%M%S")
    kept.mkdir(parents=True)
    outcomes = []
    for seed in range(asked.first, asked.first + asked.seeds):
        folder = kept / f"seed-{seed}"
        folder.mkdir()
        outcomes.append(Run(folder, seed, asked.series, asked.patience).run())
        forget(folder)
        print(_line(outcomes[-1]), file=sys.stderr, flush=True)
    report = _report(outcomes)
    (kept / "report.md").write_text(f"{report}\n")
    print(f"{report}\n\n{kept}")
    return 0 if all(outcome.passed for outcome in outcomes) else 1


def _asked(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="how many runs")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--series", type=int, default=20, help="of one run")
    parser.add_argument("--patience", type=float, default=300.0, help="seconds to wait for it all, once all is mended")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder to work in and write to")
    return parser.parse_args(arguments)


def _line(outcome: Outcome) -> str:
    verdict = "passed" if outcome.passed else "FAILED"
    return (
        f"  seed {outcome.seed}: {verdict} in {outcome.seconds:.0f} s, "
        f"lost {outcome.lost}, doubled {outcome.doubled}, sent twice {outcome.sent_twice}"
    )


def _report(outcomes: Sequence[Outcome]) -> str:
    rows = [
        [
            str(each.seed), str(each.series), str(2 * each.instances), str(each.lost), str(each.doubled),
            str(each.sent_twice), f"{each.settled_s:.0f}", str(unexplained(each.delays)), f"{each.seconds:.0f}",
        ]
        for each in outcomes
    ]  # fmt: skip
    head = [
        "seed", "series", "instances expected at each destination", "lost", "doubled", "sent twice",
        "s until all was there, once all was mended", "delays without a fault", "s",
    ]  # fmt: skip
    lost, doubled = sum(each.lost for each in outcomes), sum(each.doubled for each in outcomes)
    said = [f"- seed {each.seed}: {problem}" for each in outcomes for problem in _problems(each)]
    skipped = sorted({f"Left out: {each.skipped}." for each in outcomes if each.skipped})
    total = f"{len(outcomes)} runs: {lost} instances lost, {doubled} doubled."
    return "\n".join([total, *skipped, "", aligned([head, *rows]), *([""] if said else []), *said])


def _problems(outcome: Outcome) -> list[str]:
    found = list(outcome.problems)
    for name, verdict in outcome.verdicts.items():
        wrong = (*verdict.lost, *verdict.doubled)
        found += [f"{name}: {each}" for each in wrong[:_SHOWN]]
        found += [f"{name}: and {len(wrong) - _SHOWN} more"] if len(wrong) > _SHOWN else []
    return found


if __name__ == "__main__":
    sys.exit(main())
