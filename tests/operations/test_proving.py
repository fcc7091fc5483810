"""`jobs prove`: a person has a destination asked anew."""

from __future__ import annotations

from pathlib import Path

from dicomnode.config import Config
from dicomnode.operations.proving import prove
from dicomnode.settings import NodeSettings
from dicomnode.store.schema import Action, Proof
from tests.store.receiving import ct_header, receiving


def test_what_was_given_up_is_due_again_and_who_wanted_it_is_kept(tmp_path: Path) -> None:
    config = Config(node=NodeSettings(data=tmp_path))
    with receiving(tmp_path) as reception:
        reception.receive(ct_header(1))
        with reception.database.write() as session:
            session.add(
                Proof(
                    series_row=1, destination="pacs", due_at=None, began_at=1.0, method="find", asks=2, asked_at=None,
                    answered_at=2.0, failures={}, resends=3, meaning="1 not held", hint="look there",
                )
            )  # fmt: skip
        assert prove(config, "archive", None).lines() == ("no proof was given up",)
        answer = prove(config, "pacs", None)
        assert (answer.nothing, answer.lines()) == (False, ("pacs is asked about 1 series",))
        assert [proof.due_at is not None for proof in reception.rows(Proof)] == [True]
        assert [(row.what, row.subject) for row in reception.rows(Action)] == [("jobs prove", "pacs")]
        assert prove(config, None, None).nothing
