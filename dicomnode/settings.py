"""The sections of the configuration file, one frozen model each; `dicomnode.config` puts them together and reads them.

The `description` of a field is what a wrong value is answered with, and what docs/configuration.md says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from dicomnode.core import registry
from dicomnode.core.hours import parse_hours
from dicomnode.core.identity import is_valid_uid
from dicomnode.core.proof import ProofKind
from dicomnode.core.types import LatePolicy, OnDeadline, RejectsPolicy, SameUidPolicy

_SIZE_UNITS: Final = {
    "": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
}


def ae_title(text: str) -> str:
    """An AE title as PS3.5 6.2 allows it: 1-16 printable ASCII characters, no backslash; outer spaces mean nothing."""
    stripped = text.strip(" ")
    if not 1 <= len(stripped) <= 16:
        raise ValueError(f"{text!r} has {len(stripped)} characters, an AE title has 1 to 16")
    if "\\" in stripped or not all(" " <= character <= "~" for character in stripped):
        raise ValueError(f"{text!r} holds a character that no AE title may have")
    return stripped


def section_name(text: str) -> str:
    """The NAME in `[peer.NAME]`: it appears in logs, pages and commands."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", text):
        raise ValueError(f"{text!r} is no name: letters, digits, '-', '_' and '.', at most 64, are")
    return text


