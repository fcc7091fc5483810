"""`dicomnode close` as a person types it."""

from __future__ import annotations

from pathlib import Path

from dicomnode.store.schema import Series
from tests.cli.conftest import Command
from tests.operations.sites import index_of, site
from tests.store.receiving import ct_header


def test_closing_is_asked_and_told(tmp_path: Path, command: Command) -> None:
    with index_of(site(tmp_path)) as flow:
        flow.reception.receive(ct_header(1))
        ran = command("close", "1.2.3.4", "--reason", "that is all", "--json")
        assert (ran.code, ran.json) == (0, {"closing": ["1.2.3.4"], "closed": [], "rules": []})
        (series,) = flow.reception.rows(Series)
        assert series.close_by is not None
        assert command("close", "1.2.9").code == 1
