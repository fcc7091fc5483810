"""Every reader of bytes from outside, with the kept inputs of `make fuzz` and mutations of them, the same each time."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

import fuzz
from fuzz.targets import TARGETS

CORPUS = Path(fuzz.__file__).parent / "corpus"
LENGTHS = (
    b"\0\0",
    b"\xff\xff",
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\xf0",
    b"\x7f\xff\xff\xff",
    b"\xfe\xff\0\xe0",
)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """pydicom warns of all that is odd."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def kept(name: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]


def test_every_target_has_a_corpus() -> None:
    assert {path.name for path in CORPUS.iterdir()} == TARGETS.keys()
    assert all(kept(name) for name in TARGETS)


@pytest.mark.parametrize("name", TARGETS)
def test_what_was_found_once_stays_handled(name: str) -> None:
    for content in kept(name):
        TARGETS[name](content)


def mutated(content: bytes, other: bytes, chance: random.Random) -> bytes:
    """A few changes at places where they hurt: lengths, ends, pieces of another input."""
    changed = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        place = chance.randint(0, len(changed))
        match chance.randrange(6):
            case 0:
                changed[place : place + 1] = bytes([chance.randrange(256)])
            case 1:
                length = chance.choice(LENGTHS)
                changed[place : place + len(length)] = length
            case 2:
                del changed[place : place + chance.randint(1, 8)]
            case 3:
                start = chance.randint(0, len(other))
                changed[place:place] = other[start : start + chance.randint(1, 64)]
            case 4:
                changed[place:place] = changed[place : place + chance.randint(1, 64)]
            case _:
                del changed[place:]
    return bytes(changed)


@pytest.mark.parametrize("name", TARGETS)
def test_mutations_are_read_or_refused(name: str) -> None:
    corpus = kept(name)

    @seed(1)
    @settings(deadline=None, max_examples=500, database=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(corpus), st.sampled_from(corpus), st.randoms(use_true_random=False))
    def run(content: bytes, other: bytes, chance: random.Random) -> None:
        TARGETS[name](mutated(content, other, chance))

    run()
