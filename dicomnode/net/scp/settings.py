"""What a storage server is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dicomnode.net.scp.slots import Most
from dicomnode.net.tls import ServerSecurity


@dataclass(frozen=True, slots=True)
class Caller:
    """An AE that may call us.

    peer          our name for it
    host          where it calls from: an address or a host name, or None for anywhere
    tls           whether it must call by TLS
    certificates  what its certificate must be or name, see `PeerCertificate.is_one_of`; none: `host`
    associations  open at once, instead of `ScpLimits.per_address`
    """

    ae_title: str
    peer: str
    host: str | None = None
    tls: bool = False
    certificates: tuple[str, ...] = ()
    associations: int | None = None


@dataclass(frozen=True, slots=True)
class ScpLimits:
    """What others may cost us.

    associations       open at once, from all addresses
    per_address        open at once, from one address
    pending            connections that have not asked for an association; one more closes the oldest of them
    artim_s            time for an A-ASSOCIATE-RQ to arrive whole (ARTIM, PS3.8 9.1.5)
    idle_s             longest silence within an association, and longest time for one PDU
    max_dataset_bytes  largest data set taken in
    """

    associations: int = 200
    per_address: int = 20
    pending: int = 100
    artim_s: float = 30.0
    idle_s: float = 60.0
    max_dataset_bytes: int = 8 << 30


@dataclass(frozen=True, slots=True)
class ScpSettings:
    """
    host, port           where to listen; port 0 takes a free one
    ae_titles            every AE title that we answer to
    callers              who may call; an AE title may stand more than once, with different hosts
    accept_unknown       whether anybody else may too
    answer_strangers     whether those who may not are told so, or cut off without a word
    private_sop_classes  SOP Class UIDs to store besides the standard's
    accept_unknown_sop_classes  whether to store any class that the standard does not know
    operations           outstanding at once on one association, where a sender asks for more than one
    security             how connections to a TLS port are secured; None: there is no such port
    traces               folder of the traces of peers' associations (`dicomnode.net.trace`)
    """

    ae_titles: tuple[str, ...]
    host: str = "0.0.0.0"  # noqa: S104  a scanner must reach us
    port: int = 11112
    callers: tuple[Caller, ...] = ()
    accept_unknown: bool = False
    answer_strangers: bool = True
    private_sop_classes: tuple[str, ...] = ()
    accept_unknown_sop_classes: bool = False
    operations: int = 8
    limits: ScpLimits = ScpLimits()
    security: ServerSecurity | None = None
    traces: Path | None = None

    def most(self, peer: str) -> Most:
        """How many associations there may be once a peer has one more; "" is a caller that is none."""
        own = next((caller.associations for caller in self.callers if caller.peer == peer), None)
        return Most(self.limits.associations, self.limits.per_address, own)
