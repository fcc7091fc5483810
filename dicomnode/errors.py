"""Every error of the node, one tree:

    DicomNodeError            .hint: what a person does next   .transient: may trying again help?
    ├── UsageError            a command was called wrongly (exit code 2)
    ├── ConfigError           the configuration file or a rule cannot be used
    ├── InputError            a DICOM object cannot be read, decoded or used
    │   ├── MismatchError     its UIDs differ from the ones its sender announced
    │   └── UnsupportedError  well-formed, but not something we handle
    ├── StoreError            bytes or rows could not be made durable
    │   ├── DiskFullError     less space is left than the configured reserve
    │   └── IndexAwayError    the index is out of reach for now (transient)
    ├── PeerError             another DICOM application failed us
    │   ├── PeerUnreachableError       no TCP connection, or no TLS on it (transient)
    │   ├── AssociationRejectedError   A-ASSOCIATE-RJ, or no presentation context accepted
    │   ├── AssociationLostError       the association broke off (transient)
    │   └── RequestFailedError         a query or a retrieval was answered with a failure (.status)
    ├── WorkerError           a worker process died, ran out of memory or of time (transient)
    └── NotFoundError         nothing known by the UID, accession number or file given

    EngineError               (engines.errors; same two attributes)
    ├── EngineNotFoundError
    ├── SettingError
    ├── EngineInputError
    ├── BundleError           a bundle is damaged, incomplete or unsigned
    └── RuntimeFailedError    a runtime is missing, or failed at a model (transient)

No message carries a patient's name, ID, birth date, accession number or free text from a data set: UIDs and row ids
only.
"""

from __future__ import annotations

from engines.errors import (
    BundleError,
    EngineError,
    EngineInputError,
    EngineNotFoundError,
    RuntimeFailedError,
    SettingError,
)

__all__ = [
    "AssociationLostError", "AssociationRejectedError", "BundleError", "ConfigError", "DicomNodeError", "DiskFullError",
    "EngineError", "EngineInputError", "EngineNotFoundError", "IndexAwayError", "InputError", "MismatchError",
    "NotFoundError", "PeerError", "PeerUnreachableError", "RequestFailedError", "RuntimeFailedError", "SettingError",
    "StoreError", "UnsupportedError", "UsageError", "WorkerError",
]  # fmt: skip


class DicomNodeError(Exception):
    """Root of the node's errors. `str(error)` says what; `error.hint` what to do next."""

    transient = False

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(DicomNodeError):
    """A command was called wrongly."""


class ConfigError(DicomNodeError):
    """The configuration file or a rule cannot be used."""


class InputError(DicomNodeError):
    """A DICOM object cannot be read, decoded or used."""


class MismatchError(InputError):
    """A data set's UIDs differ from the ones its C-STORE request announced (PS3.4 B.2.3, 0xA900)."""


class UnsupportedError(InputError):
    """Well-formed, but not something we handle."""


class StoreError(DicomNodeError):
    """Bytes or rows could not be made durable."""


class DiskFullError(StoreError):
    """Less disk space is left than the configured reserve (PS3.4 B.2.3, 0xA700)."""

    transient = True


class IndexAwayError(StoreError):
    """The index is out of reach for now: locked, restarted or cut off (0xA700 too: the sender shall try again)."""

    transient = True


class PeerError(DicomNodeError):
    """Another DICOM application failed us."""


class PeerUnreachableError(PeerError):
    """No TCP connection could be made, or none that is secured as it has to be."""

    transient = True


class AssociationRejectedError(PeerError):
    """The peer rejected the association, or accepted none of its presentation contexts."""


class AssociationLostError(PeerError):
    """The association broke off: aborted, closed or timed out."""

    transient = True


class RequestFailedError(PeerError):
    """A query or a retrieval was answered with a failure (PS3.7 annex C), `status`."""

    def __init__(self, message: str, hint: str, status: int, transient: bool = False) -> None:
        super().__init__(message, hint)
        self.status = status
        self.transient = transient


class WorkerError(DicomNodeError):
    """A worker process died, ran out of memory or of time."""

    transient = True


class NotFoundError(DicomNodeError):
    """Nothing is known by the UID, accession number or file given."""