def _bytes(value: object) -> object:
    """A number of bytes, or text like "8 GiB" (pydantic checks whatever is not text)."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", value.strip())
    if match is None or match[2].upper() not in _SIZE_UNITS:
        raise ValueError(f"{value!r} is no size: write bytes, or a number with KB, MB, GB, KiB, MiB or GiB")
    return int(float(match[1]) * _SIZE_UNITS[match[2].upper()])


def _reserve(value: object) -> object:
    """A size, or a share of the disk like "10%": kept as a number from 0 to 1."""
    if isinstance(value, str) and value.strip().endswith("%"):
        try:
            percent = float(value.strip().removesuffix("%"))
        except ValueError:
            raise ValueError(f"{value!r} is no percentage") from None
        if not 0 <= percent < 100:
            raise ValueError(f"{value!r} is not from 0% to below 100%")
        return percent / 100
    return _bytes(value)


def share_of(disk_bytes: int, setting: float) -> int:
    """A size, or a share of a disk where it is below 1, in bytes."""
    return int(setting * disk_bytes) if setting < 1 else int(setting)


def _receivers(value: object) -> object:
    """ "auto", or a number; in the environment that is text."""
    number = int(value) if isinstance(value, str) and re.fullmatch("[0-9]{1,4}", value) else value
    if number != "auto" and not (type(number) is int and 1 <= number <= 64):
        raise ValueError(f'{value!r} is neither "auto" nor a number from 1 to 64')
    return number


def _uid(text: str) -> str:
    if not is_valid_uid(text):
        raise ValueError(f"{text!r} is no UID: digits and dots, at most 64")
    return text


def _postgresql(secret: SecretStr) -> SecretStr:
    """The URL of a PostgreSQL database. Errors do not repeat it: there may be a password in it."""
    parts = urlsplit(secret.get_secret_value())
    if parts.scheme != "postgresql" or not parts.path.strip("/"):
        raise ValueError("this is no URL of a PostgreSQL database: write postgresql://USER@HOST/NAME")
    return secret


def _bucket(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme != "s3" or not parts.netloc or parts.query or "@" in parts.netloc:
        raise ValueError(f"{text!r} is no bucket: write s3://BUCKET or s3://BUCKET/PREFIX")
    return text.rstrip("/")


def _endpoint(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise ValueError("this is no address of an S3 server: write https://HOST:PORT")
    return text.rstrip("/")


def _one_or_more(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _certificate(text: str) -> str:
    """A fingerprint in the spelling of `dicomnode.net.certificates`, or a name in a certificate as it is."""
    kind, separator, digits = text.partition(":")
    if separator and kind.strip().lower() == "sha256":
        fingerprint = digits.replace(":", "").strip().lower()
        if not re.fullmatch("[0-9a-f]{64}", fingerprint):
            raise ValueError(f"{text!r} is no fingerprint: write sha256: and 64 hexadecimal digits")
        return f"sha256:{fingerprint}"
    if not 1 <= len(text.strip()) <= 255:
        raise ValueError("a name has 1 to 255 characters")
    return text.strip()


def _certificates(texts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(_certificate, texts))


def _storage_classes(texts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(uid for text in texts for uid in registry.storage_classes(text)))


def _transfer_syntaxes(texts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(uid for text in texts for uid in registry.transfer_syntaxes(text)))


def _hours(texts: tuple[str, ...]) -> tuple[str, ...]:
    for text in texts:
        parse_hours(text)
    return texts


def _device(text: str) -> str:
    if not re.fullmatch(r"cpu|cuda:[0-9]{1,3}", text):
        raise ValueError(f'{text!r} is no device: write "cpu", "cuda:0", "cuda:1", ...')
    return text


AeTitle = Annotated[str, AfterValidator(ae_title)]
EngineDevice = Annotated[str, AfterValidator(_device)]
Name = Annotated[str, AfterValidator(section_name)]
NeedName = Annotated[str, Field(min_length=1, max_length=64)]
Uid = Annotated[str, AfterValidator(_uid)]
Certificates = Annotated[tuple[str, ...], BeforeValidator(_one_or_more), AfterValidator(_certificates)]
HoursList = Annotated[tuple[str, ...], BeforeValidator(_one_or_more), AfterValidator(_hours)]
SopClasses = Annotated[tuple[str, ...], AfterValidator(_storage_classes)]
TransferSyntaxes = Annotated[tuple[str, ...], AfterValidator(_transfer_syntaxes)]
PortNumber = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(ge=0, le=7 * 86400)]
IdleSeconds = Annotated[float, Field(ge=1, le=7 * 86400)]
Bytes = Annotated[int, BeforeValidator(_bytes), Field(gt=0)]
Reserve = Annotated[float, BeforeValidator(_reserve), Field(ge=0, allow_inf_nan=False)]
Days = Annotated[float, Field(gt=0, le=36500)]
Receivers = Annotated[Literal["auto"] | int, BeforeValidator(_receivers)]


class Section(BaseModel):
    """One table of the file: unknown keys are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class NodeSettings(Section):
    """`[node]`: who we are and where we keep what we receive."""

    ae_title: AeTitle = Field(
        default="DICOMNODE", description="our AE title, 1 to 16 characters; what we call ourselves when we send"
    )
    ae_titles: tuple[AeTitle, ...] = Field(default=(), description="further AE titles that we answer to")
    host: str = Field(default="0.0.0.0", description="address to listen on; 0.0.0.0 is all IPv4 addresses")  # noqa: S104
    port: PortNumber = Field(
        default=11112, description="TCP port to listen on, a number from 1 to 65535, without quotes"
    )
    receivers: Receivers = Field(
        default="auto", description='processes that receive, all on the one port; "auto": one for two cores, at most 4'
    )
    data: Path = Field(
        default=Path("data"), description="folder of everything stored; relative to the configuration file"
    )
    name: Name | None = Field(
        default=None, description="the name of this machine among those that share a database; needed with `database`"
    )
    database: Annotated[SecretStr, AfterValidator(_postgresql)] | None = Field(
        default=None,
        description='where the index is: "postgresql://USER@HOST/NAME", or none for a file in `data`',
    )
    files: Path | None = Field(
        default=None,
        description="folder of the stored files, where it is not `data`: machines that share a database share it too",
    )
    durability: Literal["power", "process", "none"] = Field(
        default="power",
        description="what a C-STORE success survives: a power cut, the death of the process, or nothing",
    )
    private_sop_classes: tuple[Uid, ...] = Field(
        default=(), description="UIDs of SOP classes to take in besides the standard's storage classes"
    )
    accept_unknown_sop_classes: bool = Field(
        default=False,
        description="take in every SOP class that the standard does not know, as one of storage: private classes, and "
        "classes younger than this node; transfer syntaxes that we do not know are never accepted",
    )
    accept_unknown: bool = Field(
        default=False,
        description="take associations from callers that no `[peer.NAME]` describes (for a closed network only)",
    )
    answer_strangers: bool = Field(
        default=True,
        description="tell a caller that no `[peer.NAME]` describes that it is rejected; false: end its connection "
        "without a word, so that who looks for DICOM nodes finds none here",
    )
    commissioning: bool = Field(
        default=False,
        description="try everything out: rules and engines run and what they derive is stored, but nothing derived "
        "leaves until a person releases it; originals are forwarded as ever",
    )


