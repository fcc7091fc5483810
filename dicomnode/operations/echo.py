"""echo: does a peer answer?"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from dicomnode.config import Config
from dicomnode.net.contexts import VERIFICATION, ProposedContext
from dicomnode.net.scu import Opening, Timeouts, associate
from dicomnode.operations.peers import address_of

_IMPLICIT_VR_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2"
_OPENING: Final = Opening(Timeouts(connect_s=10.0, associate_s=10.0, response_s=10.0))
_SUCCESS: Final = 0x0000


@dataclass(frozen=True, slots=True)
class EchoAnswer:
    """How a peer answered C-ECHO. Times in milliseconds."""

    peer: str
    address: str
    calling_ae: str
    status: int
    associate_ms: float
    echo_ms: float

    @property
    def answered(self) -> bool:
        return self.status == _SUCCESS

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "answered": self.answered}

    def lines(self) -> Sequence[str]:
        if not self.answered:
            return [f"{self.peer} ({self.address}) answers with status 0x{self.status:04X}"]
        times = f"association in {self.associate_ms:.0f} ms, echo in {self.echo_ms:.0f} ms"
        return [f"{self.peer} ({self.address}) answers {self.calling_ae}: {times}"]


def echo(config: Config, name: str) -> EchoAnswer:
    """C-ECHO to a configured peer (PS3.4 annex A). Raises NotFoundError, ConfigError, PeerError."""
    address = address_of(config, name)
    calling_ae = config.node.ae_title
    started = time.perf_counter()
    contexts = [ProposedContext(VERIFICATION, (_IMPLICIT_VR_LITTLE_ENDIAN,))]
    with associate(address, calling_ae, contexts, _OPENING) as association:
        associated = time.perf_counter()
        status = association.echo()
        answered = time.perf_counter()
    return EchoAnswer(
        peer=name,
        address=str(address),
        calling_ae=calling_ae,
        status=status,
        associate_ms=round(1000 * (associated - started), 1),
        echo_ms=round(1000 * (answered - associated), 1),
    )
