"""golden.npz: what a bundle's engine made of given inputs at its maker's, and how near to it a machine must come."""

from __future__ import annotations

import io
import json
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, cast

import numpy as np
from numpy.typing import NDArray

from engines.base import Value
from engines.bundle.tables import read_table
from engines.card import Precision, SettingValue
from engines.errors import BundleError, EngineInputError
from engines.findings import Finding, Findings
from engines.prompt import Box, Prompt, Recist
from engines.volume import Mask, Volume

LARGEST_ARRAYS_BYTES: Final = 512 * 2**20
_MOST_ARRAYS: Final = 64
_MEMBER: Final = b"PK\x01\x02"
_MOST_MEMBERS: Final = 1000
"""These four bytes may stand in an array too, but not often."""
_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""What numpy writes. Others may ask for gigabytes to unpack a few bytes."""
_DESCRIBED: Final = "golden.json"
_LARGEST_DESCRIBED_BYTES: Final = 2**20

_HEADER: Final = re.compile(
    rb"\{'descr': '(<f4|<f8|\|u1|\|b1)', 'fortran_order': False, 'shape': \(((?:\d{1,12}, ?)*(?:\d{1,12})?)\), \} *\n"
)
"""What numpy writes before an array (NEP 1, version 1.0). Read as text: numpy's own reader evaluates it."""

_ONE_PLACE_MM: Final = 0.001
_ANOTHER_FORM: Final = "it is missing, or of another kind, unit, size, place or number of findings than the golden one"

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Tolerance:
    """How far an output may be from the golden one, in its unit; labels and findings are compared as numbers.

    mean     |mean of the differences|
    rms      root of the mean of their squares: what a coarser precision adds to the noise
    largest  largest |difference| of a single value
    """

    mean: float
    rms: float
    largest: float


@dataclass(frozen=True, eq=False)
class Golden:
    """Inputs and outputs of one run, by the names of the card's.

    tolerance  by precision, and in it by output: what a runtime that computes in it may differ by
    settings   what the engine ran with; those not named are at their defaults
    """

    inputs: Mapping[str, Value]
    outputs: Mapping[str, Value]
    tolerance: Mapping[Precision, Mapping[str, Tolerance]]
    settings: Mapping[str, SettingValue] = field(default_factory=dict)


@dataclass(frozen=True)
class Difference:
    """How far one output is from the golden one; infinitely where they cannot be compared, and then `why` says why."""

    output: str
    mean: float
    rms: float
    largest: float
    tolerance: Tolerance
    why: str = ""

    @property
    def passed(self) -> bool:
        bounds = self.tolerance
        return abs(self.mean) <= bounds.mean and self.rms <= bounds.rms and self.largest <= bounds.largest

    def __str__(self) -> str:
        if self.why:
            return f"{self.output}: {self.why}"
        bounds = f"at most {self.tolerance.mean:g}, {self.tolerance.rms:g} and {self.tolerance.largest:g}"
        found = f"mean difference {self.mean:.3g}, rms {self.rms:.3g}, largest {self.largest:.3g}"
        return f"{self.output}: {found} ({bounds})"


def compare(golden: Golden, precision: Precision, outputs: Mapping[str, Value]) -> tuple[Difference, ...]:
    """How far `outputs`, computed in `precision`, are from the golden ones. Raises BundleError where the bundle has no
    tolerance for that precision."""
    if precision not in golden.tolerance:
        known = ", ".join(golden.tolerance)
        raise BundleError(f"the golden test has no tolerance for {precision}", f"it has one for: {known or 'nothing'}")
    tolerances = golden.tolerance[precision]
    return tuple(
        _difference(name, expected, outputs.get(name), tolerances[name]) for name, expected in golden.outputs.items()
    )


def _difference(name: str, expected: Value, found: Value | None, tolerance: Tolerance) -> Difference:
    wanted = _numbers(expected)
    got = _numbers(_paired(found, expected)) if found is not None and _is_alike(found, expected) else None
    if got is None or got.shape != wanted.shape:
        return _incomparable(name, tolerance, _ANOTHER_FORM)
    numbers = int(np.isfinite(got).sum())
    if numbers < got.size:
        why = f"{got.size - numbers} of its {got.size} values are no numbers (NaN or infinite)"
        return _incomparable(name, tolerance, why)
    if not wanted.size:
        return Difference(name, 0.0, 0.0, 0.0, tolerance)
    apart = got - wanted
    rms = float(np.sqrt(np.square(apart).mean()))
    return Difference(name, float(apart.mean()), rms, float(np.abs(apart).max()), tolerance)


def _incomparable(name: str, tolerance: Tolerance, why: str) -> Difference:
    return Difference(name, math.inf, math.inf, math.inf, tolerance, why)


