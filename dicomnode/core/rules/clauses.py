"""One entry of a rule's `match`: `SliceThickness = "<= 1.5"`.

    clause   item, or a list of items: any of the plain ones, and none of the `!` ones
    item     [!] test
    test     absent | * | present | = text | text with * and ? | < <= >= > value | low..high | low.. | ..high
             low-high (dates and times, PS3.4 C.2.2.2.5) | address/bits (source_address)

What is asked (`Interval`, `Text`, `Pattern`, ...) is kept as values, not as functions, so that it can be put to a
PACS as a C-FIND too.
"""

from __future__ import annotations

import difflib
import fnmatch
import ipaddress
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

import pydicom.uid
from pydicom.datadict import dictionary_VR, keyword_dict, tag_for_keyword
from pydicom.uid import UID

from dicomnode.core.rules.facts import SENDER_KEYS
from dicomnode.core.rules.scales import HOURS, OF_VR, Interval, Scale
from dicomnode.errors import ConfigError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_BINARY_VRS: Final = frozenset(
    {"OB", "OW", "OB or OW", "OD", "OF", "OL", "OV", "UN", "US or OW", "US or SS or OW", "NONE"}
)
_FIRST_DATA_SET_GROUP: Final = 0x0008  # below it: command set, file meta, DICOMDIR (PS3.7 6.3, PS3.10 7)
_UID: Final = re.compile(r"[0-9.]{1,64}", re.ASCII)
_COMPARISONS: Final = ("<=", ">=", "<", ">")


@dataclass(frozen=True)
class Presence:
    """Whether there is any value at all."""

    wanted: bool


@dataclass(frozen=True)
class Text:
    """Exactly this text, without regard to outer spaces; `exact_case` for UIDs only."""

    text: str
    exact_case: bool = False

    def holds(self, value: str) -> bool:
        return value == self.text if self.exact_case else value.casefold() == self.text.casefold()


@dataclass(frozen=True)
class Pattern:
    """`*` stands for any text, `?` for any one character (PS3.4 C.2.2.2.4); case does not matter."""

    pattern: str

    def holds(self, value: str) -> bool:
        # fnmatch would take [..] as a set; its expressions are atomic, so a hostile value costs linear time
        return fnmatch.fnmatchcase(value.casefold(), self.pattern.casefold().replace("[", "[[]"))


@dataclass(frozen=True)
class Within:
    """An IP address or network; an IPv4 address written as IPv6 (::ffff:10.1.2.3) counts as IPv4."""

    network: Network
    what: str = "an IP address"

    def holds(self, value: str) -> bool | None:
        address = _address(value)
        return None if address is None else address in self.network


Test = Presence | Text | Pattern | Interval | Within


@dataclass(frozen=True)
class Item:
    """One test, or its contrary."""

    test: Test
    negated: bool

    def holds(self, values: tuple[str, ...]) -> bool | None:
        """For any of the values (none: an absent element). None where a value cannot be read and none of the others
        decides it."""
        if isinstance(self.test, Presence):
            return (bool(values) is self.test.wanted) is not self.negated
        held = _any(self.test.holds(value) for value in values)
        return held if held is None else held is not self.negated


@dataclass(frozen=True)
class Clause:
    """What one key must be. `wanted` is the text that a person reads in an explanation."""

    key: str
    wanted: str
    items: tuple[Item, ...]

    def holds(self, values: tuple[str, ...]) -> bool:
        """Whether the values of `key` satisfy the clause; what cannot be read never does, negated or not."""
        given = stripped(values)
        plain = [item for item in self.items if not item.negated]
        return all(item.holds(given) is True for item in self.items if item.negated) and (
            not plain or any(item.holds(given) is True for item in plain)
        )

    def unreadable(self, values: tuple[str, ...]) -> str:
        """ "a number" where a value had to be one and is not, else ""."""
        tests = [item.test for item in self.items if isinstance(item.test, Interval | Within)]
        return next((test.what for test in tests for value in stripped(values) if test.holds(value) is None), "")


def stripped(values: Iterable[str]) -> tuple[str, ...]:
    """The values without padding, and without empty ones (PS3.5 6.2: an empty value is none)."""
    return tuple(text for value in values if (text := value.strip(" \0")))


def nearest_word(word: str, known: Iterable[str]) -> str:
    """ "did you mean 'x'?", or what is known where nothing is near."""
    by_lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), by_lower, n=1)
    if near:
        return f"did you mean {by_lower[near[0]]!r}?"
    return f"known here: {', '.join(sorted(by_lower.values())) or 'none'}" if len(by_lower) < 20 else ""


def parse_clause(key: str, wanted: object, peers: Collection[str] | None = None) -> Clause:
    """The clause that `key = wanted` in a rule's `match` says; `peers` are the configured ones, where known.

    Raises ConfigError for a key that is neither a DICOM keyword nor a sender key or cannot be matched, and for a value
    that no object could ever have.
    """
    check_key(key)
    values = wanted if isinstance(wanted, list | tuple) else [wanted]
    if not values:
        raise ConfigError(f"{key}: an empty list matches nothing", f'leave {key} out, or write "absent" or "*"')
    texts = [_text_of(key, value) for value in values]
    try:
        items = tuple(_item(key, text, peers) for text in texts)
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}", error.hint) from None
    plain = " or ".join(text for text in texts if not text.startswith("!"))
    negated = " and ".join(text for text in texts if text.startswith("!"))
    return Clause(key, ", ".join(part for part in (plain, negated) if part), items)


