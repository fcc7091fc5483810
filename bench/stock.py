"""A receiver as pynetdicom's documentation shows it: `stock.py PORT FOLDER LARGEST_PDU`. Knows nothing of our code."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

from pynetdicom import AE, AllStoragePresentationContexts, evt


def main() -> None:
    port, folder, largest_pdu = int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    numbers = itertools.count()

    def store(event: evt.Event) -> int:
        (folder / f"{next(numbers):06d}.dcm").write_bytes(event.encoded_dataset())
        return 0x0000

    entity = AE("STOCK")
    entity.maximum_pdu_size = largest_pdu
    entity.maximum_associations = 100
    entity.supported_contexts = AllStoragePresentationContexts
    entity.start_server(("127.0.0.1", port), evt_handlers=[(evt.EVT_C_STORE, store)])


if __name__ == "__main__":
    main()
