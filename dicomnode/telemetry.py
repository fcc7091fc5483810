"""Every log event of the node is declared here once; nothing else is ever written to the log.

    telemetry.event("association_refused", calling_ae=..., source_address=..., reason=...)

No log line carries a patient's name, ID, birth date, accession number or free text. That is kept by construction:
an event has a closed list of fields (`EVENTS`), a field has one meaning (`FIELDS`), a UID that is no UID is not
written, and what libraries log is reduced to where it happened. An undeclared event or field is a mistake of ours:
it raises where $DICOMNODE_STRICT_EVENTS is set (our tests), and is left out elsewhere.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import threading
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from traceback import walk_tb
from types import MappingProxyType, TracebackType
from typing import Final, Literal, TextIO, cast

import structlog
from structlog.typing import EventDict, Processor

__all__ = ["EVENTS", "FIELDS", "Event", "configure", "configure_child", "event"]

Level = Literal["debug", "info", "warning", "error"]
Value = str | int | float | bool | None

FIELDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "association_id": "row id of an association",
        "calling_ae": "AE title that the caller gave",
        "called_ae": "AE title that the caller asked for",
        "source_address": "address that the caller connected from",
        "peer": "name of a configured peer",
        "destination": "name of a configured destination",
        "address": "host and port of a peer or of ours",
        "how": "how an association or a process ended",
        "sop_class_uid": "SOP Class UID",
        "sop_instance_uid": "SOP Instance UID",
        "series_instance_uid": "Series Instance UID",
        "series_id": "row id of a series",
        "job_id": "row id of an enhancement job",
        "outbox_id": "row id of a delivery",
        "retrieval_id": "row id of a retrieval",
        "instances": "how many instances",
        "bytes": "how many bytes",
        "seconds": "how long it took",
        "retry_s": "when it will be tried again",
        "attempt": "which attempt this was, counted from 1",
        "status": "DIMSE status",
        "rule": "name of a rule",
        "rules": "how many rules",
        "engine": "name and version of an engine",
        "runtime": "what computes an engine's networks, with its version and precision",
        "precision": "what an engine's networks are computed in",
        "fingerprint": "which key signed a bundle: first 16 digits of the SHA-256 of the public key",
        "gate": "name of a safety gate",
        "proof": "how it was proved that a destination holds something: commitment, find or receipts",
        "state": "what it was judged to be",
        "role": "role of a process",
        "machine": "name of a machine",
        "executor": "a process in one of its lives",
        "workflows": "how many workflows",
        "workflow": "id of a workflow, made of row ids",
        "pid": "process id",
        "exit_status": "exit status of a process",
        "version": "version of the node",
        "path": "a path from the configuration, or below the data folder",
        "reason": "why, in the words of this program",
        "hint": "what to do next, in the words of this program",
        "error": "class of an error",
        "library": "name of a library",
        "location": "file and line of code",
        "severity": "level that a library gave its message",
    }
)


@dataclass(frozen=True, slots=True)
class Event:
    """One kind of log line: how loud, what it means, which fields it may have (names with spaces between them)."""

    level: Level
    meaning: str
    fields: str

    @property
    def field_names(self) -> frozenset[str]:
        return frozenset(self.fields.split())


EVENTS: Final[Mapping[str, Event]] = MappingProxyType(
    {
        # the node and its processes
        "node_started": Event("info", "the node is ready", "version address pid rules path"),
        "node_stopping": Event("info", "the node was asked to stop and finishes what is open", "reason"),
        "node_stopped": Event("info", "the node has stopped", "seconds"),
        "config_loaded": Event("info", "the configuration was read (again)", "path rules"),
        "certificate_ends": Event(
            "warning", "our TLS certificate ends within 30 days, or has ended, or cannot be read",
            "reason hint",
        ),
        "config_applied": Event("info", "a process works by the configuration that was read again", "role"),
        "config_needs_restart": Event("warning", "a changed setting takes effect at a restart only", "reason"),
        "config_rejected": Event(
            "error", "the changed configuration has errors; the old one stays in force",
            "path error reason hint",
        ),
        "process_started": Event("info", "a process of the node was started", "role pid"),
        "process_ended": Event("warning", "a process of the node ended and is started again", "role pid exit_status"),
        "process_killed": Event(
            "error", "a process did not end in time when the node was stopped, and was killed",
            "role pid seconds",
        ),
        "sign_of_life_failed": Event(
            "error", "a process works but can write no sign of life: the disk may be full",
            "role error",
        ),
        "database_lost": Event(
            "error", "the database is out of reach; what needs it waits, and C-STORE answers 0xA700", "error hint",
        ),
        "database_found": Event("info", "the database answers again", "seconds"),
        "work_taken_over": Event(
            "warning", "a process gave no sign of life; what it had begun was given back to the queues",
            "machine executor workflows",
        ),
        "work_resumed": Event(
            "warning", "a workflow was lost by an error of the node; what it was to do goes on or is begun anew",
            "workflow",
        ),
        "reception_lost": Event(
            "warning", "a receiver of another machine died; the associations that it had are taken for broken off",
            "machine role",
        ),
        "place_lost": Event(
            "error", "a process ends: another has its place by now, or its work was taken over", "role",
        ),
        "process_waiting": Event("warning", "a process waits for one before it to end", "role reason"),
        "metrics_unavailable": Event(
            "error", "a process measures nothing: its files could not be made",
            "role reason",
        ),
        "thread_failed": Event(
            "error", "a thread ended by an error that nothing expected",
            "role location error",
        ),
        "library_message": Event(
            "warning", "a library logged something; its text is withheld",
            "library severity location error",
        ),
        # associations and reception
        "association_opened": Event(
            "debug", "a caller opened an association",
            "calling_ae called_ae source_address peer association_id",
        ),
        "association_ended": Event(
            "info", "an association ended",
            "calling_ae called_ae source_address peer association_id how instances bytes seconds",
        ),
        "association_end_lost": Event(
            "error", "the end of an association could not be recorded: its series wait for silence instead",
            "association_id error",
        ),
        "association_refused": Event(
            "warning", "a caller was refused",
            "calling_ae called_ae source_address peer association_id reason hint",
        ),
        "connection_ended": Event(
            "debug", "a connection ended without an association",
            "source_address reason",
        ),
        "tls_failed": Event(
            "warning", "a caller could not agree with us on TLS, or refused us",
            "source_address reason hint",
        ),
        "connection_failed": Event("error", "a connection could not be taken in", "reason hint"),
        "protocol_violated": Event(
            "warning", "a caller broke the DICOM protocol and was cut off",
            "source_address association_id reason",
        ),
        "strays_set_aside": Event(
            "warning", "files without a row were found at a start, and set aside", "instances path hint",
        ),
        "instance_refused": Event(
            "warning", "an instance was not taken in",
            "association_id peer sop_class_uid sop_instance_uid status error reason hint",
        ),
        "notification_refused": Event(
            "warning",
            "what a peer told by an N-service was not taken: a report that we did not ask it for, a step that has "
            "ended, or nothing that can be read",
            "association_id peer sop_class_uid sop_instance_uid status reason",
        ),
        "step_noted": Event(
            "info", "a modality told of a performed procedure step",
            "peer sop_instance_uid state instances",
        ),
        "availability_noted": Event("info", "a peer told which instances it has available", "peer instances"),
        "instance_version": Event(
            "info", "other bytes came under a known SOP Instance UID, or it was sent back; all of them are kept",
            "peer calling_ae sop_instance_uid state",
        ),
        # completeness, rules, engines
        "series_closed": Event(
            "info", "a series was judged complete, or incomplete and no longer waited for",
            "series_id series_instance_uid state instances reason",
        ),
        "series_held": Event(
            "warning", "a series is incomplete at its deadline and waits for a person: dicomnode close",
            "series_id series_instance_uid instances reason",
        ),
        "need_unmet": Event(
            "warning", "a rule waits no longer for other series of a study that it needs", "rule state reason",
        ),
        "series_close_asked": Event(
            "info", "a person had a series closed before it was judged complete", "series_id series_instance_uid",
        ),
        "series_routed": Event(
            "info", "the rules were applied to a complete series",
            "series_id series_instance_uid rules rule",
        ),
        "series_unrouted": Event(
            "warning", "no rule matches a series; it is kept",
            "series_id series_instance_uid rule reason",
        ),
        "plan_failed": Event(
            "error", "the rules could not be applied to a complete series",
            "series_id series_instance_uid error reason hint",
        ),
        "job_finished": Event(
            "info", "an engine has finished and its output passed the gates",
            "job_id series_id engine instances seconds",
        ),
        "job_refused": Event(
            "warning", "an input is outside what the engine was made for",
            "job_id series_id engine gate reason",
        ),
        "job_withheld": Event(
            "warning", "an output failed a safety gate and is not delivered",
            "job_id series_id engine gate reason",
        ),
        "job_flagged": Event(
            "warning", "an output failed a safety gate and is delivered all the same, marked as such",
            "job_id series_id engine reason",
        ),
        "phantom_out_of_limits": Event(
            "warning", "a phantom did not measure what it should", "job_id series_id reason hint",
        ),
        "quality_drift": Event(
            "warning", "a figure of one scanner, protocol and engine has moved away from what it was",
            "job_id series_id reason hint",
        ),
        "job_failed": Event(
            "error", "an enhancement failed",
            "job_id series_id engine attempt retry_s error reason hint",
        ),
        "job_repeated": Event(
            "info", "what an engine reads has not changed since it ran: nothing was computed again",
            "job_id series_id engine",
        ),
        "engine_process_lost": Event(
            "warning", "an engine process died, or hung and was ended; what it computed is computed again",
            "reason instances",
        ),
        "rejection_applied": Event(
            "warning", "a rejection note (IHE IOCM) was read, and what it rejects is cancelled",
            "peer sop_instance_uid state instances reason",
        ),
        "rejection_ignored": Event(
            "warning", "a rejection note rejects nothing that its sender may reject, or cannot be read",
            "peer sop_instance_uid instances reason hint",
        ),
        "derived_withdrawn": Event(
            "warning", "a destination is sent a rejection note on derived objects that hold no longer",
            "destination sop_instance_uid instances reason",
        ),
        "withdrawal_failed": Event(
            "error", "a rejection note on derived objects that hold no longer could not be written; it is tried again",
            "destination error reason hint",
        ),
        "series_derived": Event(
            "info", "a derived series was built and stored",
            "job_id series_id series_instance_uid engine instances seconds",
        ),
        # engine bundles
        "engine_added": Event(
            "info", "a person installed an engine bundle; without a fingerprint no trusted key vouches for it",
            "engine fingerprint",
        ),
        "engine_switched": Event("info", "a person made another version of an engine the one in use", "engine"),
        "engine_removed": Event("info", "a person deleted a version of an engine", "engine"),
        "engine_opened": Event(
            "info", "an engine's networks were opened; the reason tells what else was looked at",
            "engine runtime reason",
        ),
        "engine_unusable": Event(
            "error", "an engine that rules name cannot be opened here; its jobs fail, originals are received and sent",
            "engine rule reason hint",
        ),
        "engine_not_proved": Event(
            "error", "an engine did not pass its golden test here: it is computed otherwise, or not at all",
            "engine runtime reason",
        ),
        "plan_activated": Event(
            "info", "a TensorRT plan was built and proved on this machine: it computes from now on", "engine precision"
        ),
        "plan_refused": Event(
            "warning", "a TensorRT plan could not be built or proved: another runtime computes",
            "engine precision reason",
        ),
        # review, quarantine, retention and the disk
        "review_decided": Event(
            "info", "a person released, discarded, requeued or dismissed something",
            "state job_id series_id series_instance_uid instances",
        ),
        "job_released": Event(
            "info", "a result that a gate withheld goes on, as a person released it", "job_id series_id engine"
        ),
        "commissioning_keeps": Event(
            "warning", "commissioning has begun: what is derived and has not left yet is kept back", "instances"
        ),
        "stray_taken_in": Event("info", "a file without a row was taken in after all", "path sop_instance_uid"),
        "stray_refused": Event(
            "warning", "a file without a row cannot be taken in; it stays where it was", "path error reason hint"
        ),
        "series_purged": Event(
            "info", "the files of a series were deleted by retention; its rows stay",
            "series_id series_instance_uid instances bytes reason",
        ),
        "purge_failed": Event(
            "error", "files that retention deletes cannot be removed; it is tried again", "retry_s error reason hint"
        ),
        "disk_changed": Event(
            "warning", "the disk has become fuller than a limit allows, or is emptier again", "state bytes reason hint"
        ),
        "patient_differs": Event(
            "warning", "a destination has another patient or study than a derived series says: it is kept back",
            "destination series_id series_instance_uid instances reason",
        ),
        "patient_not_checked": Event(
            "warning", "a destination cannot be asked about patient and study; derived objects for it wait, or leave "
            "unchecked where that is allowed",
            "destination address retry_s error reason hint",
        ),
        # retrieval
        "retrieval_requested": Event("info", "a person wants something to be fetched from a peer", "retrieval_id peer"),
        "retrieval_started": Event("info", "a peer is asked for what was to be fetched", "retrieval_id peer attempt"),
        "retrieval_ended": Event(
            "info", "all that a peer listed was fetched, by our own count", "retrieval_id peer instances seconds",
        ),
        "retrieval_incomplete": Event(
            "error", "something that was to be fetched did not come, and is not asked for any more",
            "retrieval_id peer state instances seconds reason hint",
        ),
        "retrieval_postponed": Event(
            "warning", "a peer could not be fetched from now; it will be tried again",
            "retrieval_id peer attempt retry_s error reason hint",
        ),
        # delivery
        "delivery_sent": Event(
            "debug", "an instance arrived at a destination",
            "outbox_id destination sop_instance_uid status",
        ),
        "delivery_finished": Event("info", "a batch was delivered", "destination instances seconds"),
        "delivery_refused": Event(
            "warning", "a destination refused an instance",
            "outbox_id destination sop_instance_uid status reason hint",
        ),
        "delivery_excluded": Event(
            "info", "the configuration keeps an instance from a destination",
            "outbox_id destination sop_instance_uid status reason hint",
        ),
        "delivery_failed": Event(
            "warning", "a delivery has failed for good: the destination does not take it, or breaks off at it",
            "outbox_id destination sop_instance_uid status attempt error reason hint",
        ),
        "proof_asked": Event(
            "debug", "a destination was asked whether it holds what it was sent",
            "destination series_instance_uid proof instances",
        ),
        "proof_confirmed": Event(
            "info", "it is proved that a destination holds instances that it was sent",
            "destination series_instance_uid proof instances",
        ),
        "proof_missing": Event(
            "error", "a destination does not hold instances though it had answered success; they are sent again",
            "destination series_instance_uid proof instances attempt reason hint",
        ),
        "proof_given_up": Event(
            "error", "a destination could not be brought to prove that it holds what it was sent",
            "destination series_instance_uid proof instances reason hint",
        ),
        "proof_wanted": Event("info", "a person had a destination asked anew for proof", "destination"),
        "proof_unavailable": Event(
            "warning", "a destination cannot be asked now what it holds; it will be tried again",
            "destination address retry_s error reason hint",
        ),
        "delivery_held": Event(
            "error", "a destination has not taken deliveries within its patience; said once in an outage",
            "destination instances reason hint",
        ),
        "delivery_delayed": Event(
            "warning", "files to be sent are out of reach; their deliveries wait",
            "destination reason hint",
        ),
        "destination_down": Event(
            "warning", "a destination cannot be reached; its deliveries wait",
            "destination address attempt retry_s error reason hint",
        ),
        "destination_still_down": Event(
            "info", "a destination was tried again and cannot be reached",
            "destination address attempt retry_s error reason hint",
        ),
        "destination_up": Event("info", "a destination answers again", "destination address seconds"),
        "destination_paused": Event("info", "a person wants nothing to be sent to a destination", "destination reason"),
        "destination_resumed": Event("info", "a person wants a destination to be sent to again", "destination"),
        "deliveries_retried": Event("info", "a person wants deliveries to be tried again", "destination instances"),
        "deliveries_cancelled": Event("info", "a person wants deliveries not to be made", "destination instances"),
    }
)  # fmt: skip

LIBRARIES: Final = ("alembic", "asyncio", "dbos", "highdicom", "pydicom", "pynetdicom", "sqlalchemy")
"""Loggers whose text may quote a data set or a row: only the place is kept."""

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_UID: Final = re.compile(r"[0-9.]{1,64}")
_LONGEST: Final = 500


def event(name: str, /, **fields: Value) -> None:
    """Write one event. Its level is its declaration's."""
    declared = EVENTS.get(name)
    undeclared = fields if declared is None else fields.keys() - declared.field_names
    if (declared is None or undeclared) and os.environ.get("DICOMNODE_STRICT_EVENTS"):
        raise LookupError(f"event {name!r} with {sorted(undeclared)} is not declared in dicomnode.telemetry")
    if declared is not None:
        _log(declared.level, name, {key: value for key, value in fields.items() if key not in undeclared})


