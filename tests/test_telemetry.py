"""The log: a closed list of events and fields, and nothing that could be a patient's."""

from __future__ import annotations

import ast
import errno
import io
import json
import logging
import os
import string
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicomnode import telemetry

ROOT = Path(__file__).resolve().parents[1]
PATIENT = "Doe^Jane"


@pytest.fixture(autouse=True)
def _restore(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for variable in ("DICOMNODE_CHILD_LOG_FORMAT", "DICOMNODE_CHILD_LOG_LEVEL"):
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)
    hooks = sys.excepthook, threading.excepthook, warnings.showwarning
    loggers = [logging.getLogger(name) for name in ("", *telemetry.LIBRARIES)]
    before = [(logger, logger.handlers[:], logger.propagate, logger.level) for logger in loggers]
    yield
    sys.excepthook, threading.excepthook, warnings.showwarning = hooks
    for logger, handlers, propagate, level in before:
        logger.handlers[:] = handlers
        logger.propagate = propagate
        logger.setLevel(level)
    structlog.reset_defaults()


def logged(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_an_event_is_one_line_with_its_level_and_fields(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure("json", "info")
    telemetry.event("association_refused", calling_ae="CT1", reason="unknown")
    (line,) = logged(capsys)
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "association_refused", "level": "warning", "calling_ae": "CT1", "reason": "unknown"}


def test_a_line_for_people_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure("console", "info")
    telemetry.event("association_refused", calling_ae="CT1")
    line = capsys.readouterr().err
    assert "association_refused" in line
    assert "calling_ae=CT1" in line


def test_a_quieter_event_than_the_level_is_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure("json", "info")
    telemetry.event("association_opened", calling_ae="CT1")
    assert logged(capsys) == []


def test_nothing_is_written_before_someone_asks_for_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    structlog.reset_defaults()
    telemetry.event("association_refused", calling_ae="CT1")
    assert capsys.readouterr() == ("", "")


def test_what_is_not_declared_raises_in_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DICOMNODE_STRICT_EVENTS", "1")
    with pytest.raises(LookupError, match="patient_name"):
        telemetry.event("association_refused", patient_name=PATIENT)
    with pytest.raises(LookupError, match="never_heard_of"):
        telemetry.event("never_heard_of")


def test_what_is_not_declared_is_left_out_in_production(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DICOMNODE_STRICT_EVENTS")
    telemetry.configure("json", "info")
    telemetry.event("association_refused", calling_ae="CT1", patient_name=PATIENT)
    telemetry.event("never_heard_of", calling_ae="CT1")
    (line,) = logged(capsys)
    assert line.keys() == {"event", "level", "timestamp", "calling_ae"}


def test_values_that_peers_choose_are_made_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure("console", "info")
    telemetry.event("association_refused", calling_ae="\x1b[2J\nnode_stopped ", reason="x" * 10_000)
    written = capsys.readouterr().err
    assert written.count("\n") == 1
    assert "\x1b" not in written
    assert len(written) < 1000


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(st.text())
def test_any_text_gives_one_line_of_json(text: str) -> None:
    cleaned = telemetry.sanitise(None, "info", {"reason": text, "sop_instance_uid": text})
    assert json.dumps(cleaned, ensure_ascii=False).encode().splitlines() == [
        json.dumps(cleaned, ensure_ascii=False).encode()
    ]
    assert cleaned["sop_instance_uid"] == "(not a UID)" or set(text) <= set(string.digits + ".")


def test_a_name_in_place_of_a_uid_is_not_written() -> None:
    assert telemetry.sanitise(None, "", {"sop_instance_uid": PATIENT}) == {"sop_instance_uid": "(not a UID)"}
    assert telemetry.sanitise(None, "", {"status": 0xA700}) == {"status": "0xA700"}


def _fail() -> None:
    raise ValueError(PATIENT)


def test_libraries_warnings_and_crashes_say_where_but_not_what(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure("json", "info")
    for library in ("pydicom", "pydicom.valuerep", "pynetdicom", "sqlalchemy.engine", "dbos", "anything.else"):
        logging.getLogger(library).warning("value %s", PATIENT)
        logging.getLogger(library).info("value %s", PATIENT)
    for _ in range(3):
        warnings.warn(f"invalid value {PATIENT}", UserWarning, stacklevel=1)
    thread = threading.Thread(target=_fail)
    thread.start()
    thread.join()
    try:
        _fail()
    except ValueError as error:
        sys.excepthook(type(error), error, error.__traceback__)
    lines = logged(capsys)
    assert PATIENT not in json.dumps(lines)
    assert [line["event"] for line in lines] == ["library_message"] * 7 + ["thread_failed"] * 2
    assert all("test_telemetry:" in line["location"] for line in lines)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), BrokenPipeError()])
