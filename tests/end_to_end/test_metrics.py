"""What Prometheus is shown of a running node."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from dicomnode.metrics import METRICS
from dicomnode.testing.node import Node, settings
from dicomnode.testing.peers import StoreScp
from dicomnode.testing.processes import free_port, wait_until
from dicomnode.testing.sender import RawObject, RawSender, echo
from tests.end_to_end.observation import TIMEOUT_S
from tests.end_to_end.studies import phantom_series

RULE = {"name": "all", "match": {"Modality": "*"}, "send": ["archive"]}
Samples = dict[tuple[str, str], float]


def shown(port: int) -> Samples:
    """All samples by name and label values."""
    open_ = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
    with open_(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    families = list(text_string_to_metric_families(text))
    return {
        (sample.name, " ".join(sample.labels.values())): sample.value for each in families for sample in each.samples
    }


def answers(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.peer("dcmtk")
def test_what_comes_and_goes_is_counted_over_all_processes(tmp_path: Path, archive: StoreScp) -> None:
    sent = [RawObject.read(path) for path in phantom_series(tmp_path / "scanner", slices=3)]
    port = free_port()
    tree = settings({"archive": archive}, [RULE], node={"receivers": 2}, metrics={"port": port})
    with Node(tmp_path / "node", tree) as node:
        wait_until(lambda: answers(port), TIMEOUT_S, "the metrics were served")  # by a process of their own
        with RawSender(node.call(), sent) as one, RawSender(node.call(), sent) as two:
            assert [sender.store(each) for sender in (one, two) for each in sent] == [0] * 6
            assert shown(port)["dicomnode_associations_open", "scanner"] == 2
            assert sum(value for (name, _), value in shown(port).items() if name == "dicomnode_connections_open") == 2
        assert not echo(node.call(calling_ae="DOE^JANE"))
        delivered = ("dicomnode_deliveries_total", "archive sent")
        wait_until(lambda: shown(port).get(delivered) == 3, TIMEOUT_S, "three were delivered, each once")
        wait_until(lambda: shown(port)["dicomnode_associations_open", "scanner"] == 0, TIMEOUT_S, "all have ended")
        samples = shown(port)
        assert samples["dicomnode_instances_stored_total", "scanner"] == 6
        assert samples["dicomnode_bytes_stored_total", "scanner"] == 2 * sum(len(each.data_set) for each in sent)
        assert samples["dicomnode_store_seconds_count", ""] == 6
        assert samples["dicomnode_associations_refused_total", "calling_ae"] == 1
        assert samples["dicomnode_disk_free_bytes", ""] > samples["dicomnode_disk_reserve_bytes", ""] == 1_000_000
        assert not any("JANE" in labels for _, labels in samples)
        declared = {name.removesuffix("_total") for name in METRICS}
        known = {name.removesuffix("_total") for name, _ in samples if not name.endswith(("_created",))}
        assert {name for name in known if not name.startswith(tuple(declared))} == set()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"http://127.0.0.1:{port}/", timeout=30)
        assert {"metrics"} < {process["role"] for process in node.status()["processes"]}
        assert node.stop() == 0
