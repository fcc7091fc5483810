"""Peers by the name that a person types."""

from __future__ import annotations

import difflib

from dicomnode.config import Config
from dicomnode.errors import ConfigError, NotFoundError
from dicomnode.net.scu import PeerAddress


def address_of(config: Config, name: str) -> PeerAddress:
    """Where a configured peer listens. Raises NotFoundError, and ConfigError for a peer that only calls us."""
    peer = config.peer.get(name)
    if peer is None:
        near = difflib.get_close_matches(name, config.peer, n=1)
        known = ", ".join(config.peer) or "none"
        hint = f"did you mean {near[0]!r}?" if near else f"peers in {config.source}: {known}"
        raise NotFoundError(f"there is no peer {name!r}", hint)
    if peer.host is None or peer.port is None:
        raise ConfigError(f"peer {name!r} has no host and port: it only calls us", f"add both to [peer.{name}]")
    return PeerAddress(peer.host, peer.port, peer.ae_title, config.security_of(name))
