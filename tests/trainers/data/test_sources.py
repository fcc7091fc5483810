"""Each layout that images come in, on a small made fixture of its real form."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from pydicom.dataset import Dataset

from dicomnode.core.phantom import phantom_study
from tests.shared import shared_data
from trainers.data.provenance import Provenance, read_provenance
from trainers.data.series import Credit
from trainers.data.sources.deeplesion import read_deeplesion, read_lesions
from trainers.data.sources.dicom import read_dicom
from trainers.data.sources.mayo import read_mayo
from trainers.data.sources.natural import read_natural
from trainers.data.sources.volumes import read_volumes
from trainers.errors import SourceError

CREDIT = Credit("Made", "CC0")


def credited(folder: Path) -> Provenance:
    return Provenance(folder, {".": CREDIT})


def study(seed: int, slices: int = 3, size: int = 32, **attributes: object) -> list[Dataset]:
    built = phantom_study(np.random.default_rng(seed), slices, size)
    for dataset in built:
        for keyword, held in attributes.items():
            setattr(dataset, keyword, held)
    return built


def write(folder: Path, datasets: Sequence[Dataset], name: str = "1-{:03d}.dcm") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for at, dataset in enumerate(datasets, 1):
        dataset.save_as(folder / name.format(at), enforce_file_format=True)
    return folder


def values(dataset: Dataset) -> np.ndarray:
    """HU of a phantom's slice."""
    return np.frombuffer(dataset.PixelData, "<i2").reshape(dataset.Rows, dataset.Columns).astype(int) - 1024


# --- DICOM ------------------------------------------------------------------------------------------------------------


def test_dicom_comes_as_the_node_reads_it(tmp_path: Path) -> None:
    datasets = study(1, PatientID="P1", ConvolutionKernel="B30f", KVP=100)
    write(tmp_path / "a", datasets[::-1])
    (tmp_path / "a" / "LICENSE.txt").write_text("no DICOM")
    (series,) = read_dicom([tmp_path / "a"], credited(tmp_path))
    assert (series.patient, series.kernel, series.kvp, series.name) == ("P1", "B30f", 100.0, "a#1")
    assert series.credit == CREDIT
    assert np.array_equal(series.hu, np.stack([values(one) for one in datasets]).clip(-1024))
    assert series.spacing_mm == pytest.approx((2.0, 11.25, 11.25))
    assert series.z_mm is not None
    assert np.diff(series.z_mm) == pytest.approx([2.0, 2.0])


def test_archives_are_read_as_folders(tmp_path: Path) -> None:
    write(tmp_path / "plain", study(1, PatientID="P1"))
    with zipfile.ZipFile(tmp_path / "scans.zip", "w") as archive:
        for path in sorted((tmp_path / "plain").iterdir()):
            archive.write(path, f"../../{path.name}")
    (plain,), (zipped,) = (list(read_dicom([tmp_path / name], credited(tmp_path))) for name in ("plain", "scans.zip"))
    assert np.array_equal(plain.hu, zipped.hu)
    assert zipped.name == "scans.zip#1"


def test_padding_becomes_air(tmp_path: Path) -> None:
    (dataset,) = study(2, slices=1, PatientID="P1")
    stored = np.frombuffer(dataset.PixelData, "<i2").copy()
    stored[:40] = -2000
    dataset.PixelData, dataset.PixelPaddingValue = stored.tobytes(), -2000
    dataset["PixelPaddingValue"].VR = "SS"
    (series,) = read_dicom([write(tmp_path / "a", [dataset])], credited(tmp_path))
    assert (series.hu.reshape(-1)[:32] == -1024).all()
    assert series.z_mm is None


def test_scouts_and_other_modalities_are_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "a", study(1, PatientID="P1"))
    write(tmp_path / "b", study(2, PatientID="P1", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]))
    write(tmp_path / "c", study(3, PatientID="P1", Modality="MR"))
    assert [series.slices for series in read_dicom([tmp_path], credited(tmp_path))] == [3]
    with pytest.raises(SourceError, match="no CT"):
        list(read_dicom([tmp_path / "c"], credited(tmp_path)))


def test_a_series_without_patient_cannot_be_split(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="Patient ID"):
        list(read_dicom([write(tmp_path / "a", study(1, PatientID=""))], credited(tmp_path)))


def test_slices_of_two_patients_in_one_series_are_refused(tmp_path: Path) -> None:
    """As bad de-identification leaves them: one might be trained on, and the other tested."""
    datasets = study(1, slices=4, PatientID="SECRET-1")
    for dataset in datasets[2:]:
        dataset.PatientID = "SECRET-2"
    with pytest.raises(SourceError, match="several Patient IDs") as caught:
        list(read_dicom([write(tmp_path / "a", datasets)], credited(tmp_path)))
    assert "SECRET" not in f"{caught.value} {caught.value.hint}"


