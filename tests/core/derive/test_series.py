"""A slice that is encoded after another one is encoded as it is alone."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.datadict import dictionary_VM, dictionary_VR, keyword_for_tag
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.filewriter import dcmwrite
from pydicom.sequence import Sequence
from pydicom.uid import UID, CTImageStorage, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicomnode.core.derive.derivation import Derivation, SourceReference
from dicomnode.core.derive.image import PixelGrid, derive_image, describe_image
from dicomnode.core.derive.iod import readable_tags
from dicomnode.core.derive.series import _ENTERING, DerivedSeries
from dicomnode.errors import InputError
from tests.core.derive.sources import SOP_INSTANCE_UID, ct_image, derivation, pixels, presentation, written

TAGS = sorted(readable_tags("ct-image"))
REFUSED = ("SOPClassUID", "PhotometricInterpretation", "Rows", "Columns")
"""With another value nothing is derived."""
NEEDED = ("StudyInstanceUID", "SeriesInstanceUID")
TEXTS = {
    "AE": ("A", "B"), "AS": ("001Y", "002Y"), "CS": ("A", "B"), "DA": ("20240102", "20240103"), "DS": ("1", "2.5"),
    "DT": ("20240102", "20240103"), "IS": ("1", "2"), "PN": ("A^B", "C^D"), "TM": ("0101", "0102"),
    "UI": ("1.2.7", "1.2.8"),
}  # fmt: skip


def of_slice(number: int, how: Any = derivation, **changes: Any) -> Derivation:
    own = SourceReference(CTImageStorage, f"{SOP_INSTANCE_UID}.{number}")
    made: Derivation = how(**{"sop_instance_uid": f"2.25.{number}", "sources": (own,), **changes})
    return made


def source_slice(number: int, syntax: str = ExplicitVRLittleEndian, **attributes: Any) -> Dataset:
    place = {"InstanceNumber": number, "SliceLocation": str(number), "ImagePositionPatient": ["0", "1", str(number)]}
    return undecoded(ct_image(**{"SOPInstanceUID": f"{SOP_INSTANCE_UID}.{number}", **place, **attributes}), syntax)


def undecoded(image: Dataset, syntax: str = ExplicitVRLittleEndian) -> Dataset:
    """As `pixels.read` reads it; `dcmread` decodes some elements at once."""
    elements = BytesIO()
    write_dataset(elements, image, syntax)
    elements.seek(0)
    parsed = read_dataset(elements, syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian)
    parsed.file_meta = FileMetaDataset()
    parsed.file_meta.TransferSyntaxUID = UID(syntax)
    return parsed


def write_dataset(file: BytesIO, image: Dataset, syntax: str) -> None:
    dcmwrite(file, image, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=syntax != ExplicitVRBigEndian)


def encoded(series: DerivedSeries, source: Dataset, values: np.ndarray[Any, Any], how: Derivation) -> bytes:
    grid = PixelGrid(values.shape, values.dtype)
    content = series.encode_start(source, grid, how) + values.astype(values.dtype.newbyteorder("<")).tobytes()
    return content + bytes(len(content) % 2)


def assert_same(first: Dataset, second: Dataset, how: Any = derivation, values: Any = None) -> None:
    """The second one, after the first, is what it is alone."""
    values, series = pixels() if values is None else values, DerivedSeries()
    encoded(series, first, values, of_slice(1, how))
    assert encoded(series, second, values, of_slice(2, how)) == written(derive_image(second, values, of_slice(2, how)))


@pytest.mark.parametrize("how", [derivation, presentation])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_neighbours(how: Any, syntax: str) -> None:
    assert_same(source_slice(1, syntax), source_slice(2, syntax), how)


def test_only_what_differs_is_said_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    series, described = DerivedSeries(), []

    def counted(*given: Any) -> Any:
        described.append(given)
        return describe_image(*given)

    monkeypatch.setattr("dicomnode.core.derive.series.describe_image", counted)
    for number in range(1, 5):
        encoded(series, source_slice(number), pixels(), of_slice(number))
    assert len(described) == 1


@pytest.mark.parametrize("how", [derivation, presentation])
def test_whatever_copied_attributes_differ(how: Any) -> None:
    """Each attribute that the IOD has. One that `describe_image` reads, and `_ENTERING` does not name, fails here."""
    values = {tag: _two_values(tag) for tag in TAGS if tag not in _ENTERING}
    known = [(keyword_for_tag(tag), pair) for tag, pair in values.items() if pair is not None]
    for begin in range(0, len(known), 20):
        first, second = ({keyword: pair[at] for keyword, pair in known[begin : begin + 20]} for at in (0, 1))
        assert_same(source_slice(1, **first), source_slice(2, **second), how)


@pytest.mark.parametrize("tag", sorted(_ENTERING & readable_tags("ct-image")))
def test_an_attribute_that_enters_others_differs_comes_or_goes(tag: int) -> None:
    pair, keyword = _two_values(tag), keyword_for_tag(tag)
    if pair is None or keyword in REFUSED:
        return
    for first, second in ((pair[0], pair[1]), (pair[0], None), (None, pair[1])):
        if None not in (first, second) or keyword not in NEEDED:
            one: dict[str, Any] = {keyword: first}
            other: dict[str, Any] = {keyword: second}
            assert_same(source_slice(1, **one), source_slice(2, **other))


def _two_values(tag: int) -> tuple[Any, Any] | None:
    vr = dictionary_VR(tag)
    if keyword_for_tag(tag) in ("PixelData", "SOPInstanceUID", "SpecificCharacterSet") or "or OB" in vr:
        return None
    if vr == "SQ":
        return Sequence([_code("A")]), Sequence([_code("B")])
    if vr in ("OB", "OW", "UN", "OV", "OF", "OD", "OL"):
        return b"ab", b"cd"
    if vr in ("US", "SS", "US or SS", "UL", "SL", "UV", "FD", "FL", "AT"):
        several = int(dictionary_VM(tag)[0]) if dictionary_VM(tag)[0].isdigit() else 1
        return (1, 2) if several == 1 else ([1] * several, [2] * several)
    return TEXTS.get(vr, ("one", "two"))


def _code(value: str) -> Dataset:
    code = Dataset()
    code.CodeValue = value
    return code


def test_another_character_set_time_zone_or_way_of_padding() -> None:
    changes: tuple[dict[str, Any], ...] = (
        {"SpecificCharacterSet": "ISO_IR 192"}, {"TimezoneOffsetFromUTC": "+0300"}, {"PixelPaddingValue": 7},
        {"SeriesDescription": "another"}, {"PixelRepresentation": 1}, {"SpecificCharacterSet": None},
    )  # fmt: skip
    for change in changes:
        assert_same(source_slice(1), source_slice(2, **change))
        assert_same(source_slice(1, **change), source_slice(2))


def test_another_transfer_syntax_or_type_of_pixels() -> None:
    assert_same(source_slice(1, ImplicitVRLittleEndian), source_slice(2))
    series = DerivedSeries()
    encoded(series, source_slice(1), pixels("uint16"), of_slice(1))
    other = pixels("int8", (3, 5))
    with pytest.raises(InputError):
        encoded(series, source_slice(2), other, of_slice(2))  # another matrix than the source's
    small = ct_image(SOPInstanceUID=f"{SOP_INSTANCE_UID}.3", Rows=3, Columns=5)
    content = encoded(series, undecoded(small), other, of_slice(3))
    assert content == written(derive_image(undecoded(small), other, of_slice(3)))
    assert dcmread(BytesIO(content)).pixel_array.tolist() == other.tolist()


def test_a_finer_grid_and_all_sources_of_a_volume_engine() -> None:
    assert_same(source_slice(1), source_slice(2), values=pixels(shape=(8, 12)))
    everything = tuple(SourceReference(CTImageStorage, f"{SOP_INSTANCE_UID}.{number}") for number in (1, 2, 3))
    assert_same(source_slice(1), source_slice(2), lambda **given: derivation(**{**given, "sources": everything}))


def test_what_cannot_be_read_of_one_slice_is_counted_in_its_own_image_only() -> None:
    broken = source_slice(2)
    broken.add_new("RequestAttributesSequence", "OB", b"no item at all  ")
    item = broken["RequestAttributesSequence"]
    item.VR = "SQ"
    assert_same(source_slice(1), source_slice(2))


def test_an_image_of_another_source_is_refused_after_a_right_one() -> None:
    series = DerivedSeries()
    encoded(series, source_slice(1), pixels(), of_slice(1))
    with pytest.raises(InputError, match="not among the sources"):
        encoded(series, source_slice(2), pixels(), of_slice(1))
    second = encoded(series, source_slice(2), pixels(), of_slice(2))
    assert second == written(derive_image(source_slice(2), pixels(), of_slice(2)))
