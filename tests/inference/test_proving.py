"""What is opened is what was accepted, and it has passed its golden test on this machine, in the way it computes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from dicomnode.errors import EngineNotFoundError
from dicomnode.inference import opening, proving
from dicomnode.inference.opening import Place, open_engine
from dicomnode.inference.process import EngineProcess
from dicomnode.inference.proving import ProofFacts, Proofs
from dicomnode.inference.warm import Keeping, WarmEngines
from dicomnode.store import bundles
from dicomnode.store.bundles import By
from dicomnode.testing.bundles import made_bundle
from engines.bundle.folder import Bundle, load_bundle, seal
from engines.bundle.installed import BundleSource
from engines.card import Precision
from engines.errors import BundleError, RuntimeFailedError
from engines.registry import default_registry
from engines.runtimes.base import Resources, Session, Tensors
from engines.runtimes.choice import Wish
from engines.runtimes.onnxruntime import OnnxRuntime

NAME = "random-adjacent"
BY = By("physicist", 1_700_000_000.0)


@dataclass(eq=False)
class Tilted:
    """ONNX Runtime under another name and precision, that adds something to all it gives, and counts what it ran."""

    name: str
    precision: Precision
    added: float = 0.0
    ran: list[str] = field(default_factory=list)

    def unavailable(self, device: str) -> str:
        return ""

    def precisions(self, device: str) -> tuple[Precision, ...]:
        return (self.precision,)

    def open(self, model: Path, resources: Resources) -> Session:
        return _TiltedSession(self, OnnxRuntime().open(model, replace(resources, precision="float32")))


@dataclass
class _TiltedSession:
    runtime: Tilted
    session: Session

    @property
    def identity(self) -> str:
        return f"{self.runtime.name}-1.0/{self.runtime.precision}"

    def run(self, tensors: Tensors) -> Tensors:
        self.runtime.ran.append(self.runtime.name)
        if self.runtime.added == np.inf:
            raise RuntimeFailedError("the device fell off the bus", "look at the driver")
        given = self.session.run(tensors)
        return {name: values + np.float32(self.runtime.added) for name, values in given.items()}

    def close(self) -> None:
        self.session.close()


@pytest.fixture(name="made", scope="module")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return made_bundle(tmp_path_factory.mktemp("made"), "adjacent")


@pytest.fixture(name="bundle")
def _bundle(made: Bundle, tmp_path: Path) -> Bundle:
    """A bundle that a test may spoil."""
    return load_bundle(Path(shutil.copytree(made.folder, tmp_path / "bundle")))


@pytest.fixture(name="told")
def _told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What the log is told: events and reasons."""
    told: list[tuple[str, str]] = []
    monkeypatch.setattr(opening, "event", lambda name, **fields: told.append((name, fields["reason"])))
    return told


