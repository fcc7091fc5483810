"""Bundles on disk: what is written is what is read, and nothing hostile gets further than an error."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicomnode.testing.bundles import Shape, made, made_bundle
from engines.bundle.folder import (
    CARD,
    DIGESTS,
    GOLDEN,
    WORDS,
    check_networks,
    golden,
    load_bundle,
    seal,
    write_bundle,
)
from engines.bundle.golden import compare
from engines.bundle.signing import SIGNATURE, make_keys, sign
from engines.bundle.tables import as_table, write_toml
from engines.card import EngineCard, Setting
from engines.errors import BundleError, EngineError
from engines.tasks.image import STRENGTH, with_strength

DOCUMENT = Path(__file__).parents[3] / "docs" / "engines.md"
SMALL: tuple[Shape, ...] = tuple(shape for shape in get_args(Shape) if not shape.startswith("denoise"))


@pytest.fixture(name="original", scope="module")
def _original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    made_bundle(folder, "adjacent")
    return folder


@pytest.fixture(name="folder")
def _folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "copy"))


@pytest.mark.parametrize("shape", SMALL)
def test_what_is_written_is_what_is_read(shape: Shape, tmp_path: Path) -> None:
    bundle = made_bundle(tmp_path, shape)
    assert replace(bundle.card, bundle="") == with_strength(made(shape).card)
    assert load_bundle(tmp_path) == bundle
    test = golden(bundle)
    assert all(found.passed for found in compare(test, "float32", test.outputs))
    assert bundle.card.intended_use in (tmp_path / WORDS).read_text()


def test_every_image_bundle_can_be_blended(tmp_path: Path) -> None:
    """Also one whose card does not say so; no other task can, and who declares bounds keeps them."""
    made_bundle(tmp_path, "two-stages")
    card_file = tmp_path / CARD
    text = card_file.read_text()
    card_file.write_text(text[: text.index("[engine.settings.strength]")] + text[text.index("[[engine.stages]]") :])
    seal(tmp_path)
    assert load_bundle(tmp_path).card.settings[STRENGTH].default == 1.0
    assert STRENGTH not in with_strength(made("detect").card).settings
    own = replace(made("two-stages").card, settings={STRENGTH: Setting(0.5, "share", 0.2, 0.7)})
    assert with_strength(own) == own


def test_a_bundle_written_again_is_the_same_bundle(folder: Path, tmp_path: Path) -> None:
    bundle = load_bundle(folder)
    again = tmp_path / "again"
    again.mkdir()
    networks = {path.name: path.read_bytes() for path in bundle.networks}
    assert write_bundle(again, bundle.card, bundle.provenance, networks, golden(bundle)).digest == bundle.digest


def test_the_card_s_digest_covers_every_file(folder: Path) -> None:
    before = load_bundle(folder).card.digest
    (folder / WORDS).write_text("other words")
    seal(folder)
    assert load_bundle(folder).card.digest != before


def _edit(name: str, old: str, new: str) -> Callable[[Path], object]:
    def edit(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1))
        seal(folder)

    return edit


def _sealed(change: Callable[[Path], object]) -> Callable[[Path], object]:
    """`change`, under digests that are right again."""

    def both(folder: Path) -> None:
        change(folder)
        seal(folder)

    return both


def _linked(folder: Path) -> None:
    (folder / WORDS).unlink()
    (folder / WORDS).symlink_to("/etc/passwd")


def _of_another(folder: Path) -> None:
    (folder / "net.onnx").write_bytes(made("two-outputs").networks["net.onnx"])
    seal(folder)


def _many_files(folder: Path) -> None:
    for number in range(100):
        (folder / f"{number}.onnx").touch()


@pytest.mark.parametrize(
    ("spoil", "message", "hint"),
    [
        (lambda folder: (folder / GOLDEN).unlink(), "golden.npz", ""),
        (lambda folder: (folder / DIGESTS).unlink(), "has no digests.json yet", "engines make"),
        (lambda folder: (folder / WORDS).write_text("changed"), "CARD.md is not the file", "copy"),
        (lambda folder: (folder / "run.py").touch(), "'run.py' is under no digest", ""),
        (lambda folder: (folder / "more").mkdir(), "'more' is a link, a folder or a device", "flat"),
        (lambda folder: os.mkfifo(folder / "pipe"), "'pipe' is a link, a folder or a device", "flat"),
        (_linked, "'CARD.md' is a link", "flat"),
        (_many_files, "more than 64 files", ""),
        (_sealed(lambda folder: (folder / "other.onnx").touch()), "'other.onnx' is no part", "stages"),
        (_sealed(lambda folder: (folder / CARD).unlink()), "card.toml cannot be read", ""),
        (_sealed(lambda folder: (folder / WORDS).unlink()), "CARD.md is missing", ""),
        (lambda folder: os.truncate(folder / CARD, 10_000_000), "larger than", ""),
        (lambda folder: (folder / DIGESTS).write_text("[" * 100_000), "digests.json", ""),
        (lambda folder: (folder / DIGESTS).write_text('{"files": {"../x": "00"}}'), "'../x', which is not there", ""),
        (_edit(CARD, "halo_px", "halo_pixels"), "no key 'halo_pixels'", "halo_px"),
        (_edit(CARD, "adjacent = 1", 'adjacent = "1"'), "adjacent is '1'", "int"),
        (_edit(CARD, "adjacent = 1", "adjacent = -1"), "-1 adjacent slices", ""),
        (_edit(CARD, "bias_hu = 2.0", "bias_hu = nan"), "bias_hu is nan", "finite"),
        (_edit(CARD, 'task = "image"', 'task = "imag"'), "task is 'imag'", "image"),
        (_edit(CARD, "format = 1", "format = 2"), "format 2", "format = 1"),
        (_edit(CARD, '"float16"', '"int8"'), "precisions are", "detectors"),
        (_edit(CARD, 'file = "net.onnx"', 'file = "../net.onnx"'), "'../net.onnx'", "plain name"),
        (_edit(CARD, 'version = "1.0.0"', 'version = "../1"'), "the version is '../1'", "1.2.0"),
        (_edit(CARD, 'version = "1.0.0"', 'version = "1.١.0"'), "the version is '1.١.0'", "1.2.0"),
        (_edit(CARD, 'name = "random-adjacent"', 'name = "/etc"'), "the name is '/etc'", "small letters"),
        (_edit(CARD, "[engine.inputs", 'bundle = "00"\n\n[engine.inputs'), "names a runtime or a bundle", "leave"),
        (_edit(CARD, 'source = "image"', 'source = "imagee"'), "'imagee', which nothing before it gives", "image"),
        (_edit(CARD, "= [0.1, 4.0]", "= [4.0, 0.1]"), "[4.0, 0.1]", "lowest first"),
        (_edit(CARD, "maker = ", "make = "), "no key 'make'", "maker"),
        (_edit(CARD, "format = 1", "format = 1\nnested = " + "[" * 20000), "card.toml is no TOML", ""),
        (_of_another, "net.onnx", ""),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_the_file(
    folder: Path, spoil: Callable[[Path], object], message: str, hint: str
) -> None:
    spoil(folder)
    with pytest.raises(BundleError) as error:
        check_networks(load_bundle(folder))
    assert message in str(error.value)
    assert hint in error.value.hint
    assert error.value.hint


def test_a_file_that_changes_its_kind_is_not_followed(folder: Path) -> None:
    (folder / "secret").write_text("x" * 100)
    (folder / SIGNATURE).symlink_to("secret")
    with pytest.raises(BundleError, match="link"):
        load_bundle(folder)


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for wrong in ("file", "nothing"):
        with pytest.raises(BundleError, match="cannot be read as a folder"):
            load_bundle(tmp_path / wrong)


def test_the_card_in_the_documentation_is_one(folder: Path) -> None:
    """All but its network, which is not there."""
    (example,) = re.findall(r"```toml\n(format = .*?)```", DOCUMENT.read_text(), re.DOTALL)
    (folder / CARD).write_text(example)
    seal(folder)
    with pytest.raises(BundleError, match=r"denoise\.onnx is missing"):
        load_bundle(folder)


def test_a_bundle_is_never_written_over_something(folder: Path) -> None:
    bundle = load_bundle(folder)
    with pytest.raises(BundleError, match="not empty"):
        write_bundle(folder, bundle.card, bundle.provenance, {}, golden(bundle))


def test_sealing_takes_the_signature_away(folder: Path, tmp_path: Path) -> None:
    make_keys(tmp_path / "key", tmp_path / "key.pub")
    sign(folder, load_bundle(folder).digest, tmp_path / "key")
    assert load_bundle(folder).signature is not None
    seal(folder)
    assert load_bundle(folder).signature is None


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from([CARD, GOLDEN, "net.onnx", DIGESTS]), changes=st.data())
def test_nothing_but_an_error_comes_of_damage(folder: Path, original: Path, name: str, changes: st.DataObject) -> None:
    """Sealed after the damage, as one would who made the bundle to harm."""
    content = bytearray((original / name).read_bytes())
    for _ in range(changes.draw(st.integers(1, 4))):
        place = changes.draw(st.integers(0, len(content)))
        length = changes.draw(st.integers(0, 20))
        content[place : place + length] = changes.draw(st.binary(max_size=20))
    shutil.copytree(original, folder, dirs_exist_ok=True)
    (folder / name).write_bytes(content)
    if name != DIGESTS:
        seal(folder)
    try:
        bundle = load_bundle(folder)
        check_networks(bundle)
        golden(bundle)
    except EngineError as error:
        assert len(str(error)) < 600


WORDS_OF_TOML = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(text=WORDS_OF_TOML, limits=st.tuples(st.floats(0, 1e6), st.floats(0, 1e6)), names=st.lists(WORDS_OF_TOML))
def test_a_card_s_values_come_back_as_they_were(text: str, limits: tuple[float, float], names: list[str]) -> None:
    import tomllib

    from engines.bundle.tables import read_table

    card = made("detect").card
    envelope = replace(card.envelope, kvp=(min(limits), max(limits)), body_parts=tuple(names))
    card = replace(card, envelope=envelope, source=text, limits=replace(card.limits, clipped_fraction=None))
    table = tomllib.loads(write_toml({"engine": as_table(card)}))
    assert read_table(EngineCard, table["engine"], "engine") == card
