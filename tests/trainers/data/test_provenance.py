"""Nothing is trained on images of unknown licence, and every credit reaches what is trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.shared import shared_data
from trainers.data.provenance import read_provenance
from trainers.errors import SourceError

CSV = """file,licence,collection,attribution,repo,commit
npz/one.npz,CC BY 3.0,LIDC-IDRI,"Armato et al., 2011",some/repo,abc
dicom,CC BY 4.0,Others,,,
"""
TOML = """[[image]]
file = "npz/one.npz"
licence = "CC BY 3.0"
collection = "LIDC-IDRI"
"""


def table(folder: Path, text: str, name: str = "provenance.csv") -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_a_file_has_the_credit_of_its_row_or_of_the_nearest_folder(tmp_path: Path) -> None:
    provenance = read_provenance(table(tmp_path, CSV))
    one = provenance.credit_of(tmp_path / "npz" / "one.npz")
    assert (one.licence, one.collection, one.attribution) == ("CC BY 3.0", "LIDC-IDRI", "Armato et al., 2011")
    assert one.source == "some/repo abc"
    assert provenance.credit_of(tmp_path / "dicom" / "deep" / "1.dcm").collection == "Others"


def test_toml_says_the_same(tmp_path: Path) -> None:
    provenance = read_provenance(table(tmp_path, TOML, "provenance.toml"))
    assert provenance.credit_of(tmp_path / "npz" / "one.npz").collection == "LIDC-IDRI"


@pytest.mark.parametrize(
    ("collection", "said"),
    [("LIDC-IDRI", "LO9QL9SX"), ("TCGA-LUAD/LUSC", "TYGKKFMQ"), ("C4KC-KiTS (KiTS19)", "IX49E8NX"), ("LUSC", "")],
)
def test_what_known_collections_ask_to_be_said_is_known(tmp_path: Path, collection: str, said: str) -> None:
    text = f"file,licence,collection\none.npz,CC BY 3.0,{collection}\n"
    attribution = read_provenance(table(tmp_path, text)).credit_of(tmp_path / "one.npz").attribution
    assert said in attribution and bool(said) == bool(attribution)


@pytest.mark.parametrize("path", ["npz/two.npz", "../npz/one.npz", "elsewhere"])
def test_what_is_in_no_row_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(SourceError, match="provenance"):
        read_provenance(table(tmp_path, CSV)).credit_of(tmp_path / path)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "file,licence\nx,CC0\n", "'collection'"),
        ("a.csv", "file,licence,collection\nx,,LIDC\n", "'licence'"),
        ("a.csv", "file,licence,collection\n", "no rows"),
        ("a.toml", "image = 3", "no rows"),
        ("a.toml", "image = [[", "cannot be read"),
        ("a.toml", "[[image]]\nfile = 3\n", "'file'"),
    ],
)
def test_a_row_without_licence_or_collection_is_refused(tmp_path: Path, name: str, text: str, said: str) -> None:
    with pytest.raises(SourceError, match=said):
        read_provenance(table(tmp_path, text, name))


def test_a_missing_table_is_an_error_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        read_provenance(tmp_path / "none.csv")
    assert caught.value.hint


def test_the_table_of_the_shared_images_is_understood() -> None:
    found = shared_data("ct/provenance.csv")
    provenance = read_provenance(found)
    assert provenance.credit_of(found.parent / "dicom" / "lidc0002" / "000.dcm").licence == "CC BY 3.0 (TCIA)"
