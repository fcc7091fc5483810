"""What is read of a processor and of the limits on it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.runtimes.processor import parse_processor, parse_quota, this_processor, usable_cores

CORE = "processor\t: {}\nmodel name\t: Xeon\nflags\t\t: fpu avx512f {}\n\n"


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("avx512_bf16 amx_bf16", "amx_bf16 avx512_bf16", "AMX"),
        ("avx512_bf16", "avx512_bf16", "AVX512-BF16"),
        ("avx512_bf16", "", ""),
        ("amx_bf16_not", "avx512_bf16x", ""),
    ],
    ids=["both", "without AMX", "one core only", "like them"],
)
def test_bfloat16_is_what_every_core_has(first: str, second: str, expected: str) -> None:
    found = parse_processor(CORE.format(0, first) + CORE.format(1, second), 2)
    assert (found.bfloat16, found.model, found.cores) == (expected, "Xeon", 2)


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    assert parse_processor(text, 1).bfloat16 in ("", "AMX", "AVX512-BF16")
    assert (parse_quota(text) or 0.0) >= 0.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [("max 100000\n", None), ("150000 100000\n", 1.5), ("", None), ("1 0", None), ("-1 100000", None), ("²5 1", None)],
)
def test_quotas_of_control_groups(text: str, expected: float | None) -> None:
    assert parse_quota(text) == expected


def test_whole_cores_and_at_least_one() -> None:
    assert usable_cores(8, [None]) == 8
    assert usable_cores(8, [2.9, None]) == 2
    assert usable_cores(8, [0.5]) == 1


def test_where_nothing_can_be_read_nothing_is_limited(tmp_path: Path) -> None:
    found = this_processor(tmp_path, tmp_path)
    assert found.cores >= 1
    assert not found.bfloat16
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    assert this_processor(tmp_path, tmp_path).cores == 1
