"""Installed bundles: added, switched, given back and removed; what a crash leaves; what was exchanged is not loaded."""

from __future__ import annotations

import errno
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dicomnode.errors import DiskFullError, UsageError
from dicomnode.store import bundles
from dicomnode.store.bundles import By
from dicomnode.testing.bundles import made_bundle, opened
from engines.bundle.folder import Bundle, load_bundle, seal
from engines.bundle.installed import STATE, installed_names, load_installed, read_state
from engines.errors import BundleError, EngineNotFoundError
from engines.registry import default_registry

NAME = "random-adjacent"
BY = By("radiographer", 1_700_000_000.0)
KEY = "0123456789abcdef"


@pytest.fixture(name="made_ones", scope="module")
def _made_ones(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    folder = tmp_path_factory.mktemp("bundles")
    for version in ("1.0.0", "1.1.0", "2.0.0"):
        (folder / version).mkdir()
    return {version: made_bundle(folder / version, "adjacent", version) for version in ("1.0.0", "1.1.0", "2.0.0")}


@pytest.fixture(name="folder")
def _folder(made_ones: dict[str, Bundle], tmp_path: Path) -> Path:
    """Two versions, the older in use."""
    folder = tmp_path / "engines"
    bundles.add(folder, made_ones["1.0.0"], KEY, BY)
    bundles.add(folder, made_ones["1.1.0"], "", BY)
    return folder


def test_the_first_version_is_in_use_and_the_next_is_not(folder: Path) -> None:
    state = read_state(folder / NAME)
    assert state.in_use == "1.0.0"
    assert {version: accepted.signed_by for version, accepted in state.versions.items()} == {"1.0.0": KEY, "1.1.0": ""}
    assert state.versions["1.1.0"].by == BY.who
    assert load_installed(folder, NAME, "1.1.0").card.version == "1.1.0"


def test_adding_again_changes_nothing(folder: Path, made_ones: dict[str, Bundle]) -> None:
    before = (folder / NAME / STATE).read_bytes()
    bundles.add(folder, made_ones["1.0.0"], "", By("somebody", 2.0))
    assert (folder / NAME / STATE).read_bytes() == before


@pytest.mark.parametrize("name", ["net.onnx", "digests.json"])
def test_adding_again_mends_what_was_damaged(folder: Path, made_ones: dict[str, Bundle], name: str) -> None:
    (folder / NAME / "1.0.0" / name).unlink()
    with pytest.raises(BundleError, match=f"{NAME}@1.0.0: ") as error:
        load_installed(folder, NAME, "1.0.0")
    assert "engines add" in error.value.hint
    before = (folder / NAME / STATE).read_bytes()
    bundles.add(folder, made_ones["1.0.0"], "", By("somebody", 2.0))
    assert load_installed(folder, NAME, "1.0.0").digest == made_ones["1.0.0"].digest
    assert (folder / NAME / STATE).read_bytes() == before


@pytest.mark.parametrize("name", ["lock", "state"])
def test_no_name_is_in_the_way_of_our_own_files(tmp_path: Path, name: str) -> None:
    (tmp_path / "made").mkdir()
    made = made_bundle(tmp_path / "made", "adjacent")
    card = made.folder / "card.toml"
    card.write_text(card.read_text().replace(NAME, name))
    seal(made.folder)
    bundles.add(tmp_path / "engines", load_bundle(made.folder), "", BY)
    assert load_installed(tmp_path / "engines", name, "1.0.0").card.name == name


def test_another_bundle_of_the_same_version_is_refused(
    folder: Path, made_ones: dict[str, Bundle], tmp_path: Path
) -> None:
    other = Path(shutil.copytree(made_ones["1.0.0"].folder, tmp_path / "other"))
    (other / "CARD.md").write_text("other words")
    seal(other)
    with pytest.raises(UsageError, match="another"):
        bundles.add(folder, load_bundle(other), "", BY)


def test_switching_and_going_back(folder: Path, made_ones: dict[str, Bundle]) -> None:
    assert bundles.former(read_state(folder / NAME)) == ""
    state = bundles.use(folder, NAME, "1.1.0", BY)
    assert (state.in_use, bundles.former(state)) == ("1.1.0", "1.0.0")
    bundles.add(folder, made_ones["2.0.0"], KEY, BY)
    state = bundles.use(folder, NAME, "2.0.0", BY)
    assert bundles.former(state) == "1.1.0"
    state = bundles.remove(folder, NAME, "1.1.0", BY)
    assert bundles.former(state) == "1.0.0"
    assert [change.what for change in state.history] == ["add", "use", "add", "use", "add", "use", "remove"]


def test_what_is_in_use_is_removed_only_as_the_last(folder: Path) -> None:
    with pytest.raises(UsageError, match="in use"):
        bundles.remove(folder, NAME, "1.0.0", BY)
    bundles.remove(folder, NAME, "1.1.0", BY)
    bundles.remove(folder, NAME, "1.0.0", BY)
    assert installed_names(folder) == ()
    assert not (folder / NAME / "1.0.0").exists()


def test_a_version_that_is_not_there_is_answered_with_the_nearest(folder: Path) -> None:
    for do in (bundles.use, bundles.remove):
        with pytest.raises(EngineNotFoundError) as error:
            do(folder, NAME, "1.1.1", BY)
        assert "1.1.0" in error.value.hint


def test_a_folder_that_was_exchanged_is_not_loaded(folder: Path, made_ones: dict[str, Bundle]) -> None:
    shutil.rmtree(folder / NAME / "1.1.0")
    shutil.copytree(made_ones["2.0.0"].folder, folder / NAME / "1.1.0")
    with pytest.raises(BundleError, match="not the bundle that was accepted"):
        load_installed(folder, NAME, "1.1.0")


def test_a_file_that_changed_on_the_disk_is_not_loaded(folder: Path) -> None:
    with (folder / NAME / "1.0.0" / "net.onnx").open("r+b") as file:
        file.seek(100)
        file.write(b"\xff")
    with pytest.raises(BundleError, match="is not the file"):
        load_installed(folder, NAME, "1.0.0")


def test_a_bundle_that_changes_while_it_is_copied_is_not_installed(
    made_ones: dict[str, Bundle], tmp_path: Path
) -> None:
    source = Path(shutil.copytree(made_ones["2.0.0"].folder, tmp_path / "source"))
    bundle = load_bundle(source)
    (source / "CARD.md").write_text("other words")
    seal(source)
    with pytest.raises(BundleError, match="changed"):
        bundles.add(tmp_path / "engines", bundle, "", BY)
    assert installed_names(tmp_path / "engines") == ()


def test_what_a_killed_command_left_is_swept_away(folder: Path, made_ones: dict[str, Bundle]) -> None:
    left = folder / ".aside-1"
    left.mkdir()
    (folder / NAME / "2.0.0").mkdir()  # renamed into place, and the state not yet written
    (folder / NAME / "2.0.0" / "half").touch()
    bundles.add(folder, made_ones["2.0.0"], KEY, BY)
    assert not left.exists()
    assert load_installed(folder, NAME, "2.0.0").digest == made_ones["2.0.0"].digest


def test_the_registry_knows_names_versions_and_switches(folder: Path, made_ones: dict[str, Bundle]) -> None:
    registry = default_registry(folder, opened)
    assert {"contrast-glcae", "ct-nlm", NAME} <= set(registry.names())
    assert registry.card(NAME).reference == f"{NAME}@1.0.0"
    assert registry.card(f"{NAME}@1.1.0").reference == f"{NAME}@1.1.0"
    assert registry.source(NAME) == f"{made_ones['1.0.0'].digest}:{folder / NAME / '1.0.0'}"
    assert registry.source("ct-nlm") == "ct-nlm"
    engine = registry.get(NAME)
    assert registry.get(f"{NAME}@1.0.0") is engine
    assert engine.card.bundle == registry.card(NAME).bundle != ""
    bundles.use(folder, NAME, "1.1.0", BY)
    assert registry.card(NAME).reference == f"{NAME}@1.1.0"
    assert registry.get(NAME) is not engine


@pytest.mark.parametrize(
    ("reference", "hint"), [("random-adjacend", NAME), (f"{NAME}@9.9.9", "1.0.0, 1.1.0"), ("ct-nlm@9", "1.0.0")]
)
def test_what_the_registry_does_not_know_is_answered_with_the_nearest(folder: Path, reference: str, hint: str) -> None:
    with pytest.raises(EngineNotFoundError) as error:
        default_registry(folder).get(reference)
    assert hint in error.value.hint


def test_a_registry_without_an_opener_gives_cards_alone(folder: Path) -> None:
    with pytest.raises(BundleError, match="nothing here opens"):
        default_registry(folder).get(NAME)


@pytest.mark.parametrize("content", ["", "[]", '{"in_use": 1}', '{"versions": {"1.0.0": {}}}', '{"in_use": "1.0.0"}'])
def test_a_damaged_state_is_said_and_spoils_no_other_engine(folder: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "other").mkdir()
    bundles.add(folder, made_bundle(tmp_path / "other", "two-outputs"), "", BY)
    (folder / NAME / STATE).write_text(content)
    registry = default_registry(folder)
    assert NAME in registry.names()
    assert registry.card("random-two-outputs").version == "1.0.0"
    assert registry.source("ct-nlm") == "ct-nlm"
    with pytest.raises(BundleError, match=f"{NAME}/{STATE} is damaged") as error:
        registry.card(NAME)
    assert "add its bundles again" in error.value.hint


def test_a_state_that_is_lost_is_said(folder: Path) -> None:
    (folder / NAME / STATE).unlink()
    with pytest.raises(BundleError, match="is lost"):
        default_registry(folder).bundle(f"{NAME}@1.0.0")
    shutil.rmtree(folder / NAME)
    with pytest.raises(EngineNotFoundError):
        default_registry(folder).bundle(f"{NAME}@1.0.0")


def test_versions_added_at_once_are_all_there(tmp_path: Path, made_ones: dict[str, Bundle]) -> None:
    folder = tmp_path / "engines"
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda bundle: bundles.add(folder, bundle, "", BY), [*made_ones.values()] * 2))
    assert set(read_state(folder / NAME).versions) == set(made_ones)
    assert [change.what for change in read_state(folder / NAME).history].count("add") == 3


def test_a_full_disk_leaves_what_was_there(
    folder: Path, made_ones: dict[str, Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path, **_: object) -> None:
        target.write_bytes(source.read_bytes()[:10])
        raise OSError(errno.ENOSPC, "No space left on device", str(source), None, str(target))  # as shutil says it

    before = sorted(path.relative_to(folder) for path in folder.rglob("*"))
    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(DiskFullError, match=f"the disk of {folder} is full"):
        bundles.add(folder, made_ones["2.0.0"], "", BY)
    assert sorted(path.relative_to(folder) for path in folder.rglob("*")) == before
