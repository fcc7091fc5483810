"""Presentation contexts: what we accept from others, and what we propose for what is to be sent."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from pydicom import config, uid
from pynetdicom import AllStoragePresentationContexts

from dicomnode.core.notification import AVAILABILITY, PROCEDURE_STEP, STORAGE_COMMITMENT

VERIFICATION: Final = "1.2.840.10008.1.1"
STORAGE_SERVICE: Final = "1.2.840.10008.4.2"
"""The Storage Service Class (PS3.6 annex A)."""
NOTIFICATION_CLASSES: Final = frozenset({STORAGE_COMMITMENT, PROCEDURE_STEP, AVAILABILITY})
"""SOP classes of N-services that peers tell us something by."""
UID_FORM: Final = re.compile(r"[0-9.]{1,64}", re.ASCII)
"""Looser than PS3.5 9.1 (devices write leading zeros), and free of anything that could be a path."""

_UNCOMPRESSED: Final = (
    uid.ExplicitVRLittleEndian,
    uid.ImplicitVRLittleEndian,
    uid.DeflatedExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
)
_LOSSLESS: Final = (
    uid.JPEGLosslessSV1,
    uid.JPEGLossless,
    uid.JPEGLSLossless,
    uid.JPEG2000Lossless,
    uid.JPEG2000MCLossless,
    uid.HTJ2KLossless,
    uid.HTJ2KLosslessRPCL,
    uid.RLELossless,
    "1.2.840.10008.1.2.4.110",  # JPEG XL Lossless
    "1.2.840.10008.1.2.4.111",  # JPEG XL JPEG Recompression
    "1.2.840.10008.1.2.8.1",  # Deflated Image Frame Compression
)
_LOSSY: Final = (
    uid.JPEGBaseline8Bit,
    uid.JPEGExtended12Bit,
    uid.JPEGLSNearLossless,
    uid.JPEG2000,
    uid.JPEG2000MC,
    uid.HTJ2K,
    "1.2.840.10008.1.2.4.112",  # JPEG XL
    uid.MPEG2MPML,
    uid.MPEG2MPMLF,
    uid.MPEG2MPHL,
    uid.MPEG2MPHLF,
    uid.MPEG4HP41,
    uid.MPEG4HP41F,
    uid.MPEG4HP41BD,
    uid.MPEG4HP41BDF,
    uid.MPEG4HP422D,
    uid.MPEG4HP422DF,
    uid.MPEG4HP423D,
    uid.MPEG4HP423DF,
    uid.MPEG4HP42STEREO,
    uid.MPEG4HP42STEREOF,
    uid.HEVCMP51,
    uid.HEVCM10P51,
)
TRANSFER_SYNTAXES: Final[tuple[str, ...]] = tuple(str(syntax) for syntax in (*_UNCOMPRESSED, *_LOSSLESS, *_LOSSY))
"""What we take, best first. A sender offers several in one context when it can convert: uncompressed first never makes
it compress, lossy last never makes it lose anything. JPIP (pixels elsewhere) and real-time video are not stored."""

STORAGE_CLASSES: Final[frozenset[str]] = frozenset(
    str(context.abstract_syntax) for context in AllStoragePresentationContexts
) | {
    # Retired, but archives hold them (PS3.6 annex A)
    "1.2.840.10008.5.1.4.1.1.3",  # Ultrasound Multi-frame Image
    "1.2.840.10008.5.1.4.1.1.5",  # Nuclear Medicine Image
    "1.2.840.10008.5.1.4.1.1.6",  # Ultrasound Image
    "1.2.840.10008.5.1.4.1.1.8",  # Standalone Overlay
    "1.2.840.10008.5.1.4.1.1.9",  # Standalone Curve
    "1.2.840.10008.5.1.4.1.1.10",  # Standalone Modality LUT
    "1.2.840.10008.5.1.4.1.1.11",  # Standalone VOI LUT
    "1.2.840.10008.5.1.4.1.1.12.3",  # X-Ray Angiographic Bi-Plane Image
    "1.2.840.10008.5.1.4.1.1.129",  # Standalone PET Curve
}
"""Every standard storage SOP class (PS3.4 B.5). The Media Storage Directory (DICOMDIR) is none."""

REENCODABLE: Final[frozenset[str]] = frozenset(str(syntax) for syntax in _UNCOMPRESSED)
"""Transfer syntaxes that `dicomnode.net.transcode` turns into each other without loss."""

DECOMPRESSIBLE: Final[frozenset[str]] = frozenset(
    str(syntax)
    for syntax in (
        uid.RLELossless, uid.JPEGLosslessSV1, uid.JPEGLossless, uid.JPEGLSLossless, uid.JPEG2000Lossless,
        uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLSNearLossless,
        uid.JPEG2000, uid.HTJ2K,
    )
)  # fmt: skip
"""Compressed transfer syntaxes whose pixels can be decoded (`dicomnode.core.ports.Transcoder`)."""

_REENCODED_AS: Final = (str(uid.ExplicitVRLittleEndian), str(uid.ImplicitVRLittleEndian))
MAXIMUM_CONTEXTS: Final = 128
"""Of one association: IDs are odd and at most 255 (PS3.8 9.3.2.2)."""


@dataclass(frozen=True, slots=True, order=True)
class ProposedContext:
    """A SOP class and the transfer syntaxes to propose for it in one presentation context.

    as_scp  whether we are to serve it though it is we who call (role selection, PS3.7 D.3.3.4): C-GET sends so
    """

    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]
    as_scp: bool = False


@dataclass(frozen=True, slots=True, order=True)
class Kind:
    """What decides an instance's presentation context."""

    sop_class_uid: str
    transfer_syntax_uid: str


