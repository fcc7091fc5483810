"""Data sets with sequences: what pydicom reads is read, what is hostile is refused."""

from __future__ import annotations

import struct
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filebase import DicomIO
from pydicom.filewriter import write_dataset

from dicomnode.core.sequences import Item, read_items
from dicomnode.errors import InputError

IMPLICIT, EXPLICIT, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
UID, REASON, SERIES, IMAGES = 0x00081155, 0x00081197, 0x00081115, 0x00081140
WANTED, SEQUENCES = (UID, REASON), (SERIES, IMAGES)


def encode(dataset: Dataset, syntax: str, *, undefined: bool = False) -> bytes:
    target = BytesIO()
    file = DicomIO(target)
    file.is_little_endian, file.is_implicit_VR = syntax != BIG, syntax == IMPLICIT
    for element in dataset:
        if element.VR == "SQ":
            element.is_undefined_length = undefined
            for item in element.value:
                item.is_undefined_length_sequence_item = undefined
    write_dataset(file, dataset)
    return target.getvalue()


def item(uid: str, reason: int | None = None, **others: Any) -> Dataset:
    dataset = Dataset()
    dataset.ReferencedSOPInstanceUID = uid
    if reason is not None:
        dataset.FailureReason = reason
    for keyword, value in others.items():
        setattr(dataset, keyword, value)
    return dataset


_UIDS = st.from_regex(r"1\.2\.[1-9][0-9]{0,20}", fullmatch=True)
_REASONS = st.none() | st.integers(0, 0xFFFF)
_ITEMS = st.lists(st.tuples(_UIDS, _REASONS), max_size=4)
_SERIES = st.lists(st.tuples(_UIDS, _ITEMS), max_size=4)


@settings(deadline=None, max_examples=60)
@given(_SERIES, st.sampled_from([IMPLICIT, EXPLICIT, BIG]), st.booleans())
def test_what_pydicom_writes_is_read(
    series: list[tuple[str, list[tuple[str, int | None]]]], syntax: str, undefined: bool
) -> None:
    dataset = Dataset()
    dataset.PatientName = "Doe^Jane"
    dataset.ReferencedSeriesSequence = [
        item(uid, None, ReferencedImageSequence=[item(*each) for each in images], PatientComments="x" * 70)
        for uid, images in series
    ]
    read = read_items(encode(dataset, syntax, undefined=undefined), syntax, WANTED, SEQUENCES)
    found = [
        (each.text(UID), [(image.text(UID), image.number(REASON)) for image in each.items(IMAGES)])
        for each in read.items(SERIES)
    ]
    assert found == series
    assert set(read.values) == set()


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=200), st.sampled_from([IMPLICIT, EXPLICIT, BIG]))
def test_of_anything_else_it_gives_an_item_or_its_own_error(content: bytes, syntax: str) -> None:
    try:
        assert isinstance(read_items(content, syntax, WANTED, SEQUENCES), Item)
    except InputError as error:
        assert error.hint


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 200), st.sampled_from([IMPLICIT, EXPLICIT, BIG]), st.booleans())
def test_what_is_cut_short_is_refused_or_a_shorter_data_set(cut: int, syntax: str, undefined: bool) -> None:
    dataset = item("1.2.3", 0x0112, ReferencedImageSequence=[item("1.2.4", 1), item("1.2.5", 2)])
    whole = encode(dataset, syntax, undefined=undefined)
    try:
        read = read_items(whole[:-cut], syntax, WANTED, SEQUENCES)
    except InputError:
        return
    assert read.text(UID) in ("", "1.2.3")


def nested(depth: int, length: int = 0xFFFFFFFF) -> bytes:
    return struct.pack("<HHLHHL", 0x0008, 0x1140, length, 0xFFFE, 0xE000, length) * depth


@pytest.mark.parametrize(
    "content",
    [
        nested(5000),
        struct.pack("<HHL", 8, 0x1155, 0xFFFFFFFF),  # undefined length, and no item follows
        struct.pack("<HHL", 8, 0x1155, 0x7FFFFFFF) + b"1.2",
        struct.pack("<HHLHHL", 8, 0x1140, 8, 0xFFFE, 0xE000, 4096),  # an item beyond its sequence
        struct.pack("<HHL", 8, 0x1140, 0xFFFFFFFF) + struct.pack("<HHL", 0xFFFE, 0xE000, 0) * 600_000,
    ],
    ids=["deep", "no sequence", "long", "item", "many"],
)
def test_bombs_are_refused(content: bytes) -> None:
    with pytest.raises(InputError):
        read_items(content, IMPLICIT, WANTED, SEQUENCES)