def test_a_damaged_slice_is_an_error_that_names_no_patient(tmp_path: Path) -> None:
    datasets = study(1, PatientID="SECRET^NAME")
    datasets[1].PixelData = datasets[1].PixelData[:100]
    with pytest.raises(SourceError) as caught:
        list(read_dicom([write(tmp_path / "a", datasets)], credited(tmp_path)))
    assert "SECRET" not in f"{caught.value} {caught.value.hint}"


def test_real_ct_is_read_with_its_credit() -> None:
    folder = shared_data("ct/dicom/lidc0002")
    (series,) = read_dicom([folder], read_provenance(folder.parents[1] / "provenance.csv"))
    assert (series.patient, series.hu.shape, series.kernel) == ("LIDC-IDRI-0002", (12, 512, 512), "STANDARD")
    assert series.credit.collection == "LIDC-IDRI"


# --- npz --------------------------------------------------------------------------------------------------------------


def npz(path: Path, headers: Sequence[Mapping[str, object]], **arrays: np.ndarray) -> Path:
    hu = np.arange(len(headers) * 16, dtype=np.int16).reshape(len(headers), 4, 4)
    np.savez(path, **{"hu": hu, "meta": np.array(json.dumps(headers)), **arrays})
    return path


def test_neighbours_are_sorted_by_position(tmp_path: Path) -> None:
    meta = [{"PatientID": "P1", "ConvolutionKernel": "LUNG", "KVP": "120"}] * 3
    file = npz(tmp_path / "a.npz", meta, z=np.array([5.0, 0.0, 2.5]), spacing=np.array([0.7, 0.7]))
    (series,) = read_volumes([file], credited(tmp_path))
    assert series.hu[:, 0, 0].tolist() == [16, 32, 0]
    assert (series.spacing_mm, series.kernel, series.kvp) == ((2.5, 0.7, 0.7), "LUNG", 120.0)


def test_slices_without_positions_are_series_of_their_own(tmp_path: Path) -> None:
    meta = [{"PatientID": f"P{at}", "PixelSpacing": [0.6, 0.6], "SliceThickness": "5"} for at in range(2)]
    found = list(read_volumes([npz(tmp_path / "a.npz", meta)], credited(tmp_path)))
    assert [(series.patient, series.name, series.slices) for series in found] == [
        ("P0", "a.npz#0", 1),
        ("P1", "a.npz#1", 1),
    ]
    assert found[0].spacing_mm == (5.0, 0.6, 0.6)
    assert found[0].z_mm is None


@pytest.mark.parametrize(
    ("meta", "arrays"),
    [
        ([{"PixelSpacing": [1, 1]}], {}),
        ([{"PatientID": "P"}], {}),
        ([{"PatientID": "P", "PixelSpacing": [1, -1]}], {}),
        ([{"PatientID": "P"}, {"PatientID": "Q"}], {"z": np.array([0.0, 1.0]), "spacing": np.array([1.0, 1.0])}),
        ([{"PatientID": "P"}], {"z": np.array([0.0, 1.0]), "spacing": np.array([1.0, 1.0])}),
        ([{"PatientID": "P"}], {"hu": np.zeros((1, 4, 4), np.float32)}),
        ([{"PatientID": "P"}], {"meta": np.array("no json")}),
        ([{"PatientID": "P"}], {"meta": np.array([object()])}),
        ([{"PatientID": "P"}], {"meta": np.array("[" * 100_000)}),
        ([{"PatientID": "P"}], {"z": np.array(["here"]), "spacing": np.array([1.0, 1.0])}),
        ([{"PatientID": "P"}], {"z": np.array([np.nan]), "spacing": np.array([1.0, 1.0])}),
        ([{"PatientID": "P"}], {"z": np.array([0.0]), "spacing": np.array([1.0, 0.0])}),
        ([{"PatientID": "P"}] * 2, {"z": np.array([1.0, 1.0]), "spacing": np.array([1.0, 1.0])}),
    ],
)
def test_what_is_not_of_the_layout_is_refused(tmp_path: Path, meta: list[Mapping[str, object]], arrays: dict) -> None:
    with pytest.raises(SourceError):
        list(read_volumes([npz(tmp_path / "a.npz", meta, **arrays)], credited(tmp_path)))