class BucketSettings(Section):
    """`[bucket]`: stored files in an S3 bucket, for machines that share a database and no file system."""

    url: Annotated[str, AfterValidator(_bucket)] | None = Field(
        default=None, description='where stored files are kept: "s3://BUCKET/PREFIX", or none for a folder'
    )
    endpoint: Annotated[str, AfterValidator(_endpoint)] | None = Field(
        default=None, description='address of the S3 server, as "https://minio.hospital.local:9000"; none: Amazon\'s'
    )
    region: str = Field(default="us-east-1", min_length=1, description="region of the bucket")
    access_key: str | None = Field(
        default=None, description="who we are there; none: AWS_ACCESS_KEY_ID, or the role of the machine"
    )
    secret_key: SecretStr | None = Field(
        default=None, description="its secret, best from a secret file; none: AWS_SECRET_ACCESS_KEY"
    )
    cache: Bytes = Field(
        default=50 * 2**30,
        description="how much of it is kept in the folder of stored files as well: what was used last",
    )


class ClusterSettings(Section):
    """`[cluster]`: several machines that share a database."""

    dead_after_s: Annotated[float, Field(ge=2, le=3600)] = Field(
        default=30.0,
        description="a process that gave no sign of life for so long is taken for dead; others go on with its work",
    )


class LimitSettings(Section):
    """`[limits]`: what one sender or one data set may cost us."""

    associations: int = Field(default=200, ge=1, le=4096, description="open associations, all together")
    per_address: int = Field(default=20, ge=1, description="open associations from one address")
    idle_s: IdleSeconds = Field(default=60.0, description="an association that says nothing for so long is aborted")
    max_dataset_bytes: Bytes = Field(default=8 * 2**30, description='largest data set taken in; bytes or "8 GiB"')
    disk_reserve: Reserve = Field(
        default=0.10, description='free space below which C-STORE answers 0xA700: "10%" of the disk, or "50 GB"'
    )
    disk_warning: Reserve = Field(
        default=0.20, description='free space below which the node warns: "20%" of the disk, or "100 GB"'
    )
    workers: Receivers = Field(
        default="auto",
        description='how many series are enhanced at once on this machine, and how many derived: "auto" is one a core',
    )
    worker_memory_mb: int = Field(
        default=4096, ge=256, description="address space of a decoding or engine process, in MiB"
    )

    def disk_reserve_bytes(self, disk_bytes: int) -> int:
        """The reserve on a disk of `disk_bytes`."""
        return share_of(disk_bytes, self.disk_reserve)

    def disk_warning_bytes(self, disk_bytes: int) -> int:
        """Where the warning begins on a disk of `disk_bytes`; never below the reserve."""
        return max(share_of(disk_bytes, self.disk_warning), self.disk_reserve_bytes(disk_bytes))


class RetentionSettings(Section):
    """`[retention]`: what is deleted, and when. Without a number everything is kept."""

    originals_days: Days | None = Field(
        default=None, description="days after which originals are deleted that every destination has confirmed"
    )
    derived_days: Days | None = Field(
        default=None, description="days after which derived objects are deleted that every destination has confirmed"
    )
    min_free: Reserve | None = Field(
        default=None,
        description="free space below which what is confirmed is deleted before its days are over, the oldest first: "
        '"15%" of the disk, or "200 GB"',
    )
    delete_unconfirmed_after_days: Days | None = Field(
        default=None,
        description="days after which a series is deleted though its arrival was not confirmed, or failed; none: never",
    )
    delete_unrouted_after_days: Days | None = Field(
        default=None, description="days after which a series is deleted that no rule sends anywhere; none: never"
    )
    delete_quarantined_after_days: Days | None = Field(
        default=None, description="days after which a series in quarantine is deleted all the same; none: never"
    )
    withheld_results_days: Days = Field(
        default=30.0,
        description="days for which a result is kept that a gate withheld; one released later is computed again",
    )


class TlsSettings(Section):
    """`[tls]`: DICOM over TLS (PS3.15 B.12 and B.13): a port of its own, and calls to peers that have `tls = true`.

    Paths are relative to the configuration file; all files are PEM.
    """

    certificate: Path | None = Field(
        default=None,
        description="file with our certificate, and the intermediate ones after it; none: we have no TLS port",
    )
    key: Path | None = Field(
        default=None, description="file with its private key, without a passphrase; none: it is in the same file"
    )
    ca: Path | None = Field(
        default=None,
        description="file with the certificates of the CAs that we believe, needed for the TLS port; none: those of "
        "the operating system, for calls",
    )
    port: PortNumber = Field(default=2762, description="TCP port for TLS, a number from 1 to 65535, without quotes")
    only: bool = Field(default=False, description="listen on this port only: nothing comes in unencrypted")
    client_certificates: Literal["required", "optional"] = Field(
        default="required",
        description="whether callers must show a certificate; those without one are known by their address",
    )
    profile: Literal["bcp195", "bcp195-modified"] = Field(
        default="bcp195", description="security profile: PS3.15 B.12, or B.13 with its list of cipher suites"
    )


