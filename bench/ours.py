"""Our sender as deliveries use it, for `bench.sending`: a deliverer and a thread for each association.

Prints, as JSON, how long it took from the first connection to the last receipt.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from dicomnode.core.types import Outgoing
from dicomnode.deliver.dicom import DicomDeliverer
from dicomnode.net.scu import PeerAddress
from dicomnode.operations.files import as_outgoing


def main() -> None:
    port, called_ae, calling_ae, associations, passes, *paths = sys.argv[1:]
    address = PeerAddress("127.0.0.1", int(port), called_ae)
    count = int(associations)
    arrived: list[int] = []
    started, cpu_before = time.perf_counter(), time.process_time()
    threads = [
        threading.Thread(target=_deliver, args=(address, paths[number::count] * int(passes), calling_ae, arrived))
        for number in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds, cpu_s = time.perf_counter() - started, time.process_time() - cpu_before
    if sum(arrived) != len(paths) * int(passes):
        sys.exit(f"{sum(arrived)} of {len(paths) * int(passes)} instances arrived")
    print(json.dumps({"seconds": seconds, "cpu_s": cpu_s}))


def _deliver(address: PeerAddress, paths: Sequence[str], calling_ae: str, arrived: list[int]) -> None:
    batch: list[Outgoing] = [as_outgoing(number, Path(path), calling_ae) for number, path in enumerate(paths)]
    deliverer = DicomDeliverer(address)
    try:
        arrived.append(sum(receipt.outcome.arrived for receipt in deliverer.deliver(batch)))
    finally:
        deliverer.close()


if __name__ == "__main__":
    main()