def test_a_log_that_cannot_be_written_stops_nobody(monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    class Failing(io.StringIO):
        def write(self, text: str, /) -> int:
            raise error

    monkeypatch.setattr("sys.stderr", Failing())
    telemetry.configure("json")
    telemetry.event("config_applied", role="deliver")


def test_child_processes_log_as_their_parent_does(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure("json", "error")
    handed_on = os.environ["DICOMNODE_CHILD_LOG_FORMAT"], os.environ["DICOMNODE_CHILD_LOG_LEVEL"]
    assert handed_on == ("json", "error")
    telemetry.configure_child()
    telemetry.event("node_started")
    telemetry.event("connection_failed", reason="no more files")
    assert [line["event"] for line in logged(capsys)] == ["connection_failed"]


@pytest.mark.parametrize("name", telemetry.EVENTS)
def test_every_declaration_is_sound(name: str) -> None:
    declared = telemetry.EVENTS[name]
    assert declared.field_names <= telemetry.FIELDS.keys()
    assert declared.level in get_args(telemetry.Level)
    assert len(declared.fields.split()) == len(declared.field_names)


def test_no_field_is_declared_in_vain() -> None:
    used = {field for declared in telemetry.EVENTS.values() for field in declared.field_names}
    assert telemetry.FIELDS.keys() == used


def emitted() -> Iterator[tuple[str, str, set[str]]]:
    """(file and line, event, fields) of every event in the sources; no fields where the name is not written out."""
    for path in sorted((ROOT / "dicomnode").rglob("*.py")):
        module = ast.parse(path.read_text())
        texts = {
            node.value for node in ast.walk(module) if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        for call in ast.walk(module):
            if isinstance(call, ast.Call) and ast.unparse(call.func) in ("event", "telemetry.event"):
                place = f"{path.relative_to(ROOT)}:{call.lineno}"
                written_out = isinstance(call.args[0], ast.Constant)
                fields = {keyword.arg for keyword in call.keywords if keyword.arg is not None and written_out}
                yield from ((place, name, fields) for name in names_in(call.args[0], texts))


def names_in(name: ast.expr, texts: set[str]) -> list[str]:
    """The events that an expression may name; for a variable, those that its module names anywhere."""
    match name:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr(values=[ast.Constant(value=str(start)), *_]):
            return [event for event in telemetry.EVENTS if event.startswith(start)]
        case ast.Name():
            return sorted(texts & telemetry.EVENTS.keys())
    raise AssertionError(f"cannot tell which event this is: {ast.unparse(name)}")


def test_the_sources_emit_what_is_declared() -> None:
    undeclared = [
        (place, name, sorted(fields))
        for place, name, fields in emitted()
        if name not in telemetry.EVENTS or not fields <= telemetry.EVENTS[name].field_names
    ]
    assert undeclared == []


def test_what_is_declared_is_emitted_somewhere() -> None:
    assert telemetry.EVENTS.keys() - {name for _, name, _ in emitted()} == set()
