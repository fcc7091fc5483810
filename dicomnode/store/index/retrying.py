"""How often and how long a destination is tried."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Back-off doubles from `initial_s` to `maximum_s`, each with up to 10 % jitter; `patience_s` ends it.

    probe_s  longest pause between two probes of a destination that is down as a whole: they cost it nothing
    """

    initial_s: float = 30.0
    maximum_s: float = 1800.0
    patience_s: float = 72 * 3600.0
    probe_s: float = 60.0

    def delay_s(self, failures: int) -> float:
        """Pause after the given number of failures in a row (1 or more)."""
        return _jittered(min(self.initial_s * 2.0 ** (min(failures, 64) - 1), self.maximum_s))

    def probe_delay_s(self, failures: int) -> float:
        """The same for a destination as a whole."""
        return _jittered(min(self.initial_s * 2.0 ** (min(failures, 64) - 1), self.maximum_s, self.probe_s))


def _jittered(plain_s: float) -> float:
    return plain_s * random.uniform(1.0, 1.1)  # noqa: S311  spreads retries, protects nothing
