"""Reading rejection notes as senders write them, and bytes that are none."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicomnode.core.rejections import TITLES, RejectionNote, read_note
from dicomnode.errors import InputError

SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian)


def item(**attributes: object) -> Dataset:
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def reference(uid: str) -> Dataset:
    return item(ReferencedSOPClassUID="1.2.840.10008.5.1.4.1.1.2", ReferencedSOPInstanceUID=uid)


def content(*uids: str) -> list[Dataset]:
    return [item(ValueType="IMAGE", ReferencedSOPSequence=[reference(uid)]) for uid in uids]


def evidence(*uids: str) -> list[Dataset]:
    series = item(SeriesInstanceUID="1.2.4", ReferencedSOPSequence=[reference(uid) for uid in uids])
    return [item(StudyInstanceUID="1.2.3", ReferencedSeriesSequence=[series])]


def document(title: str = "113001", scheme: str = "DCM", **attributes: object) -> Dataset:
    name = item(CodeValue=title, CodingSchemeDesignator=scheme, CodeMeaning="words")
    given = {
        "CurrentRequestedProcedureEvidenceSequence": evidence("1.1", "1.2"),
        "ContentSequence": content("1.1", "1.2"),
    }
    return item(ConceptNameCodeSequence=[name], PatientName="Doe^Jane", **{**given, **attributes})


def encoded(dataset: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    file = DicomBytesIO()
    file.is_implicit_VR, file.is_little_endian = syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian
    write_dataset(file, dataset)
    return file.getvalue()


def read(dataset: Dataset, syntax: str = ExplicitVRLittleEndian) -> RejectionNote | None:
    return read_note(encoded(dataset, syntax), syntax)


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("title", TITLES)
def test_each_title_in_each_encoding(title: str, syntax: str) -> None:
    assert read(document(title), syntax) == RejectionNote(title, ("1.1", "1.2"))


def test_only_an_archive_whose_time_is_over_leaves_what_is_right() -> None:
    assert [title for title in TITLES if not RejectionNote(title, ()).cancels] == ["113039"]


@pytest.mark.parametrize(("title", "scheme"), [("113000", "DCM"), ("113001", "99ELSE"), ("", "DCM"), ("113001", "")])
def test_other_documents_reject_nothing(title: str, scheme: str) -> None:
    assert read(document(title, scheme)) is None


def test_what_the_content_refers_to_counts_before_what_the_evidence_lists() -> None:
    assert read(document(ContentSequence=content("1.2"))) == RejectionNote("113001", ("1.2",))


def test_evidence_alone_counts_where_the_content_refers_to_nothing() -> None:
    described = [item(ValueType="TEXT", TextValue="blurred")]
    assert read(document(ContentSequence=described)) == RejectionNote("113001", ("1.1", "1.2"))


def test_content_alone_counts_too_and_what_is_nested_in_it() -> None:
    nested = [item(ValueType="CONTAINER", ContentSequence=content("1.7"))]
    dataset = document(ContentSequence=[*nested, *content("1.1", "1.1")])
    del dataset.CurrentRequestedProcedureEvidenceSequence
    assert read(dataset) == RejectionNote("113001", ("1.7", "1.1"))


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, of the value that is wanted here
def test_what_is_no_uid_is_passed_over() -> None:
    assert read(document(ContentSequence=content("../../etc", "1.1"))) == RejectionNote("113001", ("1.1",))


@given(st.binary(max_size=400))
def test_bytes_that_are_no_data_set_are_refused_or_reject_nothing(noise: bytes) -> None:
    with suppress(InputError):
        assert read_note(noise, ExplicitVRLittleEndian) is None


@given(st.data())
def test_a_damaged_note_is_refused_or_read(data: st.DataObject) -> None:
    whole = bytearray(encoded(document()))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(whole)))
    for damaged in (bytes(whole), bytes(whole[:cut])):
        with suppress(InputError):
            read_note(damaged, ExplicitVRLittleEndian)
