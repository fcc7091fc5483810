"""Instances a second that receivers take from one association and from four, interleaved round by round.

The sender is ours, the same for all: CT slices of 512 x 512 from files, each answered before the next is sent.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from dicomnode.core.phantom import phantom_study
from dicomnode.deliver.dicom import DicomDeliverer
from dicomnode.net.scu import PeerAddress
from dicomnode.operations.files import as_outgoing
from dicomnode.testing.node import NODE_AE, Node, settings
from dicomnode.testing.peers import Orthanc, StoreScp
from dicomnode.testing.processes import resident_bytes

INSTANCES = 120
ROUNDS = 5
ASSOCIATIONS = (1, 4)
Server = Node | Orthanc | StoreScp
KEEPS = [{"name": "keep", "match": {"Modality": "MR"}, "send": ["nowhere"]}]


def run() -> None:
    """The node at two durabilities beside DCMTK's storescp and Orthanc."""
    with tempfile.TemporaryDirectory() as made, ExitStack() as running:
        folder = Path(made)
        servers = receivers(folder)
        for server in servers.values():
            running.enter_context(server)
        peers = {name: PeerAddress("127.0.0.1", server.port, NODE_AE) for name, server in servers.items()}
        rates: dict[tuple[str, int], list[float]] = {}
        for number in range(ROUNDS):
            for name, peer in peers.items():
                for count in ASSOCIATIONS:
                    paths = written(folder / "send", seed=number * 100 + count * 10 + len(name))
                    rates.setdefault((name, count), []).append(rate(peer, paths, count))
        memory = {name: resident_bytes(peer.pid) for name, peer in servers.items()}
    reference = {count: statistics.median(rates["storescp --fork +B", count]) for count in ASSOCIATIONS}
    print(f"\nreceive: CT instances/s, median of {ROUNDS} interleaved rounds of {INSTANCES}, (ratio to storescp)")
    for name in peers:
        cells = [
            f"{count} association{'s' * (count > 1)} {statistics.median(rates[name, count]):6.0f} "
            f"({statistics.median(rates[name, count]) / reference[count]:.2f})"
            for count in ASSOCIATIONS
        ]
        resident = f"{memory[name] / 1e6:5.0f} MB" if name in memory else ""
        print(f"  {name:<22} {'   '.join(cells)}   {resident}")


def receivers(folder: Path) -> dict[str, Server]:
    """What takes instances, by name."""
    servers: dict[str, Server] = {
        "storescp --fork +B": StoreScp(folder / "storescp", NODE_AE),
        "Orthanc": Orthanc(folder / "orthanc", NODE_AE),
    }
    nowhere = StoreScp(folder / "nowhere", "NOWHERE")  # named by the rule, never started or sent to
    for durability in ("power", "none"):
        tree = settings({"nowhere": nowhere}, KEEPS, node={"durability": durability})
        tree["log"] = {"level": "warning"}
        servers[f"dicomnode, {durability}"] = Node(folder / durability, tree)
    return servers


def written(folder: Path, seed: int) -> list[Path]:
    """A fresh study on disk: no receiver has seen its UIDs."""
    folder.mkdir(exist_ok=True)
    paths = []
    for index, dataset in enumerate(phantom_study(np.random.default_rng(seed), INSTANCES, 512)):
        paths.append(folder / f"{index:04d}.dcm")
        dataset.save_as(paths[-1], enforce_file_format=True)
    return paths


def rate(peer: PeerAddress, paths: Sequence[Path], associations: int) -> float:
    """Instances a second over so many associations at once; every one must arrive."""
    shares = [paths[number::associations] for number in range(associations)]
    stored: list[int] = []
    threads = [threading.Thread(target=lambda share=share: stored.append(send(peer, share))) for share in shares]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    assert sum(stored) == len(paths), f"{peer}: {sum(stored)} of {len(paths)} arrived"
    return len(paths) / seconds


def send(peer: PeerAddress, paths: Sequence[Path]) -> int:
    """Send over one association; how many arrived."""
    batch = [as_outgoing(index, path, "SCANNER") for index, path in enumerate(paths)]
    sender = DicomDeliverer(peer)
    try:
        return sum(receipt.outcome.arrived for receipt in sender.deliver(batch))
    finally:
        sender.close()
