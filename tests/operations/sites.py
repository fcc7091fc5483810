"""A site's configuration, and an index with something of everything in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dicomnode.config import Config, load_config
from dicomnode.core.types import Outcome
from dicomnode.core.types import Receipt as Answer
from dicomnode.serve.wiring import routing
from dicomnode.store.index import outbox
from dicomnode.store.index.retrying import RetryPolicy
from dicomnode.testing.node import toml
from tests.flow.rooms import Flow, flowing

TREE: dict[str, Any] = {
    "node": {"ae_title": "DICOMNODE", "durability": "none"},
    "limits": {"disk_reserve": "1 MB"},
    "peer": {
        "ct1": {"ae_title": "SCANNER"},
        "pacs": {"ae_title": "PACS", "host": "10.0.0.2", "port": 104},
    },
    "destination": {"pacs": {"peer": "pacs"}, "late": {"peer": "pacs", "forward": "when-complete"}},
    "rule": [
        {
            "name": "low-dose chest", "match": {"Modality": "CT", "BodyPartExamined": "CHEST"},
            "engines": ["ct-nlm"], "send": ["pacs"],
        },
        {"name": "keep", "match": {"Modality": "CT"}, "send": ["late"]},
    ],
}  # fmt: skip


def site(folder: Path, **tables: Any) -> Config:
    """The configuration, with other tables where given."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dicomnode.toml").write_text(toml({**TREE, **tables}))
    return load_config(folder / "dicomnode.toml")


@contextmanager
def index_of(config: Config, engines: Mapping[str, Any] | None = None) -> Iterator[Flow]:
    """The flow of a site, for a test to fill."""
    with flowing(config.node.data, routing(config), engines) as flow:
        yield flow


def answer(flow: Flow, row: int, outcome: Outcome, meaning: str = "meaning", status: int | None = 0xA900) -> None:
    """One answer of a destination."""
    with flow.reception.database.write() as session:
        receipt = Answer(row, outcome, None if status is None else status, meaning, "hint", False)
        outbox.record_answer(session, receipt, RetryPolicy(patience_s=1e10), 5000.0)
