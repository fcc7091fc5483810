"""Who holds a data folder, and who only looks."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

from dicomnode.store.locks import NODE_LOCK, Holder, exclusive, exclusive_after_others, holder


def test_the_holder_is_told_by_its_pid(tmp_path: Path) -> None:
    assert holder(tmp_path / "nowhere", NODE_LOCK) is None
    assert holder(tmp_path, NODE_LOCK) is None
    with exclusive(tmp_path, NODE_LOCK):
        assert holder(tmp_path, NODE_LOCK) == Holder(os.getpid())
    assert holder(tmp_path, NODE_LOCK) is None, "what it wrote stays, its lock does not"


def test_who_looks_keeps_no_node_from_starting(tmp_path: Path) -> None:
    (tmp_path / NODE_LOCK).touch()
    with (tmp_path / NODE_LOCK).open() as looked_at:
        fcntl.flock(looked_at, fcntl.LOCK_SH)
        threading.Timer(0.2, lambda: fcntl.flock(looked_at, fcntl.LOCK_UN)).start()
        with exclusive_after_others(tmp_path, NODE_LOCK, 0.5):
            assert holder(tmp_path, NODE_LOCK) == Holder(os.getpid())