class PeerSettings(Section):
    """`[peer.NAME]`: another DICOM application: a scanner, a PACS, a workstation."""

    ae_title: AeTitle = Field(description="its AE title, 1 to 16 characters")
    host: str | None = Field(default=None, min_length=1, max_length=255, description="its host name or address")
    port: PortNumber | None = Field(
        default=None,
        description="its TCP port, a number from 1 to 65535, without quotes; not needed for a peer that only calls us",
    )
    tls: bool = Field(
        default=False, description="whether we call it by TLS; if it calls us, it must do so by TLS then; see `[tls]`"
    )
    certificate: Certificates = Field(
        default=(),
        description='which certificate is its own: "sha256:" and the fingerprint, or a name in it (Common Name, DNS '
        "name or address); a list is any of them, none is `host`",
    )
    associations: int | None = Field(
        default=None, ge=1, description="open associations of this peer, instead of `limits.per_address`"
    )
    quiet_s: Seconds | None = Field(default=None, description="`completeness.quiet_s` for series from this peer")
    released_quiet_s: Seconds | None = Field(default=None, description="`completeness.released_quiet_s` for this peer")
    deadline_s: Seconds | None = Field(default=None, description="`completeness.deadline_s` for this peer")
    quiet_min_s: Seconds | None = Field(default=None, description="`completeness.quiet_min_s` for this peer")
    quiet_max_s: Seconds | None = Field(default=None, description="`completeness.quiet_max_s` for this peer")
    longest_s: Annotated[float, Field(gt=0, le=7 * 86400)] | None = Field(
        default=None, description="`completeness.longest_s` for series from this peer"
    )
    on_deadline: OnDeadline | None = Field(
        default=None, description="`completeness.on_deadline` for series from this peer"
    )
    late: LatePolicy | None = Field(default=None, description="`completeness.late` for series from this peer")
    same_uid: SameUidPolicy = Field(
        default=SameUidPolicy.NEWEST,
        description='which version counts where it sends a known SOP Instance UID with other bytes: "newest", "first", '
        'or "same-sender" (the newest, if who sent the first sends it); all are kept',
    )
    rejects: RejectsPolicy = Field(
        default=RejectsPolicy.OWN,
        description='what its rejection notes may reject: "own" (what it sent, and what was delivered to it), "any" '
        '(for a workstation of quality control), or "none"',
    )
    retrieve: Literal["auto", "get", "move"] = Field(
        default="auto",
        description='how `dicomnode fetch` asks it: "get" (C-GET), "move" (C-MOVE, for which it has to know our AE '
        'title, host and port), or "auto": by C-GET, and by C-MOVE what that does not bring',
    )


class RetrieveSettings(Section):
    """`[retrieve]`: how patiently we fetch from peers."""

    response_s: IdleSeconds = Field(
        default=600.0, description="how long a peer may say nothing while it fetches: some say nothing until the end"
    )
    initial_s: Seconds = Field(
        default=30.0, gt=0, description="wait after a peer failed; doubled after each further failure"
    )
    maximum_s: Seconds = Field(default=1800.0, gt=0, description="longest wait between two attempts")
    patience_h: float = Field(
        default=24.0, gt=0, le=24 * 365, description="after so many hours what did not come is given up"
    )
    at_once: int = Field(
        default=4, ge=1, le=32, description="from how many peers is fetched at once; of each there is one at a time"
    )


class RetrySettings(Section):
    """`[destination.NAME.retry]`: how long we try a destination that is down."""

    initial_s: Seconds = Field(
        default=30.0, gt=0, description="wait after the first failure; doubled after each further one"
    )
    maximum_s: Seconds = Field(default=1800.0, gt=0, description="longest wait between two attempts")
    probe_s: Seconds = Field(
        default=60.0, gt=0, description="longest wait between two C-ECHOs to a destination that is down"
    )
    patience_h: float = Field(
        default=72.0,
        gt=0,
        le=24 * 365,
        description="after so many hours a delivery counts as failed; while it is closed or paused none go by",
    )


