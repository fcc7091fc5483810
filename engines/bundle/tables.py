"""Frozen dataclasses from tables that somebody else wrote, and back to TOML.

What a field takes is its annotation: text, numbers, yes or no, a choice of words, tuples, tables by name, and
dataclasses in them. Nothing is guessed: a key that is not there, or a value of another type, is refused with its place.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from engines.errors import BundleError

T = TypeVar("T")

_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_NONE: Final = "none"
"""How "not restricted" is written where leaving the key out would mean the default."""

_LONGEST_TEXT: Final = 65536


def read_table(kind: type[T], table: object, where: str, without: Sequence[str] = ()) -> T:
    """A `kind` from a table as `tomllib` or `json` gives it.

    where    how messages name the table
    without  fields that a file has no say in
    Raises BundleError on an unknown key (with the nearest), a missing one, and a value of another type.
    """
    if not isinstance(table, dict):
        raise BundleError(f"{where} is {_said(table)}", "it must be a table")
    known = {field.name: field for field in _fields(kind) if field.name not in without}
    for key in table:
        if key not in known:
            raise BundleError(f"{where} has no key {_said(key)}", nearest(str(key), known))
    hints = get_type_hints(kind)
    given = {key: _read(hints[key], value, f"{where}.{key}") for key, value in table.items()}
    required = [name for name, field in known.items() if _is_required(field)]
    missing = [name for name in required if name not in given]
    if missing:
        hint = f"required there: {', '.join(_with_own(name, hints[name]) for name in required)}; see docs/engines.md"
        raise BundleError(f"{where} lacks {', '.join(map(repr, missing))}", hint)
    return kind(**given)


def _is_required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _with_own(name: str, wanted: Any) -> str:
    """A required key, and where it is a table those that are required in it."""
    is_table = isinstance(wanted, type) and is_dataclass(wanted)
    own = [field.name for field in _fields(wanted) if _is_required(field)] if is_table else []
    return f"{name} ({', '.join(own)})" if own else name


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint: the known name that is most like `name`, or all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(name[:100], names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(names) or 'none'}"


def write_toml(table: Mapping[str, Any], name: str = "") -> str:
    """TOML of a table of plain values, dataclasses and tuples of them, each field in the order it is declared in."""
    return "\n".join(_lines(table, (name,) if name else ())) + "\n"


def as_table(value: object, without: Sequence[str] = ()) -> dict[str, Any]:
    """A dataclass as the table that `read_table` makes it from again; None is left out where it is the default."""
    return {
        field.name: _NONE if (item := getattr(value, field.name)) is None else item
        for field in _fields(type(value))
        if field.name not in without and not (getattr(value, field.name) is None and field.default is None)
    }


def _fields(kind: type[Any]) -> tuple[Field[Any], ...]:
    return fields(kind)


def _said(value: object) -> str:
    """A value from outside, short enough for a message."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _read(wanted: Any, value: object, where: str) -> Any:
    """`value` as the annotation `wanted` says."""
    origin, arguments = get_origin(wanted), get_args(wanted)
    if is_dataclass(wanted) and isinstance(wanted, type):
        return read_table(wanted, value, where)
    if origin is Literal:
        return _read_word(arguments, value, where)
    if origin in (Union, types.UnionType):
        return _read_union(arguments, value, where)
    if origin is tuple:
        return _read_tuple(arguments, value, where)
    if origin is Mapping:
        if not isinstance(value, dict):
            raise _wrong_type("a table", value, where)
        return {str(key): _read(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    return _read_plain(wanted, value, where)


def _read_plain(wanted: type[Any], value: object, where: str) -> object:
    if wanted is float and type(value) is int and abs(value) < 2**53:
        return float(value)
    if type(value) is not wanted:
        raise _wrong_type(wanted.__name__, value, where)
    if isinstance(value, float) and not math.isfinite(value):
        raise _wrong_type("a finite number", value, where)
    if isinstance(value, int) and abs(value) >= 2**53:
        raise _wrong_type("a smaller number", value, where)
    if isinstance(value, str) and len(value) > _LONGEST_TEXT:
        raise BundleError(f"{where} is longer than {_LONGEST_TEXT} characters", "put long text into CARD.md")
    return value


def _read_word(words: Sequence[object], value: object, where: str) -> object:
    if not isinstance(value, str) or value not in words:
        raise BundleError(f"{where} is {_said(value)}", nearest(str(value), [str(word) for word in words]))
    return value


def _read_union(kinds: Sequence[Any], value: object, where: str) -> object:
    if types.NoneType in kinds:
        wanted = next(kind for kind in kinds if kind is not types.NoneType)
        return None if value in (None, _NONE) and wanted is not str else _read(wanted, value, where)
    if type(value) not in kinds:
        raise _wrong_type(" or ".join(kind.__name__ for kind in kinds), value, where)
    return _read_plain(type(value), value, where)


def _read_tuple(kinds: Sequence[Any], value: object, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise _wrong_type("a list", value, where)
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = [kinds[0]] * len(value)
    if len(value) != len(kinds):
        raise BundleError(f"{where} has {len(value)} values", f"give {len(kinds)}")
    return tuple(
        _read(kind, item, f"{where}[{index}]") for index, (kind, item) in enumerate(zip(kinds, value, strict=True))
    )


def _wrong_type(wanted: str, value: object, where: str) -> BundleError:
    return BundleError(f"{where} is {_said(value)}", f"it must be {wanted}")


def _lines(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    """Plain values first: what follows a table's heading belongs to it."""
    tables = {key: value for key, value in table.items() if _is_table(value) or _is_tables(value)}
    yield from (f"{_key(key)} = {_plain(value)}" for key, value in table.items() if key not in tables)
    for key, value in tables.items():
        heading = ".".join(map(_key, (*path, key)))
        for item in (value,) if _is_table(value) else value:
            lines = list(_lines(_table(item), (*path, key)))
            is_said = not _is_table(value) or not lines or lines[0] != ""  # not where it holds tables alone
            yield from (("", f"[{heading}]" if _is_table(value) else f"[[{heading}]]") if is_said else ())
            yield from lines


def _is_table(value: object) -> bool:
    return isinstance(value, Mapping) or (is_dataclass(value) and not isinstance(value, type))


def _is_tables(value: object) -> bool:
    return isinstance(value, tuple) and bool(value) and all(map(_is_table, value))


def _table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else as_table(value)


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else _plain(key)


def _plain(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_plain, value))}]"
    return repr(value) if isinstance(value, float) else quoted(value)


def quoted(value: object) -> str:
    """A text, a whole number, or yes and no, as TOML."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