@pytest.fixture(name="computing")
def _computing(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let these runtimes be the ones of this machine."""

    def compute(*runtimes: Tilted) -> None:
        monkeypatch.setattr(opening, "runtimes_for", lambda bundle, place: runtimes)

    return compute


def opened(bundle: Bundle, cache: Path | None = None) -> str:
    """What computes the bundle."""
    engine = open_engine(str(BundleSource(bundle.digest, bundle.folder)), Place(Wish(), 1, cache))
    engine.close()
    return engine.engine.card.runtime


def test_a_source_is_one_text() -> None:
    source = BundleSource("0a" * 32, Path("/data/a:b\nc"))
    assert BundleSource.parse(str(source)) == source
    for other in ("ct-nlm", "ct-nlm@1.0.0", "/data/engines", f"{'0a' * 31}:/data", f"{'0A' * 32}:/data", ""):
        assert BundleSource.parse(other) is None


def test_a_bundle_that_was_exchanged_is_not_computed(made: Bundle, tmp_path: Path) -> None:
    bundles.add(tmp_path, made, "", BY)
    source = default_registry(tmp_path).source(NAME)
    installed = tmp_path / NAME / "1.0.0"
    (installed / "CARD.md").write_text("other words")
    seal(installed)
    with pytest.raises(BundleError, match="not the bundle that was accepted"):
        open_engine(source, Place(Wish(), 1, None))


def test_another_bundle_of_the_same_version_never_runs_as_the_former(made: Bundle, tmp_path: Path) -> None:
    """Removed, and another one added under its name and version, while an engine process has it open."""
    other = Path(shutil.copytree(made.folder, tmp_path / "other"))
    (other / "CARD.md").write_text("other words")
    seal(other)
    registry = default_registry(tmp_path / "engines")
    place = Place(Wish(precision="float32"), 1, None)
    warm = WarmEngines(lambda source: open_engine(source, place), Keeping(1 << 40, 3600.0))
    process = EngineProcess(warm)
    bundles.add(tmp_path / "engines", made, "", BY)
    former = registry.source(NAME)
    digest = process.describe(former)["digest"]
    bundles.remove(tmp_path / "engines", NAME, "1.0.0", BY)
    bundles.add(tmp_path / "engines", load_bundle(other), "", BY)
    now = registry.source(NAME)
    assert process.describe(now)["bundle"] == load_bundle(other).digest != made.digest
    warm.close()
    with pytest.raises(EngineNotFoundError, match="went away"):  # the job that had begun with it is done again
        process.run(former, digest, {}, [])


def test_an_engine_is_proved_once_and_again_after_what_matters_changed(
    bundle: Bundle, tmp_path: Path, computing: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = Tilted("exact", "float32")
    computing(runtime)

    def proved() -> bool:
        runtime.ran.clear()
        opened(bundle, tmp_path)
        return bool(runtime.ran)

    assert proved()
    assert not proved()
    monkeypatch.setattr(proving, "model_of", lambda device: "another processor")
    assert proved()
    assert not proved()
    runtime.name = "newer"
    assert proved()
    for memory in (tmp_path / "proofs").iterdir():
        memory.write_bytes(memory.read_bytes()[:-1])
    assert proved()
    assert not proved()
    (bundle.folder / "CARD.md").write_text("other words")
    seal(bundle.folder)
    bundle = load_bundle(bundle.folder)
    assert proved()


def test_without_a_place_to_remember_it_is_proved_each_time(bundle: Bundle, computing: Callable[..., None]) -> None:
    runtime = Tilted("exact", "float32")
    computing(runtime)
    assert opened(bundle) == "exact-1.0/float32"
    once = len(runtime.ran)
    assert opened(bundle) == "exact-1.0/float32"
    assert len(runtime.ran) == 2 * once > 0


def test_what_fails_its_golden_test_is_computed_otherwise_where_the_card_allows(
    bundle: Bundle, tmp_path: Path, computing: Callable[..., None], told: list[tuple[str, str]]
) -> None:
    computing(Tilted("hasty", "bfloat16", added=1.0), Tilted("exact", "float32"))
    assert opened(bundle, tmp_path) == opened(bundle, tmp_path) == "exact-1.0/float32"
    (name, why), (then, reason), *again = told
    assert (name, then) == ("engine_not_proved", "engine_opened")
    assert "image: mean difference" in why and "at most 0.1, 1 and 10" in why
    assert f"hasty-1.0/bfloat16 on cpu did not pass its golden test: {why}" in reason
    assert again == [told[0], told[1]]  # a failure is not remembered: what is at fault may be mended


def test_where_nothing_passes_the_engine_is_refused(
    bundle: Bundle, tmp_path: Path, computing: Callable[..., None], told: list[tuple[str, str]]
) -> None:
    computing(Tilted("hasty", "bfloat16", added=1.0), Tilted("wrong", "float32", added=1.0))
    with pytest.raises(BundleError, match="golden test: image: mean difference -955") as refused:
        opened(bundle, tmp_path)
    assert "hasty-1.0/bfloat16" in str(refused.value) and "wrong-1.0/float32" in str(refused.value)
    assert not refused.value.transient
    assert [name for name, _ in told] == ["engine_not_proved", "engine_not_proved"]


def test_a_device_that_fails_is_no_test_that_failed(
    bundle: Bundle, tmp_path: Path, computing: Callable[..., None]
) -> None:
    computing(Tilted("lost", "bfloat16", added=np.inf), Tilted("exact", "float32"))
    with pytest.raises(RuntimeFailedError, match="fell off"):
        opened(bundle, tmp_path)


def test_nothing_is_remembered_without_a_folder(tmp_path: Path) -> None:
    facts = ProofFacts("digest", "runtime-1.0/float32", "runtime 1.0.1", "cpu", "a processor")
    nowhere, somewhere = Proofs(None), Proofs(tmp_path)
    for proofs in (nowhere, somewhere):
        proofs.keep(facts)
    assert not nowhere.holds(facts)
    assert somewhere.holds(facts)
    assert not somewhere.holds(replace(facts, device="cuda:0"))
    assert not somewhere.holds(replace(facts, library="runtime 1.0.2"))