def is_of_standard(uid_value: str) -> bool:
    """Whether PS3.6 annex A registers a UID: as a SOP class of any service, a transfer syntax, or anything else."""
    return uid.UID(uid_value, validation_mode=config.IGNORE).type != ""


def syntaxes_for(transfer_syntax_uid: str, *, decompresses: bool = False) -> tuple[str, ...]:
    """The transfer syntaxes in which an instance stored in the given one can be sent, as stored first.

    decompresses  whether there is somebody who decodes pixels
    """
    decodable = decompresses and transfer_syntax_uid in DECOMPRESSIBLE
    others = _REENCODED_AS if decodable or transfer_syntax_uid in REENCODABLE else ()
    return tuple(dict.fromkeys((transfer_syntax_uid, *others)))


def propose(kinds: Iterable[Kind]) -> tuple[tuple[ProposedContext, ...], ...]:
    """Presentation contexts for what is to be sent, one tuple for each association needed (128 contexts at most).

    One context for each class and syntax: in a context with several syntaxes the acceptor would choose, and might
    choose to have re-encoded what it takes as it is.
    """
    stored = sorted(set(kinds))
    return grouped(
        Kind(kind.sop_class_uid, syntax) for kind in stored for syntax in syntaxes_for(kind.transfer_syntax_uid)
    )


def grouped(kinds: Iterable[Kind]) -> tuple[tuple[ProposedContext, ...], ...]:
    """A presentation context for each kind, one tuple for each association needed; a class is never split."""
    by_class: dict[str, dict[str, None]] = {}
    for kind in kinds:
        by_class.setdefault(kind.sop_class_uid, {})[kind.transfer_syntax_uid] = None
    return tuple(_grouped(by_class))


def _grouped(by_class: dict[str, dict[str, None]]) -> Iterator[tuple[ProposedContext, ...]]:
    group: list[ProposedContext] = []
    for sop_class_uid, syntaxes in by_class.items():
        if len(group) + len(syntaxes) > MAXIMUM_CONTEXTS:
            yield tuple(group)
            group = []
        group += [ProposedContext(sop_class_uid, (syntax,)) for syntax in syntaxes]
    if group:
        yield tuple(group)
