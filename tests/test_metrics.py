"""Metrics: a closed list, counted across processes, cheap, and nothing in them that comes from outside."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

from dicomnode import metrics
from dicomnode.metrics import METRICS

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _restore(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")
    monkeypatch.setattr("prometheus_client.values.ValueClass", None)
    yield
    monkeypatch.setattr(metrics, "_meter", None)


def total(folder: Path, name: str, **labels: str) -> float | None:
    """What the processes have counted together."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(folder))  # type: ignore[no-untyped-call]
    return registry.get_sample_value(name, labels)


def calls() -> Iterator[tuple[str, ast.Call]]:
    """Every call of `metrics.count` and `metrics.observe` in the node."""
    for path in (ROOT / "dicomnode").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Name(id="metrics"), attr="count" | "observe" as how)):
                    yield how, node


def test_every_metric_that_is_counted_is_declared_with_its_labels() -> None:
    kinds = {"count": "counter", "observe": "histogram"}
    counted = set()
    for how, call in calls():
        (name, labels) = (ast.literal_eval(call.args[0]), tuple(str(keyword.arg) for keyword in call.keywords))
        assert METRICS[name].kind == kinds[how], name
        assert METRICS[name].labels == labels, name
        counted.add(name)
    assert counted == {name for name, metric in METRICS.items() if metric.kind != "gauge"}


def test_every_metric_is_documented() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    rows = re.findall(r"^\| `(dicomnode_\w+)` \| (\w+) \| (.*) \| (.*) \|$", text, re.MULTILINE)
    assert {name: (kind, meaning, labels) for name, kind, meaning, labels in rows} == {
        name: (metric.kind, metric.meaning, ", ".join(metric.labels) or "-") for name, metric in METRICS.items()
    }


def test_names_say_what_they_are() -> None:
    for name, metric in METRICS.items():
        assert name.endswith("_total") == (metric.kind == "counter"), name
        assert bool(metric.buckets) == (metric.kind == "histogram"), name


def test_nothing_is_counted_before_it_is_asked_for(tmp_path: Path) -> None:
    metrics.count("dicomnode_instances_stored_total", peer="ct1")
    metrics.observe("dicomnode_store_seconds", 0.1)
    assert list(tmp_path.iterdir()) == []


def test_several_processes_and_threads_count_together(tmp_path: Path) -> None:
    metrics.clear(tmp_path / "metrics")
    program = (
        "import sys; from pathlib import Path; from dicomnode import metrics\n"
        "metrics.measure(Path(sys.argv[1]), sys.argv[2])\n"
        "for _ in range(100):\n"
        "    metrics.count('dicomnode_instances_stored_total', peer='ct1')\n"
        "    metrics.observe('dicomnode_store_seconds', 0.002)\n"
    )
    arguments = [sys.executable, "-c", program, str(tmp_path / "metrics")]
    for name in ("receive-1", "receive-2", "receive-2"):  # the last goes on where the one before it ended
        subprocess.run([*arguments, name], check=True)
    metrics.measure(tmp_path / "metrics", "receive-3")

    def count() -> None:
        for _ in range(100):
            metrics.count("dicomnode_instances_stored_total", peer="ct1")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert total(tmp_path / "metrics", "dicomnode_instances_stored_total", peer="ct1") == 700
    assert total(tmp_path / "metrics", "dicomnode_store_seconds_count") == 300
    assert total(tmp_path / "metrics", "dicomnode_store_seconds_bucket", le="0.0025") == 300
    assert total(tmp_path / "metrics", "dicomnode_store_seconds_bucket", le="0.001") == 0


def test_a_node_that_starts_counts_from_nothing(tmp_path: Path) -> None:
    metrics.clear(tmp_path)
    metrics.measure(tmp_path, "receive-1")
    metrics.count("dicomnode_instances_stored_total", peer="ct1")
    metrics.clear(tmp_path)
    assert total(tmp_path, "dicomnode_instances_stored_total", peer="ct1") is None


def test_its_files_have_their_place_on_the_disk(tmp_path: Path) -> None:
    """Else a write to them would kill the process on a full disk."""
    metrics.measure(tmp_path, "receive-1")
    metrics.count("dicomnode_instances_stored_total", peer="ct1")
    for file in tmp_path.iterdir():
        assert file.stat().st_blocks * 512 >= file.stat().st_size, file.name


def test_a_disk_without_room_is_told_before_anything_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space"):
        metrics.measure(tmp_path, "receive-1")
    metrics.count("dicomnode_instances_stored_total", peer="ct1")
