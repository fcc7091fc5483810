"""Plans at rest: found by all that they depend on, and loaded only as they were written."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from engines.errors import RuntimeFailedError
from engines.runtimes.tensorrt import plans
from engines.runtimes.tensorrt.device import Gpu
from engines.runtimes.tensorrt.plans import BuildSettings, PlanFacts, PlanStore, Record, plan_key, timing_key
from engines.runtimes.tensorrt.profiles import SLICES, TensorSpec, plan_profiles

PLAN = b"a plan" * 100
GPU = Gpu("NVIDIA Double", (9, 0), 132, 80 * 2**30, 50 * 2**20, 13010)
FACTS = PlanFacts(
    bundle="b" * 64, stage="denoise.onnx", network="c" * 64, precision="float16", recipe=1, tensorrt="11.4.0.106",
    packages=("tensorrt-cu13-libs 11.4.0.106",), gpu=GPU,
    profiles=plan_profiles([TensorSpec("image", (None, 1, None, None))], [SLICES]), settings=BuildSettings(),
)  # fmt: skip
OTHER: dict[str, Any] = {
    "bundle": "d" * 64, "stage": "enhance.onnx", "network": "e" * 64, "precision": "bfloat16", "recipe": 2,
    "tensorrt": "11.4.1.1", "packages": ("tensorrt-cu12-libs 11.4.0.106",),
    "gpu": dataclasses.replace(GPU, multiprocessors=66),
    "profiles": plan_profiles([TensorSpec("image", (None, 3, None, None))], [SLICES]),
    "settings": BuildSettings(tf32=True),
}  # fmt: skip
RECORD = Record(FACTS, hashlib.sha256(PLAN).hexdigest(), ("Sub s",), ("golden test: passed",), activated=True)


@pytest.fixture(name="store")
def _store(tmp_path: Path) -> PlanStore:
    return PlanStore(tmp_path)


def record_file(folder: Path) -> Path:
    return folder / "tensorrt" / f"{plan_key(FACTS)}.json"


def test_every_fact_is_in_the_key() -> None:
    assert OTHER.keys() == {field.name for field in dataclasses.fields(PlanFacts)}
    changed = [dataclasses.replace(FACTS, **{name: value}) for name, value in OTHER.items()]
    for field, value in {"name": "other", "capability": (9, 1), "memory_bytes": 1, "l2_bytes": 1, "driver": 1}.items():
        changed.append(dataclasses.replace(FACTS, gpu=dataclasses.replace(GPU, **{field: value})))  # type: ignore[arg-type]
    for name, setting in {"workspace_bytes": 1, "optimization_level": 5}.items():
        settings = dataclasses.replace(BuildSettings(), **{name: setting})
        changed.append(dataclasses.replace(FACTS, settings=settings))
    assert len({plan_key(facts) for facts in [FACTS, *changed]}) == len(changed) + 1


def test_timings_are_shared_by_the_networks_of_a_machine_and_by_nothing_else() -> None:
    for name, value in OTHER.items():
        same = timing_key(dataclasses.replace(FACTS, **{name: value})) == timing_key(FACTS)
        assert same == (name in {"bundle", "stage", "network", "precision", "recipe", "profiles"}), name


def test_what_was_put_is_found_again(store: PlanStore, tmp_path: Path) -> None:
    store.put(RECORD, PLAN)
    again = PlanStore(tmp_path)
    assert again.find(FACTS) == RECORD
    assert again.plan(RECORD) == PLAN
    assert again.find(dataclasses.replace(FACTS, recipe=2)) is None
    assert (tmp_path / "tensorrt.key").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "tensorrt").stat().st_mode & 0o777 == 0o700


def test_an_exchanged_plan_is_not_loaded(store: PlanStore, tmp_path: Path) -> None:
    store.put(RECORD, PLAN)
    for exchanged in (PLAN + b"!", b"", PLAN[:-1]):
        (tmp_path / "tensorrt" / f"{RECORD.plan}.plan").write_bytes(exchanged)
        with pytest.raises(RuntimeFailedError, match="changed"):
            store.plan(RECORD)


def test_a_plan_that_is_gone_is_said_to_be(store: PlanStore, tmp_path: Path) -> None:
    store.put(RECORD, PLAN)
    (tmp_path / "tensorrt" / f"{RECORD.plan}.plan").unlink()
    with pytest.raises(RuntimeFailedError, match="missing") as failed:
        store.plan(RECORD)
    assert "dicomnode engines build" in failed.value.hint


def test_a_record_of_someone_without_the_key_is_none(store: PlanStore, tmp_path: Path) -> None:
    store.put(dataclasses.replace(RECORD, activated=False), PLAN)
    path = record_file(tmp_path)
    document = json.loads(path.read_text())
    forged = document | {"record": document["record"] | {"activated": True}}
    exchanged = document | {"record": document["record"] | {"plan": "0" * 64}}
    for content in (forged, exchanged, document | {"hmac": "0" * 64}, document | {"hmac": None}, {}, [], None):
        path.write_text(json.dumps(content))
        assert store.find(FACTS) is None
    for text in ("", "{", "[" * 100_000):
        path.write_text(text)
        assert store.find(FACTS) is None
    path.write_text(json.dumps(document))
    assert store.find(FACTS) is not None


def test_a_record_under_another_name_is_none(store: PlanStore, tmp_path: Path) -> None:
    """Each is authentic, but not what was asked for."""
    store.put(RECORD, PLAN)
    other = dataclasses.replace(FACTS, bundle="d" * 64)
    record_file(tmp_path).rename(tmp_path / "tensorrt" / f"{plan_key(other)}.json")
    assert store.find(other) is None


def test_a_copy_on_another_machine_is_worth_nothing(
    store: PlanStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(RECORD, PLAN)
    other = tmp_path / "machine-id"
    other.write_text("another")
    monkeypatch.setattr(plans, "_MACHINE_ID", other)
    assert PlanStore(tmp_path).find(FACTS) is None


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_key_that_others_can_read_or_write_is_refused(store: PlanStore, tmp_path: Path, mode: int) -> None:
    store.put(RECORD, PLAN)
    (tmp_path / "tensorrt.key").chmod(mode)
    with pytest.raises(RuntimeFailedError, match="key") as failed:
        store.find(FACTS)
    assert failed.value.hint


def test_a_key_that_is_a_link_is_refused(store: PlanStore, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"x" * 32)
    (tmp_path / "tensorrt.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RuntimeFailedError, match="key"):
        store.put(RECORD, PLAN)


def test_a_plan_that_is_a_link_is_not_followed(store: PlanStore, tmp_path: Path) -> None:
    store.put(RECORD, PLAN)
    path = tmp_path / "tensorrt" / f"{RECORD.plan}.plan"
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RuntimeFailedError, match="missing"):
        store.plan(RECORD)


def test_plans_that_were_built_anew_are_forgotten(store: PlanStore, tmp_path: Path) -> None:
    store.put(RECORD, PLAN)
    newer = b"another plan"
    store.put(dataclasses.replace(RECORD, plan=hashlib.sha256(newer).hexdigest()), newer)
    store.forget_unused()
    (left,) = (tmp_path / "tensorrt").glob("*.plan")
    assert left.read_bytes() == newer


def test_timings_come_back_only_as_they_were_written(store: PlanStore, tmp_path: Path) -> None:
    assert store.timing(FACTS) == b""
    store.put_timing(FACTS, b"times\nof kernels")
    assert store.timing(FACTS) == b"times\nof kernels"
    (path,) = (tmp_path / "tensorrt").glob("*.timing")
    path.write_bytes(path.read_bytes() + b"!")
    assert store.timing(FACTS) == b""