@pytest.mark.parametrize("shape", [(0, 8, 8), (1, 0, 8), (1, 8, 0), (1, 0, 0)])
@pytest.mark.parametrize("has_positions", [True, False])
def test_a_volume_without_pixels_is_refused(tmp_path: Path, shape: tuple[int, ...], has_positions: bool) -> None:
    meta = [{"PatientID": "P", "PixelSpacing": [1, 1]}] * shape[0]
    places = {"z": np.zeros(shape[0]), "spacing": np.ones(2)} if has_positions else {}
    with pytest.raises(SourceError, match=r"a\.npz holds no pixels"):
        list(read_volumes([npz(tmp_path / "a.npz", meta, hu=np.zeros(shape, np.int16), **places)], credited(tmp_path)))


def test_a_shape_that_no_memory_holds_is_refused(tmp_path: Path) -> None:
    stored = io.BytesIO()
    np.lib.format.write_array_header_1_0(stored, {"descr": "<i2", "fortran_order": False, "shape": (1 << 58, 4, 4)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("hu.npy", stored.getvalue())
    with pytest.raises(SourceError, match="cannot be read"):
        list(read_volumes([tmp_path / "a.npz"], credited(tmp_path)))


# --- LDCT-and-Projection-data -----------------------------------------------------------------------------------------


def low_of(full: Sequence[Dataset], **attributes: object) -> list[Dataset]:
    """The same places at another dose: UIDs of its own, and 7 HU more."""
    low = study(99, slices=len(full), PatientID=full[0].PatientID, **attributes)
    for one, other in zip(full, low, strict=True):
        other.ImagePositionPatient = one.ImagePositionPatient
        other.PixelData = (np.frombuffer(one.PixelData, "<i2") + np.int16(7)).tobytes()
    return low


def mayo(root: Path, patient: str) -> None:
    """As TCIA's downloads lie: patient, study, series."""
    full = study(5, slices=4, PatientID=patient, SeriesDescription="Full Dose Images")
    folder = root / "LDCT-and-Projection-data" / patient / "08-21-2018-10971"
    write(folder / "1.000000-Full Dose Images-98833", full)
    write(folder / "1.000000-Low Dose Images-39882", low_of(full, SeriesDescription="Low Dose Images")[:3])
    projection = study(6, slices=1, PatientID=patient, SOPClassUID="1.2.840.10008.5.1.4.1.1.66")
    write(folder / "1.000000-Full Dose Projections-42", projection)


def test_the_mayo_layout_gives_pairs_of_the_slices_that_both_doses_have(tmp_path: Path) -> None:
    for patient in ("L067", "C002"):
        mayo(tmp_path, patient)
    pairs = list(read_mayo(tmp_path))
    assert [(pair.full.patient, pair.dose, pair.full.slices) for pair in pairs] == [("C002", 0.1, 3), ("L067", 0.25, 3)]
    for pair in pairs:
        inside = pair.full.hu > -1000
        assert ((pair.low_hu - pair.full.hu)[inside] == 7).all()
        assert "McCollough" in pair.full.credit.attribution


def test_the_challenges_layout_pairs_by_kernel_and_thickness(tmp_path: Path) -> None:
    for thickness, kernel in (("1", "D45f"), ("3", "B30f")):
        full = study(int(thickness), PatientID="L067", SliceThickness=thickness, ConvolutionKernel=kernel)
        low = low_of(full, SliceThickness=thickness, ConvolutionKernel=kernel)
        for word, datasets in (("full", full), ("quarter", low)):
            name = f"L067_{word[0].upper()}D_{thickness}_1.CT.{{:04d}}.IMA"
            write(tmp_path / f"{word}_{thickness}mm" / "L067" / f"{word}_{thickness}mm", datasets, name)
    pairs = list(read_mayo(tmp_path))
    assert sorted(pair.full.kernel for pair in pairs) == ["B30f", "D45f"]
    assert len({pair.full.name for pair in pairs}) == 2
    assert all(((pair.low_hu - pair.full.hu)[pair.full.hu > -1000] == 7).all() for pair in pairs)


def test_a_folder_without_pairs_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "L067" / "Full Dose Images", study(1, PatientID="L067"))
    with pytest.raises(SourceError, match="no pair"):
        list(read_mayo(tmp_path))


# --- DeepLesion -------------------------------------------------------------------------------------------------------

COLUMNS = (
    "File_name,Patient_index,Study_index,Series_ID,Key_slice_index,Measurement_coordinates,Bounding_boxes,"
    "Lesion_diameters_Pixel_,Normalized_lesion_location,Coarse_lesion_type,Possibly_noisy,Slice_range,Spacing_mm_px_,"
    "Image_size,DICOM_windows,Patient_gender,Patient_age,Train_Val_Test"
)
ROW = (
    '000001_01_01_109.png,1,1,1,109,"233.537, 95.0204, 234.057, 106.977, 231.169, 101.605, 236.252, 101.143",'
    '"226.169, 90.0204, 241.252, 111.977","11.9677, 5.10387","0.44666, 0.283794, 0.434454",3,0,"103, 115",'
    '"0.488281, 0.488281, 5","512, 512","-175, 275",F,62,{split}'
)


def deeplesion(root: Path) -> tuple[Path, Path]:
    folder = root / "Images_png" / "000001_01_01"
    folder.mkdir(parents=True)
    for number in (108, 109, 110, 201):
        stored = np.full((16, 16), 32768 + number, np.uint16)
        stored[0] = 0  # outside of the field of view
        cv2.imwrite(str(folder / f"{number:03d}.png"), stored)
    (root / "DL_info.csv").write_text(f"{COLUMNS}\n{ROW.format(split=3)}\n")
    return root / "Images_png", root / "DL_info.csv"


def test_deeplesion_gives_runs_of_slices_and_lesions_with_the_official_split(tmp_path: Path) -> None:
    images, table = deeplesion(tmp_path)
    (lesion,) = read_lesions(table)
    assert (lesion.patient, lesion.series, lesion.slice_index) == ("DeepLesion-000001", "000001_01_01", 109)
    assert (lesion.split, lesion.long_px, lesion.box[2], lesion.noisy) == ("test", 11.9677, 241.252, False)
    assert lesion.recist[1] == (234.057, 106.977)
    found = list(read_deeplesion(images, (lesion,)))
    assert [(series.name, series.slices) for series in found] == [("000001_01_01/108", 3), ("000001_01_01/201", 1)]
    assert found[0].hu[:, 5, 5].tolist() == [108, 109, 110]
    assert (found[0].hu[:, 0] == -1024).all()
    assert found[0].spacing_mm == (5.0, 0.488281, 0.488281)


@pytest.mark.parametrize(
    ("old", "new"),
    [("233.537", "nan"), (",3\n", ",7\n"), ("000001_01_01_109", "../../etc/passwd"), ("0.488281, 5", "0, 5")],
)
def test_a_row_that_is_not_of_the_table_is_refused(tmp_path: Path, old: str, new: str) -> None:
    _, table = deeplesion(tmp_path)
    table.write_text(table.read_text().replace(old, new).replace('"0.488281, 0, 5', '"0, 0, 5'))
    with pytest.raises(SourceError, match="row 2"):
        read_lesions(table)


def test_a_patient_in_two_official_splits_is_an_error(tmp_path: Path) -> None:
    _, table = deeplesion(tmp_path)
    table.write_text(f"{COLUMNS}\n{ROW.format(split=3)}\n{ROW.format(split=1)}\n")
    with pytest.raises(SourceError, match="two splits"):
        read_lesions(table)


# --- photographs ------------------------------------------------------------------------------------------------------


def test_photographs_become_grey(tmp_path: Path) -> None:
    (tmp_path / "DIV2K_train_HR").mkdir()
    colour = np.zeros((6, 8, 3), np.uint8)
    colour[:, :, 1] = 200  # green
    cv2.imwrite(str(tmp_path / "DIV2K_train_HR" / "0001.png"), colour)
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((4, 4), 77, np.uint8))
    cv2.imwrite(str(tmp_path / "deep.png"), np.full((4, 4), 65535, np.uint16))
    (tmp_path / "readme.txt").write_text("not a picture")
    found = {picture.name: picture.grey for picture in read_natural(tmp_path, CREDIT)}
    assert list(found) == ["DIV2K_train_HR/0001.png", "deep.png", "grey.png"]
    assert found["DIV2K_train_HR/0001.png"].shape == (6, 8)
    assert found["DIV2K_train_HR/0001.png"] == pytest.approx(0.587 * 200, abs=0.5)
    assert (found["grey.png"] == 77.0).all()
    assert found["deep.png"] == pytest.approx(255.0)


def test_pictures_that_claim_too_much_or_are_none_are_refused(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((4, 4), np.uint8))
    huge = bytearray((tmp_path / "a.png").read_bytes())
    huge[16:24] = (60000).to_bytes(4, "big") * 2
    for content in (bytes(huge), b"text", bytes(huge)[:30], (tmp_path / "a.png").read_bytes()[:40]):
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(SourceError):
            list(read_natural(tmp_path, CREDIT))
    (tmp_path / "a.png").unlink()
    with pytest.raises(SourceError, match="no PNG"):
        list(read_natural(tmp_path, CREDIT))


def test_real_photographs_are_read() -> None:
    folder = shared_data("natural/kodak")
    picture = next(read_natural(folder, CREDIT))
    assert picture.grey.dtype == np.uint8 and picture.grey.shape in ((512, 768), (768, 512))
    assert 0 <= picture.grey.min() < picture.grey.max() <= 255
