"""Whether a plan may compute: its golden test, and parity with another runtime on real slices.

Builds are not repeatable bit for bit: kernels are chosen by measured times. So each plan is proved on the GPU that it
was built on, by the tolerance that its bundle declares for the precision, before it computes for anyone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from engines.base import Engine, Value
from engines.bundle.golden import Difference, Golden, compare
from engines.card import Precision


@dataclass(frozen=True)
class Proof:
    """golden  what the golden test found, by way and output; parity  the same against `reference`, for each case."""

    reference: str
    golden: tuple[Difference, ...]
    parity: tuple[tuple[Difference, ...], ...]

    @property
    def passed(self) -> bool:
        """All within tolerance, and there were real slices: without them nothing is proved."""
        everything = (self.golden, *self.parity)
        return bool(self.parity) and all(difference.passed for each in everything for difference in each)

    @property
    def lines(self) -> tuple[str, ...]:
        golden = (f"golden test: {_judged(difference)}" for difference in self.golden)
        parity = (
            f"against {self.reference} on real slices, series {number}: {_judged(difference)}"
            for number, differences in enumerate(self.parity, 1)
            for difference in differences
        )
        return tuple(dict.fromkeys((*golden, *parity, *(() if self.parity else ("no real slices were given",)))))


def prove(
    test: Golden, precision: Precision, ways: Sequence[Engine], reference: Engine, cases: Sequence[Mapping[str, Value]]
) -> Proof:
    """Run both tests. `reference` computes with another runtime; `cases` are real inputs.

    ways  the plans' engine in each way that is to be proved, such as in large batches and slice by slice
    """
    settings = reference.card.resolve(test.settings)
    wanted = [replace(test, inputs=case, outputs=reference.run(case, settings)) for case in cases]
    return Proof(
        reference=reference.card.runtime,
        golden=tuple(one for way in ways for one in compare(test, precision, way.run(test.inputs, settings))),
        parity=tuple(
            tuple(one for way in ways for one in compare(each, precision, way.run(each.inputs, settings)))
            for each in wanted
        ),
    )


def _judged(difference: Difference) -> str:
    return f"{difference}: {'passed' if difference.passed else 'FAILED'}"
