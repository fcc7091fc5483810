"""What is decided of an instance when it arrives: where it belongs, where it goes, how long its series is waited."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from dicomnode.core.headers import number, numbers, value
from dicomnode.core.identity import is_valid_uid
from dicomnode.core.rules import Facts, Forwarding, RuleSet, forward, tightened
from dicomnode.core.types import CompletenessPolicy, Header, RejectsPolicy, SameUidPolicy
from dicomnode.core.withholding import CheckPatient, withheld_because
from dicomnode.errors import InputError

INTAKE_KEYWORDS: Final = frozenset(
    {
        "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID", "IssuerOfPatientID",
        "AccessionNumber", "Modality", "ImagePositionPatient", "ImageOrientationPatient",
        "NumberOfSeriesRelatedInstances", "ImagesInAcquisition",
    }
)  # fmt: skip
"""What the receiver reads of every instance, beside what the rules name."""


_HIGHEST_IS: Final = 2**31 - 1
"""Largest number that VR IS can say (PS3.5 6.2); a hostile header may say 1e308."""


@dataclass(frozen=True, slots=True)
class DestinationPolicy:
    """How a destination is fed. `calling_ae` is "" where the sender's own AE title is passed through; `withdraw`: it is
    told which derived objects hold no longer."""

    when_complete: bool = False
    calling_ae: str = ""
    withdraw: bool = False
    check_patient: CheckPatient = "no"


@dataclass(frozen=True, slots=True)
class PeerPolicy:
    """What a peer may change of what is there."""

    same_uid: SameUidPolicy = SameUidPolicy.NEWEST
    rejects: RejectsPolicy = RejectsPolicy.OWN


_STRANGER: Final = PeerPolicy(rejects=RejectsPolicy.NONE)


@dataclass(frozen=True)
class Routing:
    """The configuration as far as arrivals need it: immutable, replaced as a whole at a reload."""

    rules: RuleSet
    destinations: Mapping[str, DestinationPolicy]
    completeness: CompletenessPolicy
    completeness_of_peer: Mapping[str, CompletenessPolicy]
    peers: Mapping[str, PeerPolicy] = field(default_factory=dict)
    commissioning: bool = False

    @property
    def keywords(self) -> frozenset[str]:
        return INTAKE_KEYWORDS | self.rules.keywords

    def destinations_of_peer(self, peer: str) -> tuple[str, ...]:
        """Destinations that lead to a peer; none for a caller without a name."""
        return tuple(name for name, to in self.rules.destination_peers.items() if peer and to == peer)

    def calling_ae(self, destination: str, sender_ae: str) -> str:
        """The AE title to call a destination with, for an object that `sender_ae` sent us."""
        known = self.destinations.get(destination)  # an object may be under way to one that was just removed
        return (known.calling_ae if known is not None else "") or sender_ae

    def peer_policy(self, peer: str) -> PeerPolicy:
        """What the peer of that name may change; "" is a caller without one, which rejects nothing."""
        return self.peers.get(peer, PeerPolicy()) if peer else _STRANGER

    @property
    def withdrawing(self) -> tuple[str, ...]:
        """Destinations that are told which derived objects hold no longer."""
        return tuple(name for name, destination in self.destinations.items() if destination.withdraw)

    def withholds(self, destination: str, rules: Collection[str], tried_out: Collection[str]) -> str | None:
        """Why what `rules` derive waits before it leaves for a destination, or None.

        tried_out  those of the rules that were in commissioning when it was planned; they stay so for it
        """
        now = {rule.name for rule in self.rules.rules if rule.commissioning}
        known = self.destinations.get(destination)
        check = known.check_patient if known is not None else "no"
        return withheld_because(rules, rules if self.commissioning else now.union(tried_out), check)

    def echoes(self, forwarding: Forwarding) -> bool:
        """Whether a rule that matched says `echo`."""
        return any(rule.echo and rule.name in forwarding.matched for rule in self.rules.rules)

    def decide(self, facts: Facts) -> tuple[Forwarding, CompletenessPolicy]:
        """Where an original goes, and how long its series is waited for."""
        policy = self.completeness_of_peer.get(facts.sender.peer, self.completeness)
        return forward(self.rules, facts), tightened(policy, self.rules, facts)


PRIORITIES: Final[Mapping[str, int]] = {"urgent": 10, "normal": 100}
"""A rule's priority as queues and the outbox sort it: the lower the sooner."""


def required_uids(header: Header) -> tuple[str, str]:
    """Study and Series Instance UID; raises InputError where one is missing or no UID (PS3.3 C.7.2.1, C.7.3.1)."""
    study, series = value(header, "StudyInstanceUID"), value(header, "SeriesInstanceUID")
    for name, uid in (("Study", study), ("Series", series)):
        if not is_valid_uid(uid):
            raise InputError(
                f"the data set has no valid {name} Instance UID",
                "the sender must write one: nothing can be filed without",
            )
    return study, series


def position_along_normal(header: Header) -> tuple[float, str] | None:
    """(position in mm along the slice normal, the orientation as text); None where the object has no geometry.

    PS3.3 C.7.6.2.1.1. Orientations are rounded to 0.001: scanners write the last digits differently slice by slice.
    """
    position = numbers(header, "ImagePositionPatient", 3)
    cosines = numbers(header, "ImageOrientationPatient", 6)
    if position is None or cosines is None:
        return None
    (x1, y1, z1), (x2, y2, z2) = cosines[:3], cosines[3:]
    normal = (y1 * z2 - z1 * y2, z1 * x2 - x1 * z2, x1 * y2 - y1 * x2)
    along = sum(one * other for one, other in zip(normal, position, strict=True))
    if not math.isfinite(along):  # hostile numbers: each is finite, their product is not
        return None
    return along, "\\".join(f"{round(cosine, 3) + 0.0:.3f}" for cosine in cosines)


def expected_instances(header: Header) -> tuple[int, str] | None:
    """How many instances the series is said to have, and by what.

    ImagesInAcquisition counts acquired images, of which a series may hold a part or several sets: who judges takes it
    for a hint (`dicomnode.core.completeness`).
    """
    for keyword in ("NumberOfSeriesRelatedInstances", "ImagesInAcquisition"):
        count = number(header, keyword)
        if count is not None and 1 <= count <= _HIGHEST_IS:
            return int(count), keyword
    return None
