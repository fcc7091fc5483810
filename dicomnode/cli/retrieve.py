"""find, fetch: what a peer holds, and having the node pull it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

import typer

from dicomnode.cli.console import FAILED, OK, PARTLY, ConfigOption, JsonOption, configured, progress, show
from dicomnode.cli.network import PeerArgument
from dicomnode.errors import UsageError

StudyOption = Annotated[str, typer.Option("--study", metavar="UID", help="Study Instance UID.")]
AccessionOption = Annotated[str, typer.Option("--accession", metavar="NUMBER", help="Accession Number.")]


class QueryLevel(StrEnum):
    """What `dicomnode find` lists."""

    PATIENT = "patient"
    STUDY = "study"
    SERIES = "series"
    IMAGE = "image"


def find(
    peer: PeerArgument,
    level: Annotated[QueryLevel, typer.Option("--level", help="What to list.")] = QueryLevel.STUDY,
    patient_id: Annotated[str, typer.Option("--patient-id", help="Patient ID; * and ? stand for others.")] = "",
    patient_name: Annotated[str, typer.Option("--patient-name", help="Patient's Name, as in MUELLER*.")] = "",
    accession: AccessionOption = "",
    study: StudyOption = "",
    series: Annotated[str, typer.Option("--series", metavar="UID", help="Series Instance UID.")] = "",
    modality: Annotated[str, typer.Option("--modality", help="Modality, as in CT.")] = "",
    date: Annotated[str, typer.Option("--date", help="Study Date: 20261121, 20261101-20261130, 20261101-.")] = "",
    most: Annotated[int, typer.Option("--most", min=1, max=10_000, help="How many matches to list.")] = 200,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> int:
    """Ask a peer what it holds (C-FIND). The answer shows patient data."""
    from dicomnode.operations.find import Level, Query, search

    wanted = Level(level.value.upper())
    query = Query(wanted, patient_id, patient_name, accession, study, series, modality, date, most)
    show(search(configured(config, rules_matter=False), peer, query), as_json)
    return OK


def fetch(
    peer: PeerArgument,
    study: StudyOption = "",
    accession: AccessionOption = "",
    series: Annotated[
        list[str] | None, typer.Option("--series", metavar="UID", help="Only this series; may be given several times.")
    ] = None,
    by_get: Annotated[bool, typer.Option("--get", help="By C-GET, whatever the configuration says.")] = False,
    by_move: Annotated[bool, typer.Option("--move", help="By C-MOVE to this node.")] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not wait until it has ended.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> int:
    """Have the node pull a study from a peer: counted against its C-FIND, and processed as if it had been sent."""
    from dicomnode.operations import fetch as do

    settings = configured(config, rules_matter=False)
    retrieval = do.fetch(settings, do.wanted(peer, study, accession, series or (), _method(by_get, by_move)))
    with progress() as report:
        answer = do.follow(settings, retrieval, None if no_wait else report)
    show(answer, as_json)
    ended = {"complete": OK, "partial": PARTLY, "failed": FAILED}
    return ended.get(answer.state.value, OK if no_wait else FAILED)


def _method(by_get: bool, by_move: bool) -> Literal["auto", "get", "move"]:
    if by_get and by_move:
        raise UsageError("--get and --move exclude each other", "leave both out: what the configuration says is done")
    return "get" if by_get else "move" if by_move else "auto"
