"""`dicomnode serve`: joins ports to rooms, starts the processes, restarts what dies, and ends all cleanly.

supervisor.py  starts and watches the processes
process.py     what every process does: signals, signs of life, its role's start, reload and stop
receive.py     deliver.py  flow.py: the processes; flow has the roles route, enhance and derive
wiring.py      from the configuration to what more than one of them takes
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from dicomnode.config import Config

__all__ = ["serve"]


def serve(config: Config, log_format: Literal["console", "json"] | None, only: Collection[str] | None = None) -> int:
    """Run the node until a signal ends it; the exit code. `only` names the roles to run here; None is all."""
    from dicomnode.serve.supervisor import Supervisor

    return Supervisor(config, log_format, only).run()
