"""What the deliver process asks destinations for proof with."""

from __future__ import annotations

from collections.abc import Callable

from dicomnode.config import Config
from dicomnode.core.ports import Deliverer
from dicomnode.core.proof import ProofKind, ProofPolicy
from dicomnode.deliver.asking import AskingDeliverer
from dicomnode.flow.inquiring import ProofRoute
from dicomnode.net.scu import Opening, PeerAddress, Timeouts
from dicomnode.net.trace import TRACES, PeerTrace


def proof_routes(config: Config) -> list[ProofRoute]:
    """One for each destination."""
    return [proof_route(config, name) for name in config.destination]


def proof_route(config: Config, name: str) -> ProofRoute:
    """How one destination is asked."""
    destination, peer = config.destination[name], config.asked_peer_of(name)
    assert peer.host is not None  # checked when the configuration was read
    assert peer.port is not None
    return ProofRoute(
        name=name,
        peer=peer.name,
        address=PeerAddress(peer.host, peer.port, peer.ae_title, config.security_of(peer.name)),
        calling_ae=_calling_ae(config, name),
        policy=proof_policy(config, name),
        opening=Opening(
            Timeouts(destination.connect_s, destination.associate_s, destination.response_s),
            destination.max_pdu,
            trace=PeerTrace(config.node.data / TRACES, peer.name),
        ),
    )


def _calling_ae(config: Config, name: str) -> str:
    """The sender's AE title is for what it sent; its results would go there."""
    setting = config.destination[name].calling_ae
    return config.node.ae_title if setting in ("node", "sender") else setting


def proof_policy(config: Config, name: str) -> ProofPolicy:
    """How a destination is asked for proof."""
    destination = config.destination[name]
    proving = destination.proving
    return ProofPolicy(
        kind=ProofKind.COMMITMENT if destination.commit else destination.proof,
        after_s=proving.after_s,
        report_s=proving.report_s,
        answer_s=proving.answer_s,
        again_s=proving.again_s,
        patience_s=proving.patience_h * 3600.0,
    )


def asking_first(make: Callable[[], Deliverer], route: ProofRoute) -> Deliverer:
    """The deliverer that `make` makes, behind the question what the destination holds already of what we derive."""
    return AskingDeliverer(make(), route.address, route.opening)