class ProvingSettings(Section):
    """`[destination.NAME.proving]`: when and how long a destination is asked whether it holds what it was sent."""

    after_s: Seconds = Field(default=5.0, description="pause after the last instance of a series before it is asked")
    report_s: Seconds = Field(
        default=5.0,
        description="how long the result of a Storage Commitment is waited for on the association that asked; later "
        "ones come on an association that the destination opens to us",
    )
    answer_s: Seconds = Field(
        default=600.0, gt=0, description="how long such a result may take at all before it is asked for again"
    )
    again_s: Seconds = Field(default=60.0, gt=0, description="pause before it is asked again; doubled each time")
    patience_h: float = Field(
        default=24.0, gt=0, le=24 * 365, description="after so many hours without proof it is not asked any more"
    )


class DestinationSettings(Section):
    """`[destination.NAME]`: where rules may send to."""

    kind: Literal["dicom"] = Field(default="dicom", description="how it is reached: C-STORE")
    peer: str = Field(description="the `[peer.NAME]` to send to; it needs host and port")
    calling_ae: str = Field(
        default="node",
        description='the AE title we call with: "node" (ours), "sender" (the original sender\'s), or any other',
    )
    forward: Literal["as-received", "when-complete"] = Field(
        default="as-received", description="send originals at once, or when their series is complete"
    )
    withdraw: bool = Field(
        default=False,
        description="send it rejection notes (IHE IOCM) on derived objects that were replaced or whose sources were "
        "rejected: it may hide them then",
    )
    check_patient: bool | Literal["if-possible"] = Field(
        default=False,
        description="before derived objects leave, ask it by C-FIND whether patient and study are still the same; "
        '"if-possible": what it cannot be asked leaves unchecked',
    )
    commit: bool = Field(
        default=False, description='ask for Storage Commitment, and be content with no less: `proof = "commitment"`'
    )
    proof: ProofKind = Field(
        default=ProofKind.AUTO,
        description='how it is to prove that it holds what it was sent: "commitment" (Storage Commitment, or C-FIND '
        'where that is never answered), "find" (C-FIND), "receipts" (its answers to C-STORE), or "auto": the best of '
        "these that it offers",
    )
    ask_peer: str | None = Field(
        default=None,
        description="the `[peer.NAME]` to ask for proof and by C-FIND, where an archive has another AE title or port "
        "for that; none: `peer`",
    )
    proving: ProvingSettings = Field(default=ProvingSettings(), description="when and how long it is asked for proof")
    associations: int = Field(
        default=4, ge=1, le=32, description="how many associations with it may be open at once; few instances need one"
    )
    sop_classes: SopClasses = Field(
        default=(),
        description='what it may be sent, nothing else: UIDs, or keywords like "CTImageStorage" or "*ImageStorage"; '
        "empty is everything",
    )
    transfer_syntaxes: TransferSyntaxes = Field(
        default=(),
        description='in which transfer syntaxes: UIDs, or keywords like "ExplicitVRLittleEndian" or "JPEG*"; '
        "empty is every one",
    )
    decompress: bool = Field(
        default=True, description="decompress objects that it does not take as they are stored; false: they are refused"
    )
    max_pdu: Annotated[int, BeforeValidator(_bytes), Field(ge=4096, le=131072)] = Field(
        default=131072, description="largest P-DATA-TF sent to it, even where it would take larger ones"
    )
    connect_s: Seconds = Field(default=10.0, gt=0, description="how long it may take to be connected to")
    associate_s: Seconds = Field(
        default=30.0, gt=0, description="how long it may take to answer an association request"
    )
    response_s: Seconds = Field(
        default=120.0, gt=0, description="how long it may take to answer an instance, or to take more of one"
    )
    hours: HoursList = Field(
        default=(),
        description='when it may be sent to, in local time: "18:00-06:00", "mon-fri 18:00-06:00", or a list of such; '
        "empty is always",
    )
    urgent_anytime: bool = Field(
        default=True, description='send what rules with `priority = "urgent"` send outside of `hours` too'
    )
    retry: RetrySettings = Field(default=RetrySettings(), description="how often and how long to try again")