def _is_alike(found: Value, expected: Value) -> bool:
    """Whether both are of one kind; where they are images, in one unit and at the same place in the patient."""
    if isinstance(found, Volume) and isinstance(expected, Volume):
        return found.unit == expected.unit and _is_one_place(found.affine, expected.affine)
    if isinstance(found, Mask) and isinstance(expected, Mask):
        return _is_one_place(found.affine, expected.affine)
    return type(found) is type(expected)


def _is_one_place(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    return np.allclose(one, other, rtol=0.0, atol=_ONE_PLACE_MM)


def _paired(found: Value, expected: Value) -> Value:
    """Findings in the order of the expected ones, each beside the nearest of its slice and label; the others as they
    are. In which order a machine finds them hangs on its rounding."""
    if not isinstance(found, Findings) or not isinstance(expected, Findings):
        return found
    left: dict[tuple[int, str], list[Finding]] = {}
    for item in found.items:
        left.setdefault((item.slice_index, item.label), []).append(item)
    pairs = [_nearest(item, left.get((item.slice_index, item.label), [])) for item in expected.items]
    is_whole = len(found.items) == len(expected.items)
    return Findings(tuple(pair for pair in pairs if pair is not None)) if is_whole else found


def _nearest(to: Finding, left: list[Finding]) -> Finding | None:
    """Taken out of `left`; None where nothing is left."""
    if not left:
        return None
    apart = np.abs(np.array([item.box for item in left]) - to.box).sum(axis=1)
    return left.pop(int(np.argmin(apart)))


def _numbers(value: Value) -> NDArray[np.float64]:
    if isinstance(value, Volume):
        return value.voxels.astype(np.float64)
    if isinstance(value, Mask):
        return value.labels.astype(np.float64)
    if isinstance(value, Findings):
        return np.array([(item.slice_index, *item.box, item.score) for item in value.items], dtype=np.float64)
    return np.array([point for mark in value.marks for point in mark.points], dtype=np.float64)


@dataclass(frozen=True)
class _Described:
    """One value without its arrays."""

    kind: Literal["volume", "mask", "findings", "prompt"]
    unit: str = ""
    window: tuple[float, float] | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    boxes: tuple[Box, ...] = ()
    diameters: tuple[Recist, ...] = ()


@dataclass(frozen=True)
class _GoldenFile:
    inputs: Mapping[str, _Described]
    outputs: Mapping[str, _Described]
    tolerance: Mapping[str, Mapping[str, Tolerance]]
    settings: Mapping[str, SettingValue] = field(default_factory=dict)


def write_golden(golden: Golden) -> bytes:
    """`golden` as an npz: plain arrays, and JSON for the rest. The same bytes for the same values."""
    arrays: dict[str, NDArray[Any]] = {}
    described = {
        "inputs": {name: _describe(value) for name, value in golden.inputs.items()},
        "outputs": {name: _describe(value) for name, value in golden.outputs.items()},
        "tolerance": {
            precision: {name: asdict(tolerance) for name, tolerance in by_output.items()}
            for precision, by_output in golden.tolerance.items()
        },
        "settings": dict(golden.settings),
    }
    for place, values in (("inputs", golden.inputs), ("outputs", golden.outputs)):
        for name, value in sorted(values.items()):
            arrays.update({f"{place}/{name}/{part}": array for part, array in _parts(value).items()})
    text = json.dumps(described, sort_keys=True).encode()
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=False, **{_DESCRIBED: np.frombuffer(text, np.uint8)}, **_contiguous(arrays))
    return file.getvalue()


def _contiguous(arrays: Arrays) -> dict[str, NDArray[Any]]:
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def _describe(value: Value) -> dict[str, Any]:
    if isinstance(value, Volume):
        return asdict(_Described("volume", value.unit, value.window))
    if isinstance(value, Mask):
        return asdict(_Described("mask", names={str(label): name for label, name in value.names.items()}))
    if isinstance(value, Findings):
        return asdict(_Described("findings", findings=value.items))
    boxes = tuple(mark for mark in value.marks if isinstance(mark, Box))
    diameters = tuple(mark for mark in value.marks if isinstance(mark, Recist))
    return asdict(_Described("prompt", boxes=boxes, diameters=diameters))


def _parts(value: Value) -> dict[str, NDArray[Any]]:
    if isinstance(value, Volume):
        valid = {} if value.valid is None else {"valid": value.valid}
        return {"voxels": value.voxels, "affine": value.affine, **valid}
    return {"labels": value.labels, "affine": value.affine} if isinstance(value, Mask) else {}


