"""What instances are sent to: our node, DCMTK's storescp, Orthanc and stock pynetdicom, each as its bench wants it.

All of them are started in fresh folders, listen on 127.0.0.1, and can tell how many instances they hold.
"""

from __future__ import annotations

import contextlib
import sqlite3
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Protocol, Self

from dicomnode.testing.node import NODE_AE, Node, settings
from dicomnode.testing.peers import Orthanc, StoreScp
from dicomnode.testing.processes import ServerProcess, free_port, listens

PDU_BYTES: Final = 131072
NO_DELAY: Final = MappingProxyType({"TCP_NODELAY": "1"})
"""DCMTK and Orthanc leave Nagle's algorithm on unless this stands in the environment."""

_START_TIMEOUT_S: Final = 30.0


class Server(Protocol):
    """A receiver that runs while its `with` block does."""

    @property
    def port(self) -> int: ...

    @property
    def pid(self) -> int:
        """Its session (setsid(2))."""

    def stored(self) -> int:
        """How many instances it holds."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: Any) -> None: ...


@dataclass(frozen=True, slots=True)
class Receiver:
    """A kind of server: its name in the tables, and how to make one in an empty folder.

    one_at_a_time  it serves one association after the other
    """

    name: str
    make: Callable[[Path], Server]
    one_at_a_time: bool = False


class BenchNode(Node):
    """Our node as installed, with a rule that matches nothing: what it takes in is kept and judged, and stays."""

    def __init__(self, folder: Path, durability: str, **node: Any) -> None:
        nowhere = StoreScp(folder / "nowhere", "NOWHERE")  # named by the rule, never started or sent to
        rules = [{"name": "none", "match": {"Modality": "NONE"}, "send": ["nowhere"]}]
        tree = settings({"nowhere": nowhere}, rules, node={"durability": durability, **node})
        tree["log"] = {"level": "warning"}
        tree["completeness"] = {}  # as installed: series are judged seconds after a visit, not in it
        super().__init__(folder, tree)

    def stored(self) -> int:
        address = f"{(self.data / 'node.sqlite').as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(address, uri=True)) as index:
            (count,) = index.execute("SELECT count(*) FROM instance").fetchone()
        return int(count)


class BenchStoreScp(StoreScp):
    """DCMTK's storescp."""

    def stored(self) -> int:
        return sum(1 for _ in self.files.iterdir())


class BenchOrthanc(Orthanc):
    """Orthanc with as few delays as this version can be told to have."""

    def stored(self) -> int:
        return int(self.statistics()["CountInstances"])


class StockPynetdicom(ServerProcess):
    """`bench.stock`: pynetdicom's own AE with a handler that writes the bytes to a file."""

    def __init__(self, folder: Path) -> None:
        self.files = folder / "received"
        self.files.mkdir(parents=True)
        self.port = free_port()
        arguments = [sys.executable, str(Path(__file__).with_name("stock.py")), str(self.port), str(self.files)]
        super().__init__([*arguments, str(PDU_BYTES)], folder / "stock.log", folder)

    def __enter__(self) -> Self:
        self.launch()
        self.await_ready(lambda: listens(self.port), _START_TIMEOUT_S)
        return self

    def stored(self) -> int:
        return sum(1 for _ in self.files.iterdir())


def node(durability: str) -> Receiver:
    """Our node at a durability."""
    return Receiver(f"dicomnode, {durability}", lambda folder: BenchNode(folder, durability))


def storescp(*options: str) -> Receiver:
    """DCMTK's storescp, with PDUs of 128 KiB."""
    every = ("-pdu", str(PDU_BYTES), "+xa", *options)
    return Receiver(
        name=" ".join(("storescp", *options)),
        make=lambda folder: BenchStoreScp(folder, NODE_AE, every, NO_DELAY),
        one_at_a_time="--fork" not in options,
    )


def orthanc(sync: bool) -> Receiver:
    """Orthanc with SyncStorageArea on or off."""
    options = {"SyncStorageArea": sync, "MaximumPduLength": PDU_BYTES}
    return Receiver(
        f"Orthanc, sync {'on' if sync else 'off'}", lambda folder: BenchOrthanc(folder, NODE_AE, options, NO_DELAY)
    )


STORESCP: Final[Sequence[Receiver]] = (storescp(), storescp("--fork"), storescp("--fork", "+B"))
STOCK: Final = Receiver("stock pynetdicom", StockPynetdicom)