def configure(format: Literal["console", "json"] = "console", level: Level = "info") -> None:
    """Write events of `level` and above to standard error, and nothing that libraries or crashes say about content.

    Processes started from here on find the same choice in their environment: see `configure_child`.
    """
    # not DICOMNODE_LOG__LEVEL: that would override `log.level` of whatever file this process reads later
    os.environ.update(DICOMNODE_CHILD_LOG_FORMAT=format, DICOMNODE_CHILD_LOG_LEVEL=level)
    structlog.configure(
        processors=_pipeline(format),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_stderr_logger,
        cache_logger_on_first_use=False,
    )
    _withhold_library_text()
    sys.excepthook = _log_exception
    threading.excepthook = _log_thread_exception


def configure_child() -> None:
    """Log as the process that started us does."""
    format = os.environ.get("DICOMNODE_CHILD_LOG_FORMAT")
    level = os.environ.get("DICOMNODE_CHILD_LOG_LEVEL", "info")
    configure("json" if format == "json" else "console", cast(Level, level))


def _log(level: Level, name: str, fields: Mapping[str, Value]) -> None:
    if structlog.is_configured():  # as a library we say nothing before someone asked for a log
        with contextlib.suppress(OSError):  # a log on a full disk, or whose reader is gone, must not stop the work
            getattr(structlog.get_logger(), level)(name, **fields)


