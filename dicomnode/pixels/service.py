"""What the pixel worker does when asked (see `dicomnode.workers`); `dicomnode enhance` calls the same in its process.

Arguments and results are JSON values; pixels travel as files.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dicomnode.core.headers import value
from dicomnode.core.stacks import STACK_KEYWORDS, slice_of
from dicomnode.core.types import Slice
from dicomnode.core.volumes import DIGEST_KEYWORDS, Stored, assemble, source_digest
from dicomnode.errors import InputError, NotFoundError, UnsupportedError
from dicomnode.pixels.decode import decode
from dicomnode.pixels.encode import derive_stack
from dicomnode.pixels.native import decode_native
from dicomnode.pixels.notes import read_rejection, write_rejection
from dicomnode.pixels.read import quiet_pydicom, read_dataset, read_header
from dicomnode.workers import Operation
from engines.volume import save_volume


def operations() -> Mapping[str, Operation]:
    """The worker's operations by name; called once, as its process starts."""
    quiet_pydicom()
    return {
        "read_headers": read_headers,
        "decode_stack": decode_stack,
        "derive_stack": derive_stack,
        "decode_native": decode_native,
        "read_rejection": read_rejection,
        "write_rejection": write_rejection,
    }


def read_headers(paths: Sequence[str], keywords: Collection[str]) -> dict[str, Any]:
    """Values of `keywords` in each stored file.

    Returns {"headers": [{"header": {keyword: [value...]}} or {"reason": why it cannot be read}...]}, as `paths` go.
    """
    return {"headers": [_header_or_reason(path, keywords) for path in paths]}


def decode_stack(paths: Sequence[str], out: str) -> dict[str, Any]:
    """Decode one stack, its files sorted by position, into a Volume in the existing, empty folder `out`.

    Returns {"digests": [`source_digest` of each slice, in the order of `paths`]}. Raises NotFoundError, or InputError
    where a file cannot be decoded or does not fit the others.
    """
    slices = [_slice_at(Path(path)) for path in paths]
    digests: list[str] = []
    try:
        save_volume(assemble(slices, _decoded(paths, slices, digests)), Path(out))
    except MemoryError:  # trying again would not help: said here, so that it is not taken for a worker's bad luck
        raise UnsupportedError(
            f"a stack of {len(slices)} slices needs more memory than the worker has", "raise limits.worker_memory_mb"
        ) from None
    return {"digests": digests}


def _header_or_reason(path: str, keywords: Collection[str]) -> dict[str, Any]:
    try:
        return {"header": {keyword: list(values) for keyword, values in read_header(Path(path), keywords).items()}}
    except (InputError, NotFoundError) as error:
        return {"reason": str(error)}


def _slice_at(path: Path) -> Slice:
    header = read_header(path, {*STACK_KEYWORDS, *DIGEST_KEYWORDS, "SOPInstanceUID", "SOPClassUID"})
    return slice_of(0, value(header, "SOPInstanceUID"), value(header, "SOPClassUID"), header)


def _decoded(paths: Sequence[str], slices: Sequence[Slice], digests: list[str]) -> Iterator[Stored]:
    """Stored values of each file, one at a time; notes each one's digest."""
    for path, placed in zip(paths, slices, strict=True):
        stored = decode(read_dataset(Path(path), with_pixels=True))
        digests.append(source_digest(stored, placed.header))
        yield stored
