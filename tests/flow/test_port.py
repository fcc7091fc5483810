"""The workflow engine behind our port, for real: on SQLite, in processes of its own, one of them killed."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from dicomnode.errors import ConfigError, InputError
from dicomnode.flow.port import RECOVERIES, _JsonSerializer
from dicomnode.store.locks import exclusive


def engine(folder: Path, *arguments: str, url: str = "") -> tuple[int, list[str]]:
    """Run an action of `engine_process`; its exit code and all that steps have noted."""
    command = [sys.executable, "-m", "tests.flow.engine_process", str(folder), *arguments]
    environment = {**os.environ, "ENGINE_URL": url}
    process = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert process.returncode in (0, -signal.SIGKILL), process.stderr
    return process.returncode, (folder / "steps").read_text().splitlines()


def rows(folder: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(folder / "node.sqlite")) as database:
        return database.execute(query).fetchall()


def test_a_workflow_is_enqueued_with_our_transaction_or_not_at_all(tmp_path: Path) -> None:
    _, noted = engine(tmp_path, "transactions")
    assert noted == ["taken over 0", "unfinished []", "first kept", "second after result of kept", "end result of kept"]
    assert rows(tmp_path, "SELECT patient_id FROM patient") == [("committed",)]


def test_the_same_id_again_does_nothing_not_even_in_another_life(tmp_path: Path) -> None:
    engine(tmp_path, "run", "same", "3")
    _, noted = engine(tmp_path, "run", "same", "1")
    assert noted.count("first same") == 1
    assert noted.count("end result of same") == 1


@pytest.fixture(name="url", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.peer("postgresql"))])
def _url(request: pytest.FixtureRequest) -> str:
    return "" if request.param == "sqlite" else str(request.getfixturevalue("new_postgresql_url")())


@pytest.mark.parametrize("way", sorted(RECOVERIES))
def test_what_a_killed_process_had_begun_goes_on_where_its_queue_is_served(tmp_path: Path, url: str, way: str) -> None:
    code, noted = engine(tmp_path, "run", "killed", "1", url=url)
    assert code == -signal.SIGKILL
    assert noted == ["taken over 0", "first killed", "second after result of killed"]
    _, noted = engine(tmp_path, "give_back", way, url=url)
    assert noted[3:] == ["given back 1, then 0", "waits ['pair:killed']"], "who serves another queue does not run it"
    _, noted = engine(tmp_path, "resume", "1", url=url)
    assert noted[5:] == ["taken over 0", "second after result of killed", "end result of killed"], (
        "no finished step is repeated"
    )


def test_what_was_lost_on_its_way_from_the_queue_is_found_and_given_back(tmp_path: Path, url: str) -> None:
    _, noted = engine(tmp_path, "drop", url=url)
    assert noted[1] == "dropped ['pair:lost']"
    assert noted[4] == "dropped ['pair:lost']", "what runs is not lost"
    assert noted[-1] == "dropped []"
    assert [line for line in noted if line.startswith("end")] == ["end result of lost", "end result of slow"]


def test_one_workflow_follows_another(tmp_path: Path) -> None:
    _, noted = engine(tmp_path, "chain")
    ends = [line for line in noted if line.startswith("end")]
    assert ends == ["end result of chain", "end result of chain next", "end result of chain next next"]


def test_a_delayed_workflow_holds_no_other_up(tmp_path: Path) -> None:
    _, noted = engine(tmp_path, "delayed")
    assert "unfinished ['pair:late', 'pair:now']" in noted
    assert [line for line in noted if line.startswith("end")] == ["end result of now", "end result of late"]


def test_what_the_engine_keeps_is_json_and_no_foreign_text(tmp_path: Path) -> None:
    """Pickles would let whoever can write to the database run code; texts of errors may quote a data set."""
    engine(tmp_path, "errors")
    engine(tmp_path, "run", "calm", "1")
    kept = rows(tmp_path, "SELECT inputs, output, error, serialization FROM workflow_status")
    kept += rows(tmp_path, "SELECT NULL, output, error, serialization FROM operation_outputs")
    assert len(kept) >= 5
    texts = [text for row in kept for text in row[:3] if text is not None]
    for text in texts:
        json.loads(str(text))
    assert {row[3] for row in kept if row[3] is not None} == {"dicomnode_json"}
    assert any("it cannot be read" in str(text) for text in texts)
    assert any("ValueError" in str(text) for text in texts)
    with closing(sqlite3.connect(tmp_path / "node.sqlite")) as database:
        assert not any("Doe^Jane" in line for line in database.iterdump())


def test_its_record_does_not_grow_for_ever(tmp_path: Path) -> None:
    _, noted = engine(tmp_path, "forget")
    assert noted[-1] == "forgotten 0, then 1"
    assert rows(tmp_path, "SELECT workflow_uuid FROM workflow_status") == [("pair:waits",)]


def test_the_engines_tables_stand_beside_ours(tmp_path: Path) -> None:
    engine(tmp_path, "resume", "0")
    tables = {name for (name,) in rows(tmp_path, "SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert {"workflow_status", "operation_outputs", "series", "outbox"} <= tables


def test_values_and_errors_survive_the_serializer() -> None:
    serializer = _JsonSerializer()
    for value in (None, 1, "ü", [1, [2]], {"a": {"b": None}}):
        assert serializer.deserialize(serializer.serialize(value)) == value
    revived = serializer.deserialize(serializer.serialize(InputError("no", "hint")))
    assert isinstance(revived, Exception)
    assert str(revived) == "InputError: no"
    assert "Doe" not in serializer.serialize(KeyError("Doe^Jane"))
    with pytest.raises(TypeError, match="object"):
        serializer.serialize({"a": object()})


def test_a_data_folder_has_one_holder_of_each_lock(tmp_path: Path) -> None:
    with exclusive(tmp_path, "flow.lock"):
        with pytest.raises(ConfigError, match="another dicomnode") as caught, exclusive(tmp_path, "flow.lock"):
            pass
        assert caught.value.hint
        with exclusive(tmp_path, "node.lock"):
            pass
    with exclusive(tmp_path, "flow.lock"):
        pass


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib\nfrom dicomnode.store.locks import exclusive\n"
        "with exclusive(pathlib.Path(sys.argv[1]), 'flow.lock'):\n    print('held', flush=True)\n    sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ConfigError), exclusive(tmp_path, "flow.lock"):
            pass
        holder.kill()
        holder.wait()
    with exclusive(tmp_path, "flow.lock"):
        pass
