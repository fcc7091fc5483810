"""Named points at which a test may kill the node, to prove that nothing is lost there.

Nothing happens unless `DICOMNODE_KILL_AT` names the point. Then the whole process group gets SIGKILL, once: the file
named by `DICOMNODE_KILL_ONCE` is created first, and while it exists no point kills again. `DICOMNODE_KILL_AFTER` lets
each process pass there so many times before.
"""

from __future__ import annotations

import itertools
import os
import signal
from typing import Final

POINTS: Final = (
    "receive.before_write", "receive.after_write", "receive.before_sync", "receive.after_sync",
    "receive.before_commit", "receive.after_commit",
    "route.before_enqueue", "route.after_enqueue", "route.before_plan", "route.after_plan",
    "enhance.before_engine", "enhance.after_engine", "enhance.after_result",
    "derive.before_build", "derive.after_build", "derive.before_commit", "derive.after_commit",
    "deliver.before_send", "deliver.before_receipt", "deliver.after_receipt",
)  # fmt: skip

_KILL_AT: Final = os.environ.get("DICOMNODE_KILL_AT")  # read once: some points are passed for every instance
_passes: Final = itertools.count()


def kill_point(name: str) -> None:
    """Kill the process group here if a test asks for it."""
    if name != _KILL_AT:
        return
    if next(_passes) < int(os.environ.get("DICOMNODE_KILL_AFTER", "0")):
        return
    try:
        os.close(os.open(os.environ["DICOMNODE_KILL_ONCE"], os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    os.killpg(0, signal.SIGKILL)
