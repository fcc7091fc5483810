"""What a clause of a rule means, as a table: the same that docs/rules.md tells."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomnode.core.rules import Facts, explain, parse_clause
from dicomnode.core.rules.explain import ClauseExplanation
from dicomnode.core.rules.ruleset import RuleSpec, load_rules
from dicomnode.core.types import Sender
from dicomnode.errors import ConfigError

YES, NO = True, False
ABSENT = ()

CASES = [
    # key, what the rule says, what the object has, does the clause hold?
    ("Modality", "CT", ("CT",), YES),
    ("Modality", "CT", ("MR",), NO),
    ("Modality", "CT", ABSENT, NO),
    ("Modality", "CT", ("CT ",), YES),  # padding means nothing
    ("BodyPartExamined", "chest", ("CHEST",), YES),  # nor does case
    ("BodyPartExamined", "CHEST", ("CHESTABDOMEN",), NO),  # the whole value, not a part of it
    # * and ?
    ("Modality", "*", ("CT",), YES),
    ("Modality", "*", ABSENT, NO),
    ("Modality", "*", ("",), NO),  # an empty value is none
    ("BodyPartExamined", "CHEST*", ("CHESTABDOMEN",), YES),
    ("BodyPartExamined", "CHEST*", ("CHEST",), YES),
    ("BodyPartExamined", "CHEST*", ABSENT, NO),
    ("SeriesDescription", "*low dose*", ("Thorax LOW DOSE 1.0 B60",), YES),
    ("StationName", "CT?", ("CT1",), YES),
    ("StationName", "CT?", ("CT12",), NO),
    ("SeriesDescription", "a[b]*", ("a[b]c",), YES),  # brackets are just brackets
    ("SeriesDescription", "a[b]*", ("abc",), NO),
    ("SeriesDescription", "= 5*", ("5*",), YES),  # "=" takes the text as it is
    ("SeriesDescription", "= 5*", ("5 mm",), NO),
    ("SeriesDescription", "= absent", ("absent",), YES),
    ("SeriesDescription", "= <5mm", ("<5mm",), YES),
    # lists: any of
    ("BodyPartExamined", ["CHEST", "LUNG"], ("LUNG",), YES),
    ("BodyPartExamined", ["CHEST", "LUNG"], ("HEAD",), NO),
    ("BodyPartExamined", ["CHEST", "LUNG"], ABSENT, NO),
    ("BodyPartExamined", ["CHEST", "absent"], ABSENT, YES),
    ("BodyPartExamined", ["CHEST*", "!CHEST WALL"], ("CHESTABDOMEN",), YES),  # any of these, none of those
    ("BodyPartExamined", ["CHEST*", "!CHEST WALL"], ("CHEST WALL",), NO),
    ("Modality", ["!CT", "!MR"], ("CR",), YES),
    ("Modality", ["!CT", "!MR"], ("MR",), NO),
    ("Modality", ["!CT", "!MR"], ABSENT, YES),
    # not, absent
    ("Modality", "!CT", ("MR",), YES),
    ("Modality", "!CT", ("CT",), NO),
    ("Modality", "!CT", ABSENT, YES),
    ("Modality", "! CT", ("CT",), NO),
    ("ContrastBolusAgent", "absent", ABSENT, YES),
    ("ContrastBolusAgent", "absent", ("",), YES),
    ("ContrastBolusAgent", "absent", ("Iodine",), NO),
    ("ContrastBolusAgent", "! absent", ("Iodine",), YES),
    ("ContrastBolusAgent", "! absent", ABSENT, NO),
    ("ContrastBolusAgent", "present", ("Iodine",), YES),
    ("ContrastBolusAgent", "!*", ABSENT, YES),
    # several values: one is enough, and for "!" none may
    ("ImageType", "ORIGINAL", ("ORIGINAL", "PRIMARY", "AXIAL"), YES),
    ("ImageType", "AXIAL", ("ORIGINAL", "PRIMARY", "AXIAL"), YES),
    ("ImageType", "!LOCALIZER", ("ORIGINAL", "PRIMARY", "AXIAL"), YES),
    ("ImageType", "!LOCALIZER", ("ORIGINAL", "PRIMARY", "LOCALIZER"), NO),
    ("PixelSpacing", "< 0.5", ("0.4", "0.6"), YES),
    ("PixelSpacing", "!< 0.5", ("0.4", "0.6"), NO),
    # numbers
    ("SliceThickness", "<= 1.5", ("1.5",), YES),
    ("SliceThickness", "<= 1.5", ("1.50",), YES),
    ("SliceThickness", "<= 1.5", ("2.5",), NO),
    ("SliceThickness", "<= 1.5", ("1.50000001",), YES),  # what FD makes of 1.5
    ("SliceThickness", "<= 1.5", ABSENT, NO),
    ("SliceThickness", "!<= 1.5", ABSENT, YES),
    ("SliceThickness", "< 1.5", ("1.5",), NO),
    ("SliceThickness", "> 1.5", ("1.5",), NO),
    ("SliceThickness", ">=1.5", ("1.5",), YES),
    ("SliceThickness", 1.5, ("1.50",), YES),
    ("SliceThickness", "1.5", ("15e-1",), YES),
    ("SeriesNumber", 3, ("3",), YES),
    ("SeriesNumber", 3, ("03",), YES),
    ("SeriesNumber", 3, ("30",), NO),
    ("KVP", "100..120", ("100",), YES),
    ("KVP", "100..120", ("120.0",), YES),
    ("KVP", "100..120", ("121",), NO),
    ("KVP", "..120", ("80",), YES),
    ("KVP", "100..", ("80",), NO),
    ("KVP", ["80", "100..120"], ("80",), YES),
    ("TablePosition", "-10..-5", ("-7",), YES),
    ("WindowCenter", "-600", ("-600",), YES),
    # what is no number never lets a clause hold, with or without "!"
    ("SliceThickness", "<= 1.5", ("thin",), NO),
    ("SliceThickness", "!<= 1.5", ("thin",), NO),
    ("SliceThickness", "<= 1.5", ("nan",), NO),
    ("SliceThickness", ">= 1.5", ("1e999",), NO),
    ("SliceThickness", "10", ("1_0",), NO),
    ("SliceThickness", "*", ("thin",), YES),
    ("PixelSpacing", "<= 1.5", ("thin", "1"), YES),
    # dates and times
    ("StudyDate", "20200131", ("20200131",), YES),
    ("StudyDate", 20200131, ("2020.01.31",), YES),  # as ACR-NEMA wrote it
    ("StudyDate", "20200101-20201231", ("20200630",), YES),
    ("StudyDate", "20200101-20201231", ("20210101",), NO),
    ("StudyDate", "20200101-", ("20210101",), YES),
    ("StudyDate", "-20201231", ("20210101",), NO),
    ("StudyDate", "20200101..20201231", ("20201231",), YES),
    ("StudyDate", ">= 20200101", ("20191231",), NO),
    ("StudyDate", ">= 20200101", ("yesterday",), NO),
    ("StudyDate", "2020*", ("20200630",), YES),
    ("StudyTime", "0700-1200", ("115959.123",), YES),
    ("StudyTime", "0700-1200", ("120030",), YES),  # to the precision that is written: 12:00
    ("StudyTime", "0700-1200", ("120100",), NO),
    ("StudyTime", "< 07", ("065959",), YES),
    ("StudyTime", "< 07", ("07:00:00",), NO),
    ("AcquisitionDateTime", "20200630", ("20200630101500.000000+0100",), YES),
    ("AcquisitionDateTime", "2020..2021", ("20220101",), NO),
    # ages
    ("PatientAge", "< 18Y", ("017Y",), YES),
    ("PatientAge", "< 18Y", ("018Y",), NO),
    ("PatientAge", "< 018Y", ("011M",), YES),
    ("PatientAge", "<= 4W", ("028D",), YES),
    ("PatientAge", "< 18Y", ("young",), NO),
    # UIDs: to the letter, or by the standard's name
    ("SOPClassUID", "1.2.840.10008.5.1.4.1.1.2", ("1.2.840.10008.5.1.4.1.1.2",), YES),
    ("SOPClassUID", "CTImageStorage", ("1.2.840.10008.5.1.4.1.1.2",), YES),
    ("SOPClassUID", "CTImageStorage", ("1.2.840.10008.5.1.4.1.1.2.1",), NO),
    ("SOPClassUID", "1.2.840.10008.5.1.4.1.1.2*", ("1.2.840.10008.5.1.4.1.1.2.1",), YES),
    # who sent it
    ("peer", "ct1", ("ct1",), YES),
    ("peer", "absent", ("",), YES),  # a caller that no [peer.NAME] describes
    ("peer", "!ct1", ("",), YES),
    ("calling_ae", "CT*", ("CT_EMERGENCY",), YES),
    ("source_address", "10.1.2.3", ("10.1.2.3",), YES),
    ("source_address", "10.1.0.0/16", ("10.1.2.3",), YES),
    ("source_address", "10.1.0.0/16", ("10.2.2.3",), NO),
    ("source_address", "10.1.0.0/16", ("::ffff:10.1.2.3",), YES),
    ("source_address", "10.1.*", ("10.1.2.3",), YES),
    ("source_address", "10.1.0.0/16", ("fe80::1",), NO),
    ("source_address", "!10.1.0.0/16", ("pc7",), NO),  # no address: cannot be compared
    ("received_hour", "8..17", ("17",), YES),
    ("received_hour", "8..17", ("18",), NO),
    ("received_hour", "22..6", ("23",), YES),  # a night goes past midnight
    ("received_hour", "22..6", ("6",), YES),
    ("received_hour", "22..6", ("7",), NO),
    ("received_hour", "!22..6", ("12",), YES),
    ("received_hour", 8, ("8",), YES),
    ("received_hour", ">= 18", ("20",), YES),
]


@pytest.mark.parametrize(("key", "says", "has", "holds"), CASES, ids=str)
def test_a_clause_means_this(key: str, says: object, has: tuple[str, ...], holds: bool) -> None:
    assert parse_clause(key, says).holds(has) is holds


NEVER = [
    # key, what the rule says, what the message says, what the hint says
    ("modality", "CT", "no DICOM keyword", "'Modality'"),
    ("SliceThicknes", "1", "no DICOM keyword", "'SliceThickness'"),
    ("caling_ae", "CT1", "no DICOM keyword", "'calling_ae'"),
    ("SourceImageSequence", "*", "is a sequence", ""),
    ("PixelData", "*", "is binary", ""),
    ("TransferSyntaxUID", "*", "not part of the data set", ""),
    ("Modality", "", "empty text", "absent"),
    ("Modality", [], "empty list", "absent"),
    ("Modality", True, "neither text nor a number", ""),
    ("Modality", ["CT", ["MR"]], "neither text nor a number", ""),
    ("Modality", "!", "nothing to test", ""),
    ("Modality", "!!CT", "nothing to test", ""),
    ("Modality", "<= CT", "has no order", "= <= CT"),
    ("SliceThickness", "<= abc", "'abc' is not a number", "such as 1.5"),
    ("SliceThickness", "thin", "'thin' is not a number", ""),
    ("SliceThickness", "1.*", "is not a number", ""),
    ("SliceThickness", "1-3", "is not a number", ""),
    ("SliceThickness", "3..1", "can never hold", "exchange"),
    ("SliceThickness", "..", "without ends", '"*"'),
    ("SliceThickness", float("nan"), "is not a number", ""),
    ("StudyDate", "2020-01-31", "is not a date", "YYYYMMDD"),
    ("StudyDate", "20201301", "is not a date", "YYYYMMDD"),
    ("StudyDate", "20201231-20200101", "can never hold", "exchange"),
    ("StudyTime", "<= 2500", "is not a time", "HHMM"),
    ("PatientAge", "< 18", "is not an age", "018Y"),
    ("SOPClassUID", "CTImageStorag", "no UID", "'CTImageStorage'"),
    ("received_hour", "22..24", "is not an hour", "0 to 23"),
    ("source_address", "10.1", "no IP address", "10.1.*"),
    ("peer", "ct11", "no peer 'ct11'", "'ct1'"),
]


@pytest.mark.parametrize(("key", "says", "message", "hint"), NEVER, ids=str)
def test_a_clause_that_can_never_hold_is_refused(key: str, says: object, message: str, hint: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_clause(key, says, peers=("ct1", "pacs"))
    assert message in str(refused.value)
    assert key in str(refused.value)
    assert hint in refused.value.hint


def _explained(key: str, says: object, has: tuple[str, ...]) -> ClauseExplanation:
    rules = load_rules([RuleSpec("r", {key: says}, send=("pacs",))], {"pacs": None}, ())
    facts = Facts({key: has} if has else {}, Sender("ct1", "CT1", "NODE", "10.1.2.3", 0.0), 9)
    return explain(rules, facts)[0].clauses[0]


@pytest.mark.parametrize(
    ("key", "says", "has", "line"),
    [
        ("SliceThickness", "<= 1.5", ("2.5",), "SliceThickness: wanted <= 1.5, found 2.5"),
        ("SliceThickness", "<= 1.5", (), "SliceThickness: wanted <= 1.5, found absent"),
        ("BodyPartExamined", ["CHEST", "LUNG"], ("HEAD",), "BodyPartExamined: wanted CHEST or LUNG, found HEAD"),
        ("Modality", ["!CT", "!MR"], ("MR",), "Modality: wanted !CT and !MR, found MR"),
        ("ImageType", "LOCALIZER", ("A", "B"), "ImageType: wanted LOCALIZER, found A\\B"),
        ("KVP", "<= 120", ("high",), "KVP: wanted <= 120, found high (not a number, cannot be compared)"),
        ("SeriesDescription", "x", ("a\x1b[31m\nb",), "SeriesDescription: wanted x, found a?[31m?b"),
    ],
)  # fmt: skip
def test_an_explanation_reads_so(key: str, says: object, has: tuple[str, ...], line: str) -> None:
    assert str(_explained(key, says, has)) == line


def test_a_long_value_is_cut_in_an_explanation() -> None:
    assert len(_explained("SeriesDescription", "x", ("y" * 10_000,)).found) == 80


HOSTILE = st.lists(st.text(max_size=30), max_size=4).map(tuple)
SAID = {
    "Modality": "C*", "SliceThickness": "1..3", "StudyDate": "20200101-", "StudyTime": "<= 12", "PatientAge": "> 2Y",
    "AcquisitionDateTime": "2020..", "SOPClassUID": "1.2.*", "source_address": "10.0.0.0/8",
}  # fmt: skip
KEYS = st.sampled_from(sorted(SAID))


@settings(deadline=None)
@given(KEYS, HOSTILE)
def test_no_value_of_a_data_set_raises_and_not_both_of_a_clause_and_its_contrary_hold(
    key: str, has: tuple[str, ...]
) -> None:
    plain, negated = parse_clause(key, SAID[key]), parse_clause(key, f"! {SAID[key]}")
    assert not (plain.holds(has) and negated.holds(has))
    assert plain.holds(has) or negated.holds(has) or plain.unreadable(has)


@settings(deadline=None)
@given(KEYS, st.text(max_size=12))
def test_whatever_a_rule_says_is_a_clause_or_a_config_error(key: str, says: str) -> None:
    try:
        clause = parse_clause(key, says)
    except ConfigError as error:
        assert key in str(error)
    else:
        assert clause.holds(()) in (True, False)


@settings(deadline=None)
@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_a_range_is_what_its_two_comparisons_say(low: float, high: float, value: float) -> None:
    low, high = sorted((low, high))
    both = all(parse_clause("SliceThickness", says).holds((repr(value),)) for says in (f">= {low}", f"<= {high}"))
    assert parse_clause("SliceThickness", f"{low}..{high}").holds((repr(value),)) is both
