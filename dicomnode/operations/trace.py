"""trace: switch the trace of a peer's associations on and off, and show it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Final

from dicomnode.config import Config
from dicomnode.errors import NotFoundError
from dicomnode.net.trace import TRACES, PeerTrace

_SHOWN: Final = 200


@dataclass(frozen=True, slots=True)
class TraceShown:
    """Whether a peer's associations are traced, where to, and the newest lines."""

    peer: str
    is_on: bool
    path: str
    recorded: tuple[dict[str, Any], ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> Sequence[str]:
        head = f"{self.peer}: trace is {'on, for associations that begin from now on' if self.is_on else 'off'}"
        return (head, f"in {self.path}", *(line for told in self.recorded for line in _lines(told)))


def trace(config: Config, peer: str, action: str) -> TraceShown:
    """Do `action` ("on", "off", "show") with the trace of a configured peer. Raises NotFoundError."""
    if peer not in config.peer:
        raise NotFoundError(f"there is no peer {peer!r}", f"peers in {config.source}: {', '.join(config.peer)}")
    traced = peer_trace(config, peer)
    if action == "on":
        traced.folder.mkdir(parents=True, exist_ok=True)
        traced.switch.touch()
    elif action == "off":
        traced.switch.unlink(missing_ok=True)
    recorded = tuple(_recorded(traced)) if action == "show" else ()
    return TraceShown(peer, traced.switch.exists(), str(traced.path), recorded)


def peer_trace(config: Config, peer: str) -> PeerTrace:
    return PeerTrace(config.node.data / TRACES, peer)


def _recorded(traced: PeerTrace) -> list[dict[str, Any]]:
    """The newest lines, oldest first."""
    texts: list[str] = []
    for path in (traced.path.with_suffix(".jsonl.1"), traced.path):
        with suppress(FileNotFoundError):
            texts += path.read_text(encoding="ascii").splitlines()
    return [json.loads(text) for text in texts[-_SHOWN:]]


def _lines(told: dict[str, Any]) -> Iterator[str]:
    """What one line of the file tells; each presentation context on a line of its own."""
    apart = ("association", "t", "event", "contexts")
    rest = (f" {key}={value}" for key, value in told.items() if key not in apart)
    yield f"{told['association']} {told['t']:10.6f} {told['event']}{''.join(rest)}"
    for context in told.get("contexts", ()):
        answer = f"result {context['result']}" if "result" in context else context["abstract_syntax"]
        yield f"{'':24}{context['id']:>3}: {answer}, {', '.join(context['transfer_syntaxes']) or 'none'}"
