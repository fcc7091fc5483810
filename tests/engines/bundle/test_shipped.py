"""Bundles that come with the package: which there are, what is in use, and that those of the zoo may be given away."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dicomnode.store import bundles
from dicomnode.store.bundles import By
from dicomnode.testing.bundles import made_bundle
from engines.bundle.folder import WORDS, Bundle, check_networks, golden, load_bundle, seal
from engines.bundle.shipped import load_shipped, shipped
from engines.bundle.words import own_words
from engines.errors import BundleError, EngineNotFoundError
from engines.registry import Registry, default_registry
from engines.zoo import ZOO

NAME = "random-adjacent"
BY = By("radiographer", 1_700_000_000.0)
ALL_OF_THEM = [(name, version) for name, versions in shipped(ZOO).items() for version in versions]
MOST_BYTES = 15_000_000


@pytest.fixture(name="made_ones", scope="module")
def _made_ones(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    made = {}
    for version in ("1.9.0", "1.10.0", "2.0.0"):
        folder = tmp_path_factory.mktemp("made")
        made[version] = made_bundle(folder, "adjacent", version)
    return made


@pytest.fixture(name="zoo")
def _zoo(made_ones: dict[str, Bundle], tmp_path: Path) -> Path:
    """Two versions that come along."""
    for version in ("1.9.0", "1.10.0"):
        shutil.copytree(made_ones[version].folder, tmp_path / "zoo" / NAME / version)
    return tmp_path / "zoo"


@pytest.fixture(name="registry")
def _registry(zoo: Path, tmp_path: Path) -> Registry:
    return default_registry(tmp_path / "engines", zoo=zoo)


def test_a_node_knows_them_by_name(registry: Registry, zoo: Path, made_ones: dict[str, Bundle]) -> None:
    assert NAME in registry.names()
    assert registry.card(NAME).reference == f"{NAME}@1.10.0"
    assert registry.card(f"{NAME}@1.9.0").version == "1.9.0"
    assert registry.source(NAME) == f"{made_ones['1.10.0'].digest}:{zoo / NAME / '1.10.0'}"
    versions = registry.versions(NAME)
    assert versions is not None
    assert (versions.known, versions.in_use) == (("1.9.0", "1.10.0"), "1.10.0")
    with pytest.raises(EngineNotFoundError) as error:
        registry.bundle(f"{NAME}@2.0.0")
    assert "1.9.0, 1.10.0" in error.value.hint
    with pytest.raises(EngineNotFoundError) as error:
        registry.bundle("random-adjacend")
    assert NAME in error.value.hint


def test_names_are_told_without_reading_a_bundle(zoo: Path) -> None:
    for path in zoo.glob("*/*/*"):
        path.write_bytes(b"")
    assert NAME in default_registry(zoo=zoo).names()
    assert shipped(zoo) == {NAME: ("1.9.0", "1.10.0")}
    assert shipped(zoo / "nowhere") == {}


def test_what_a_site_chose_stays(registry: Registry, tmp_path: Path, made_ones: dict[str, Bundle]) -> None:
    bundles.add(tmp_path / "engines", made_ones["2.0.0"], "", BY)
    assert registry.card(NAME).version == "2.0.0"
    assert registry.card(f"{NAME}@1.10.0").version == "1.10.0"
    bundles.remove(tmp_path / "engines", NAME, "2.0.0", BY)
    assert registry.card(NAME).version == "1.10.0"


def test_a_kept_version_outlives_the_package(zoo: Path, tmp_path: Path, made_ones: dict[str, Bundle]) -> None:
    kept = tmp_path / "engines"
    bundles.add(kept, made_ones["1.9.0"], "", BY, shipped=True)
    shutil.rmtree(zoo / NAME / "1.9.0")
    registry = default_registry(kept, zoo=zoo)
    assert registry.source(NAME) == f"{made_ones['1.9.0'].digest}:{kept / NAME / '1.9.0'}"
    assert registry.card(f"{NAME}@1.10.0").version == "1.10.0"
    versions = registry.versions(NAME)
    assert versions is not None
    assert (versions.comes_along("1.9.0"), versions.comes_along("1.10.0")) == (False, True)


def test_the_site_s_own_version_of_a_number_wins(
    registry: Registry, tmp_path: Path, made_ones: dict[str, Bundle]
) -> None:
    own = Path(shutil.copytree(made_ones["1.9.0"].folder, tmp_path / "own"))
    (own / WORDS).write_text("of this hospital")
    seal(own)
    bundles.add(tmp_path / "engines", load_bundle(own), "", BY)
    assert registry.source(NAME) == f"{load_bundle(own).digest}:{tmp_path / 'engines' / NAME / '1.9.0'}"
    versions = registry.versions(NAME)
    assert versions is not None
    assert not versions.comes_along("1.9.0")


def test_a_damaged_one_is_said_and_hides_no_other(registry: Registry, zoo: Path) -> None:
    (zoo / NAME / "1.10.0" / "net.onnx").write_bytes(b"")
    with pytest.raises(BundleError, match="comes with the node") as error:
        registry.card(NAME)
    assert "install the node again" in error.value.hint
    assert registry.card(f"{NAME}@1.9.0").version == "1.9.0"


def test_one_in_another_s_place_is_refused(zoo: Path, made_ones: dict[str, Bundle]) -> None:
    shutil.copytree(made_ones["2.0.0"].folder, zoo / NAME / "3.0.0")
    with pytest.raises(BundleError, match=r"2\.0\.0 lies where"):
        load_shipped(zoo, NAME, "3.0.0")


def test_the_zoo_is_small_and_takes_no_name_of_code() -> None:
    assert sum(path.stat().st_size for path in ZOO.glob("*/*/*")) < MOST_BYTES
    registry = default_registry()
    assert not [name for name in shipped(ZOO) if registry.is_code(name)]


@pytest.mark.parametrize(("name", "version"), ALL_OF_THEM)
def test_what_comes_along_says_where_it_is_from(name: str, version: str) -> None:
    bundle = load_shipped(ZOO, name, version)
    check_networks(bundle)
    golden(bundle)
    made = bundle.provenance
    assert made.training.run and made.training.date and made.limitations
    assert made.data and all(item.licence and item.attribution for item in made.data)
    assert "training" in {item.role for item in made.data}
    assert made.metrics and all(metric.patients for metric in made.metrics)
    own = own_words((bundle.folder / WORDS).read_text())
    assert "trainers train" in own and "trainers evaluate" in own
