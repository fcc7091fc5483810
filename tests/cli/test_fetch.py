"""find and fetch: questions to an archive, a node that fetches, and the exit codes of how it ended."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dicomnode.cli.console import FAILED, OK, PARTLY, USAGE
from dicomnode.config import Config
from dicomnode.flow.retrieving import Retrieving
from dicomnode.operations.status import status
from dicomnode.operations.telling.retrieval import retrieval_status
from dicomnode.operations.why import why
from dicomnode.serve.retrieve import terms
from dicomnode.store.index.actions import user
from dicomnode.store.schema import Action, Process, Retrieval
from tests.cli.conftest import Command
from tests.flow.archive import Archive, running
from tests.flow.rooms import Flow
from tests.flow.test_retrieving import study
from tests.operations.sites import index_of, site

STUDY = str(study()[0].StudyInstanceUID)


def pacs_at(tmp_path: Path, archive: Archive, **peer: Any) -> Config:
    """A site whose `pacs` is the archive; its configuration is ./dicomnode.toml."""
    address = {"ae_title": "PACS", "host": "127.0.0.1", "port": archive.port}
    return site(tmp_path, peer={"ct1": {"ae_title": "SCANNER"}, "pacs": {**address, **peer}},
                retrieve={"initial_s": 0.1, "maximum_s": 0.1})  # fmt: skip


@contextmanager
def fetching(config: Config) -> Iterator[Flow]:
    """A node that fetches, as far as commands can see."""
    with index_of(config) as flow:
        database = flow.reception.database
        now = time.time()
        with database.write() as session:
            session.add(Process(role="retrieve", host="h", home="x", pid=1, executor_id="x", roles=["retrieve"],
                                version="1", started_at=now, beat_at=now))  # fmt: skip
        worker = Retrieving(database, flow.reception.intake, "worker", terms(config))
        worker.start()
        yield flow
        assert worker.is_alive
        worker.stop()


def test_find_lists_what_an_archive_holds(tmp_path: Path, command: Command) -> None:
    images = study()
    images[0].StudyDescription = "\x1b[31mred"  # no terminal is to be rewritten
    with running(Archive(images)) as archive:
        pacs_at(tmp_path, archive)
        told = command("find", "pacs", "--study", STUDY, "--date", "20200101-")
        assert told.code == OK
        assert told.out.splitlines()[0] == "pacs: 1 study"
        assert STUDY in told.out
        assert "\x1b" not in told.out
        found = command("find", "pacs", "--level", "series", "--study", STUDY, "--json").json
        assert [match["SeriesInstanceUID"] for match in found["matches"]] == [["1.2.7.1"], ["1.2.7.2"]]
        assert found["is_all"]
        few = command("find", "pacs", "--level", "image", "--study", STUDY, "--series", "1.2.7.1", "--most", "3")
        assert (few.code, few.out.splitlines()[0]) == (OK, "pacs: 3 images")
        assert "there are more" in few.out
        assert command("find", "pacs", "--study", "1.2.3.4").out == "pacs: 0 studies\n"


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("find", "pacs", "--level", "series"), "needs a study"),
        (("find", "pacs", "--level", "image", "--study", "1.2"), "needs a series"),
        (("find", "pacs", "--date", "yesterday"), "no date"),
        (("fetch", "pacs"), "either a study or an accession number"),
        (("fetch", "pacs", "--study", "1.2", "--accession", "A1"), "either a study or an accession number"),
        (("fetch", "pacs", "--study", "1.2/../3"), "no UID"),
        (("fetch", "pacs", "--study", "1.2", "--series", "*"), "no UID"),
        (("fetch", "pacs", "--accession", "A*"), "no accession number"),
        (("fetch", "pacs", "--study", "1.2", "--get", "--move"), "exclude each other"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    tmp_path: Path, command: Command, arguments: tuple[str, ...], what: str
) -> None:
    pacs_at(tmp_path, Archive([]))
    told = command(*arguments)
    assert (told.code, len(told.error_lines)) == (USAGE, 2)
    assert what in told.error_lines[0]


def test_fetch_waits_for_the_node_and_tells_how_it_ended(tmp_path: Path, command: Command) -> None:
    with running(Archive(study())) as archive, fetching(config := pacs_at(tmp_path, archive)) as flow:
        told = command("fetch", "pacs", "--accession", "A1", "--series", "1.2.7.1")
        assert (told.code, told.err) in ((OK, ""), (OK, "from pacs: 4 of 4\n"))
        assert told.out == "retrieval 1 from pacs: complete: 4 of 4 instances in 1 series, counted against C-FIND\n"
        archive.silently_keeps = {"1.2.7.2.3"}
        told = command("fetch", "pacs", "--study", STUDY, "--get")
        assert told.code == PARTLY
        assert "missing: 1.2.7.2.3\n" in told.out
        told = command("fetch", "pacs", "--study", STUDY, "--series", "1.2.7.1")
        assert told.code == OK
        story = "\n".join(why(config, "1.2.7.1").lines())
        assert f"asked of pacs, and all here already, for {user()} (retrieval 3, complete): 4 of 4 instances" in story
        told = command("fetch", "pacs", "--study", "1.2.3.4", "--json")
        assert (told.code, told.json["state"], told.json["missing"]) == (FAILED, "failed", [])
        story = "\n".join(why(config, "1.2.7.2").lines())
        assert f"fetched from pacs by C-GET for {user()} (retrieval 2, partial): 3 of 4 instances here" in story
        assert [row.what for row in flow.reception.rows(Action)] == ["fetch"] * 4
        with flow.reception.database.read() as session:
            shown = retrieval_status(session, time.time())
        problems = [(one.kind, one.about) for one in status(config).problems]
        assert [one for one in problems if one[0] == "unfetched"] == [("unfetched", "1.2.3.4"), ("unfetched", STUDY)]
        assert shown.lines() == ("fetched   2 complete, 1 partial, 1 failed in the last day; 0 to be fetched",)


def test_what_nobody_does_yet_waits(tmp_path: Path, command: Command) -> None:
    config = pacs_at(tmp_path, Archive([]), retrieve="move")
    with index_of(config) as flow:
        told = command("fetch", "pacs", "--study", STUDY)
        assert told.code == FAILED
        assert "once the node runs" in told.out
        told = command("fetch", "pacs", "--study", STUDY, "--no-wait", "--json")
        assert (told.code, told.json["state"], told.json["is_worked_on"]) == (OK, "ready", False)
        assert [row.requested_by for row in flow.reception.rows(Retrieval)] == [user()] * 2
        with flow.reception.database.read() as session:
            head, first, _ = retrieval_status(session, time.time()).lines()
    assert head.endswith("2 to be fetched")
    assert first == "  1 from pacs waits after 0 attempts"


def test_only_a_peer_that_can_be_called_is_fetched_from(tmp_path: Path, command: Command) -> None:
    with index_of(pacs_at(tmp_path, Archive([]))):
        for peer, what in (("ct1", "has no host and port"), ("pasc", "did you mean 'pacs'?")):
            told = command("fetch", peer, "--study", STUDY)
            assert told.code == FAILED
            assert what in told.err
