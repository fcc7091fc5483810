"""A PACS for tests beside Orthanc: DCMTK's dcmqrscp, which answers C-FIND, C-MOVE and, where it is let, C-GET."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, Self

from dicomnode.testing.peers import Call, dcmsend, program
from dicomnode.testing.processes import ServerProcess, free_port, listens

_START_TIMEOUT_S: Final = 30.0
_CONFIGURATION: Final = """\
NetworkTCPPort = {port}
MaxPDUSize = 16384
MaxAssociations = 16
HostTable BEGIN
{hosts}
HostTable END
VendorTable BEGIN
VendorTable END
AETable BEGIN
{ae_title} {storage} RW (200, 1024mb) ANY
AETable END
"""


class DcmQrScp(ServerProcess):
    """DCMTK's dcmqrscp with an archive of its own below `folder`.

    moves_to  where it moves to: the port on 127.0.0.1 by AE title
    options   its own, such as "--disable-get"
    """

    def __init__(
        self,
        folder: Path,
        ae_title: str = "QRSCP",
        moves_to: Mapping[str, int] | None = None,
        options: Sequence[str] = (),
    ) -> None:
        self.ae_title = ae_title
        self.port = free_port()
        self.storage = folder / "archive"
        self.storage.mkdir(parents=True, exist_ok=True)
        self._configuration = folder / "dcmqrscp.cfg"
        self.know(moves_to or {})
        arguments = [program("dcmqrscp") or "dcmqrscp", "--config", str(self._configuration), *options]
        super().__init__([*arguments, str(self.port)], folder / "dcmqrscp.log", folder)

    def know(self, moves_to: Mapping[str, int]) -> None:
        """Say where it moves to; it reads that when it starts."""
        hosts = "\n".join(f"{title} = ({title}, 127.0.0.1, {port})" for title, port in moves_to.items())
        self._configuration.write_text(
            _CONFIGURATION.format(port=self.port, hosts=hosts, ae_title=self.ae_title, storage=self.storage)
        )

    def start(self) -> None:
        self.launch()
        self.await_ready(lambda: listens(self.port), _START_TIMEOUT_S)

    def __enter__(self) -> Self:
        self.start()
        return self

    def hold(self, paths: Iterable[Path]) -> None:
        """Have it store these files."""
        if dcmsend(Call(self.port, self.ae_title, "TESTER"), paths):
            raise RuntimeError(f"dcmqrscp did not take everything: {self.tail()}")