def _stderr_logger(*_: object) -> structlog.WriteLogger:
    return structlog.WriteLogger(sys.stderr)


def _pipeline(format: Literal["console", "json"]) -> list[Processor]:
    renderer: Processor = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=22)
    )
    return [
        sanitise,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        renderer,
    ]


def sanitise(_: object, __: str, event_dict: EventDict) -> EventDict:
    """Make hostile text harmless: no control characters, no endless values, no UID that is none. What is not known
    is left out."""
    return {key: _harmless(key, value) for key, value in event_dict.items() if value is not None}


def _harmless(key: str, value: Value) -> Value:
    if key == "status" and isinstance(value, int):
        return f"0x{value:04X}"
    if isinstance(value, float):
        return round(value, 3)
    if value is None or isinstance(value, int):
        return value
    if key.endswith("_uid") and not _UID.fullmatch(value):
        return "(not a UID)"
    text = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", str(value))
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


class _Placeholder(logging.Handler):
    """Turns a library's message into where it came from; its text may quote a data set."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else None
        location = f"{record.module}:{record.lineno}"
        event("library_message", library=record.name, severity=record.levelname.lower(), location=location, error=error)


class _WarningPlaces:
    """Turns a Python warning into where it came from, once for each place: data sets with faults bring many."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, int]] = set()

    def show(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        """Stands in for `warnings.showwarning`."""
        if (filename, lineno) in self._seen:
            return
        self._seen.add((filename, lineno))
        location = f"{Path(filename).stem}:{lineno}"
        event("library_message", library="warnings", severity="warning", location=location, error=category.__name__)


def _withhold_library_text() -> None:
    warnings.showwarning = _WarningPlaces().show
    handler = _Placeholder(logging.WARNING)
    for name in ("", *LIBRARIES):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.propagate = False
        logger.setLevel(logging.WARNING)


def _where(traceback: TracebackType | None) -> str:
    """The innermost frames of an error, the raising one first. Its text is left out: it may quote a data set."""
    frames = [f"{frame.f_globals.get('__name__', '?')}:{line}" for frame, line in walk_tb(traceback)]
    return " < ".join(frames[:-9:-1])


def _log_exception(kind: type[BaseException], _: BaseException, traceback: TracebackType | None) -> None:
    if not issubclass(kind, KeyboardInterrupt):
        event("thread_failed", role="main", location=_where(traceback), error=kind.__name__)


def _log_thread_exception(arguments: threading.ExceptHookArgs) -> None:
    kind = arguments.exc_type
    if not issubclass(kind, SystemExit):
        event("thread_failed", role="thread", location=_where(arguments.exc_traceback), error=kind.__name__)