class CompletenessSettings(Section):
    """`[completeness]`: when a series counts as complete; a peer may have its own values, a rule may tighten them."""

    quiet_s: Seconds = Field(default=60.0, description="silence that is enough though its association is still open")
    released_quiet_s: Seconds = Field(
        default=20.0, description="silence that is enough once its associations were released"
    )
    deadline_s: Seconds = Field(
        default=600.0,
        description="after so long without an instance a series with something missing is no longer waited for",
    )
    quiet_min_s: Seconds = Field(default=1.0, description="no silence that was learned of a sender is shorter")
    quiet_max_s: Seconds = Field(
        default=120.0, description="no silence that was learned of a sender is longer; 0: nothing is learned"
    )
    longest_s: Annotated[float, Field(gt=0, le=7 * 86400)] = Field(
        default=4 * 3600.0, description="so long after its first instance a series is no longer waited for at all"
    )
    on_deadline: OnDeadline = Field(
        default=OnDeadline.FLAG,
        description='what becomes of a series that is incomplete then: "proceed" (it goes on), "flag" (what is derived '
        'of it says so), or "hold" (it waits for a person: dicomnode close)',
    )
    late: LatePolicy = Field(
        default=LatePolicy.SUPERSEDE,
        description='what instances do that come after their series was closed: "supersede" (what was derived is made '
        'anew), "separate" (they are a group of their own), or "ignore" (no engine sees them)',
    )


class NeedSettings(Section):
    """`[need.NAME]`: one of several series of a study that rules name in `needs`."""

    match: Mapping[str, Any] = Field(description="which series it is: the same clauses as a rule's `match`")


class DerivedSettings(Section):
    """`[derived]`: what derived series say of themselves."""

    description_prefix: str = Field(
        default="Enhanced ", max_length=32, description="put before the source's Series Description"
    )
    series_number_offset: int = Field(
        default=700,
        ge=1,
        le=9999,
        description="a derived series is numbered source * 1000 + this + the place of its output in the chain "
        "(leading digits dropped if too long)",
    )
    content_qualification: Literal["PRODUCT", "RESEARCH", "SERVICE"] = Field(
        default="RESEARCH", description="Content Qualification (0018,9004)"
    )
    manufacturer: str = Field(
        default="dicomnode", min_length=1, max_length=64, description="Manufacturer of derived objects"
    )
    institution: str = Field(
        default="", max_length=64, description="Institution Name of our Contributing Equipment item"
    )


class EngineSettings(Section):
    """[engines]: engine bundles that are installed below the data folder."""

    trusted_keys: tuple[Path, ...] = Field(
        default=(),
        description="files of the public keys (PEM, Ed25519) whose signature on a bundle is enough to add it",
    )
    runtime: Literal["auto", "openvino", "onnxruntime", "tensorrt"] = Field(
        default="auto", description="what computes networks; auto takes what is fastest on this machine"
    )
    precision: Literal["auto", "float32", "bfloat16", "float16", "int8"] = Field(
        default="auto",
        description="what networks are computed in; auto takes the fastest that an engine's card and this machine "
        "allow. It is part of the identity of what is derived",
    )
    devices: tuple[EngineDevice, ...] = Field(
        default=(), description='"cpu", "cuda:0", "cuda:1", ... in the order to try them; empty: the GPUs, then "cpu"'
    )
    processes: Receivers = Field(
        default="auto", description='resident engine processes: "auto" is one a GPU, else one a core up to four'
    )
    memory_mb: int = Field(
        default=2048, ge=256, description="memory of an engine process above which it closes what was used least lately"
    )
    idle_unload_s: float = Field(
        default=600.0, gt=0, description="an engine that nobody has needed for so long is closed"
    )
    deadline_s: float = Field(
        default=3600.0,
        ge=1,
        le=7 * 86400,
        description="how long one series may take in the engines, with its wait for them; then it is tried again",
    )
    shared_mb: int = Field(
        default=4096, ge=0, description="memory for decoded series on their way through engines, then the disk is used"
    )


class MetricsSettings(Section):
    """`[metrics]`: figures for Prometheus, at http://HOST:PORT/metrics."""

    host: str = Field(default="127.0.0.1", description="address to show them at; whoever reaches it may read them")
    port: PortNumber | None = Field(default=None, description="TCP port to show them at; none: nothing is measured")


class LogSettings(Section):
    """`[log]`: what is written to standard error."""

    format: Literal["console", "json"] = Field(
        default="console", description="lines for people, or one JSON object a line"
    )
    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="least level that is written"
    )
