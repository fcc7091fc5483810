"""Our sender as deliveries use it, for `bench.sending`: a deliverer with so many associations.

Prints, as JSON, how long it took from the first look at the files to the last receipt.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import closing
from pathlib import Path

from dicomnode.deliver.dicom import DeliverySettings, DicomDeliverer
from dicomnode.net.scu import PeerAddress
from dicomnode.operations.files import as_outgoing


def main() -> None:
    port, called_ae, calling_ae, associations, passes, *paths = sys.argv[1:]
    address = PeerAddress("127.0.0.1", int(port), called_ae)
    started, cpu_before = time.perf_counter(), time.process_time()
    batch = [as_outgoing(number, Path(path), calling_ae) for number, path in enumerate(paths * int(passes))]
    with closing(DicomDeliverer(address, DeliverySettings(associations=int(associations)))) as deliverer:
        arrived = sum(receipt.outcome.arrived for known in deliverer.deliver(batch) for receipt in known)
        seconds, cpu_s = time.perf_counter() - started, time.process_time() - cpu_before
    if arrived != len(batch):
        sys.exit(f"{arrived} of {len(batch)} instances arrived")
    print(json.dumps({"seconds": seconds, "cpu_s": cpu_s}))


if __name__ == "__main__":
    main()