def check_key(key: str) -> None:
    """Raise ConfigError unless rules can match `key`."""
    if key in SENDER_KEYS:
        return
    tag = tag_for_keyword(key)
    if tag is None:
        near = nearest_word(key, [*SENDER_KEYS, *(known for known in keyword_dict if known)])
        hint = near or f"DICOM keywords are listed in PS3.6; sender keys are {', '.join(SENDER_KEYS)}"
        raise ConfigError(f"{key!r} is no DICOM keyword and no sender key", hint)
    vr = dictionary_VR(tag)
    if vr == "SQ" or vr in _BINARY_VRS:
        kind = "a sequence" if vr == "SQ" else f"binary ({vr})"
        raise ConfigError(f"{key} is {kind} and cannot be matched", "match an attribute that holds text or numbers")
    if tag >> 16 < _FIRST_DATA_SET_GROUP:
        raise ConfigError(f"{key} is not part of the data set", "match an attribute of group 0008 or higher")


def _text_of(key: str, value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ConfigError(f"{key}: {value!r} is neither text nor a number", 'write it in quotes, like "CHEST"')
    text = str(value).strip()
    if not text:
        raise ConfigError(f"{key}: an empty text matches nothing", 'write "absent" for an element without a value')
    return text


def _item(key: str, text: str, peers: Collection[str] | None) -> Item:
    negated = text.startswith("!")
    test = text[1:].strip() if negated else text
    if not test or test.startswith("!"):
        raise ConfigError(f"{text!r} says nothing to test", 'one "!" stands in front of a value: "! CHEST"')
    if test in ("*", "present", "absent"):
        return Item(Presence(test != "absent"), negated)
    return Item(_test(key, test, peers), negated)


def _test(key: str, text: str, peers: Collection[str] | None) -> Test:
    if key == "received_hour":
        return _interval(HOURS, text)
    if key == "source_address":
        return _address_test(text)
    vr = "" if key in SENDER_KEYS else dictionary_VR(key)
    if vr in OF_VR:
        scale = OF_VR[vr]
        return _text(text) if scale.dash and _has_wildcard(text) else _interval(scale, text)
    if vr == "UI":
        return _uid(text)
    test = _text(text)
    if (
        key == "peer"
        and peers is not None
        and isinstance(test, Text)
        and test.text.lower() not in {p.lower() for p in peers}
    ):
        raise ConfigError(f"there is no peer {test.text!r}", nearest_word(test.text, peers))
    return test


def _text(text: str) -> Text | Pattern:
    if text.startswith("=") and text[1:].strip():
        return Text(text[1:].strip())
    if text.startswith(_COMPARISONS):
        raise ConfigError(
            f"{text!r} compares, and this is text, which has no order", f'write "= {text}" if that is the text itself'
        )
    return Pattern(text) if _has_wildcard(text) else Text(text)


def _uid(text: str) -> Text | Pattern:
    """A UID, a pattern of one, or the standard's keyword for one (CTImageStorage)."""
    test = text.removeprefix("=").strip()
    known = {name: uid for name, uid in vars(pydicom.uid).items() if isinstance(uid, UID)}
    if test in known:
        return Text(str(known[test]), exact_case=True)
    if _has_wildcard(test) and _UID.fullmatch(test.replace("*", "0").replace("?", "0")):
        return Pattern(test)
    if not _UID.fullmatch(test):
        near = nearest_word(test, known)
        raise ConfigError(f"{text!r} is no UID and no name of one", near or "UIDs are digits and dots, at most 64")
    return Text(test, exact_case=True)


def _address_test(text: str) -> Within | Pattern:
    if _has_wildcard(text):
        return Pattern(text)
    try:
        return Within(ipaddress.ip_network(text.removeprefix("=").strip(), strict=False))
    except ValueError:
        raise ConfigError(
            f"{text!r} is no IP address and no network", 'write "10.1.2.3", "10.1.0.0/16" or "10.1.*"'
        ) from None


def _interval(scale: Scale, text: str) -> Interval:
    operator = next((op for op in _COMPARISONS if text.startswith(op)), "=" if text.startswith("=") else "")
    body = text.removeprefix(operator).strip()
    low, separator, high = body.partition("..")
    if not separator and scale.dash:
        low, separator, high = body.partition("-")
    if not separator or operator:
        bound = _bound(scale, body)
        opened = operator in ("<", ">")
        return Interval(
            scale,
            None if operator in ("<", "<=") else bound,
            None if operator in (">", ">=") else bound,
            low_open=opened,
            high_open=opened,
        )
    interval = Interval(scale, _end(scale, low), _end(scale, high))
    if interval.low is None and interval.high is None:
        raise ConfigError(f"{text!r} is a range without ends", 'write "*" for any value')
    if interval.reversed and not scale.wraps:
        raise ConfigError(f"{text!r} can never hold: its first end lies above its second", "exchange the two ends")
    return interval


def _end(scale: Scale, text: str) -> float | str | None:
    return _bound(scale, text.strip()) if text.strip() else None


def _bound(scale: Scale, text: str) -> float | str:
    reading = scale.read(text)
    if reading is None:
        raise ConfigError(f"{text!r} is not {scale.what}, so it can never hold", f"write {scale.form}")
    return reading


def _has_wildcard(text: str) -> bool:
    return not text.startswith("=") and ("*" in text or "?" in text)


def _any(results: Iterable[bool | None]) -> bool | None:
    """Three-valued or: True where one is, else None where one is undecided."""
    undecided = False
    for result in results:
        if result:
            return True
        undecided = undecided or result is None
    return None if undecided else False


def _address(text: str) -> Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
