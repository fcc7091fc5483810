"""What is derived of a series that was incomplete at its deadline says so, where that is wanted."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset
from sqlalchemy import update

from dicomnode.core.rules import RuleSpec
from dicomnode.store.schema import Instance, Series
from tests.flow.rooms import Flow, flowing, phantom
from tests.store.receiving import routing

RULE = RuleSpec("chest", {"Modality": "CT"}, engines=("ct-nlm",), send=("pacs",))
MISSING = "1 of 5 expected instances is missing (C-FIND by pacs)"


def judged(flow: Flow, state: str, on_deadline: str) -> None:
    """A verdict as `dicomnode.flow.closing` leaves it."""
    verdict = {"state": state, "until": None, "reasons": [MISSING], "confidence": 0.95}
    with flow.reception.database.write() as session:
        session.execute(update(Series).values(verdict=verdict, on_deadline=on_deadline))


def derived(flow: Flow) -> Dataset:
    row = next(row for row in flow.reception.rows(Instance) if row.origin == "derived")
    return pydicom.dcmread(flow.reception.files.path(row.file), stop_before_pixels=True)


@pytest.mark.parametrize(
    ("state", "on_deadline", "says"),
    [
        ("incomplete", "flag", True),
        ("incomplete", "hold", True),
        ("incomplete", "proceed", False),
        ("complete", "flag", False),
    ],
)
def test_what_is_derived_says_that_its_source_is_incomplete(
    tmp_path: Path, state: str, on_deadline: str, says: bool
) -> None:
    with flowing(tmp_path, routing(RULE)) as flow:
        flow.receive(phantom())
        judged(flow, state, on_deadline)
        flow.run()
        dataset = derived(flow)
        assert flow.jobs[0].content["source_incomplete"] == ([MISSING] if says else [])
    assert (f"Source series incomplete: {MISSING}." in dataset.DerivationDescription) is says
    assert dataset.SeriesDescription.startswith("Incomplete AI " if says else "AI ")