def read_golden(content: bytes) -> Golden:
    """The golden test in the bytes of a `golden.npz`. Raises BundleError on anything but what `write_golden` writes."""
    arrays = read_arrays(content, LARGEST_ARRAYS_BYTES)
    text = arrays.get(_DESCRIBED)
    if text is None or text.dtype != np.uint8 or text.nbytes > _LARGEST_DESCRIBED_BYTES:
        raise BundleError(f"golden.npz has no {_DESCRIBED} that can be read", "write it with engines.bundle.golden")
    try:
        table = json.loads(text.tobytes())
    except (ValueError, RecursionError):
        raise BundleError(f"golden.npz: {_DESCRIBED} is no JSON", "write it with engines.bundle.golden") from None
    file = read_table(_GoldenFile, table, "golden.npz")
    return Golden(
        {name: _value(f"inputs/{name}", described, arrays) for name, described in file.inputs.items()},
        {name: _value(f"outputs/{name}", described, arrays) for name, described in file.outputs.items()},
        cast(Mapping[Precision, Mapping[str, Tolerance]], file.tolerance),
        file.settings,
    )


def _value(place: str, described: _Described, arrays: Arrays) -> Value:
    if described.kind == "findings":
        return Findings(described.findings)
    if described.kind == "prompt":
        return _prompt(described)
    affine = _array(arrays, f"{place}/affine", "<f8", 2)
    if affine.shape != (4, 4):
        raise BundleError(f"golden.npz: {place}/affine is of another shape", "it must be 4 x 4")
    if described.kind == "mask":
        names = {int(label): name for label, name in described.names.items() if label.isdecimal() and len(label) < 4}
        return Mask(_array(arrays, f"{place}/labels", "|u1", 3), affine, names)
    voxels = _array(arrays, f"{place}/voxels", "<f4", 3)
    valid = _array(arrays, f"{place}/valid", "|b1", 3) if f"{place}/valid" in arrays else None
    if valid is not None and valid.shape != voxels.shape:
        raise BundleError(f"golden.npz: {place}/valid has another shape than its voxels", "write both alike")
    return Volume(voxels, affine, described.unit, valid, described.window)


def _prompt(described: _Described) -> Prompt:
    try:
        return Prompt((*described.boxes, *described.diameters))
    except EngineInputError as error:
        raise BundleError(f"golden.npz: {error}", error.hint) from None


def _array(arrays: Arrays, name: str, kind: str, axes: int) -> NDArray[Any]:
    array = arrays.get(name)
    if array is None or array.dtype != np.dtype(kind) or array.ndim != axes:
        raise BundleError(f"golden.npz: {name} is missing, or of another type", f"it must be {kind} with {axes} axes")
    return array


def read_arrays(content: bytes, largest_bytes: int) -> dict[str, NDArray[Any]]:
    """The arrays of an npz by name: float32, float64, uint8 and bool, in C order, `largest_bytes` all together.

    Sizes are judged by what the file declares, before anything is allocated; raises BundleError.
    """
    if content.count(_MEMBER) > _MOST_MEMBERS:  # zipfile makes an object of each before it can be asked how many
        raise BundleError("golden.npz has too many arrays", f"at most {_MOST_ARRAYS} are read")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return dict(_read_members(archive, largest_bytes))
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError, ValueError,
            OSError) as error:  # fmt: skip
        raise BundleError(f"golden.npz cannot be read ({type(error).__name__})", "write it with numpy.savez") from None


def _read_members(archive: zipfile.ZipFile, left_bytes: int) -> Iterator[tuple[str, NDArray[Any]]]:
    members = archive.infolist()
    if len(members) > _MOST_ARRAYS:
        raise BundleError(f"golden.npz has {len(members)} arrays", f"at most {_MOST_ARRAYS} are read")
    for member in members:
        if not member.filename.endswith(".npy") or member.compress_type not in _METHODS:
            raise BundleError("golden.npz has something in it that is no array", "write it with numpy.savez")
        with archive.open(member) as file:
            kind, shape = _read_header(file.read(10), file)
            size_bytes = math.prod(shape) * kind.itemsize
            if size_bytes > left_bytes:
                raise BundleError("golden.npz declares more than can be read", f"{LARGEST_ARRAYS_BYTES} bytes are")
            left_bytes -= size_bytes
            values = file.read(size_bytes)
            if len(values) != size_bytes or file.read(1):
                raise BundleError("golden.npz: an array has another length than it declares", "write it again")
        yield member.filename.removesuffix(".npy"), np.frombuffer(values, kind).reshape(shape)


def _read_header(magic: bytes, file: Any) -> tuple[np.dtype[Any], tuple[int, ...]]:
    if len(magic) != 10 or magic[:8] != b"\x93NUMPY\x01\x00":
        raise BundleError("golden.npz has an array of a form that is not read", "numpy writes version 1.0 for these")
    header = _HEADER.fullmatch(file.read(int.from_bytes(magic[8:], "little")))
    if header is None:
        raise BundleError(
            "golden.npz has an array of a kind that is not read", "float32, float64, uint8 and bool, in C order, are"
        )
    shape = tuple(int(length) for length in header[2].decode().replace(",", " ").split())
    return np.dtype(header[1].decode()), shape
