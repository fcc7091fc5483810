"""Real peers for tests, from Debian's packages: Orthanc as a PACS, DCMTK's storescp, storescu, dcmsend and echoscu.

Peers listen on 127.0.0.1 only. They are test peers: the packaged versions have known vulnerabilities.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Self

from dicomnode.testing.objects import pixel_digest
from dicomnode.testing.processes import ServerProcess, free_port, listens

_START_TIMEOUT_S: Final = 30.0
_STOP_TIMEOUT_S: Final = 30.0
_SEND_TIMEOUT_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class PeerPrograms:
    """The programs of a peer and the Debian package that brings them."""

    package: str
    programs: tuple[str, ...]


PEERS: Final[Mapping[str, PeerPrograms]] = {
    "dcmtk": PeerPrograms("dcmtk", ("storescu", "dcmsend", "storescp", "echoscu", "dcmdump", "dcmqrscp")),
    "orthanc": PeerPrograms("orthanc", ("Orthanc",)),
    "dciodvfy": PeerPrograms("dicom3tools", ("dciodvfy",)),
    "nmap": PeerPrograms("nmap", ("nmap",)),
    "postgresql": PeerPrograms("postgresql", ("initdb", "postgres")),
    "cc": PeerPrograms("gcc libc6-dev", ("cc",)),
}


def program(name: str) -> str | None:
    """The path of a program; Debian installs Orthanc and PostgreSQL where an ordinary user's PATH does not look.

    An activated environment's own folder is left out: pynetdicom puts a `storescp` there, which is not DCMTK's.
    """
    ours = Path(sys.prefix, "bin") if sys.prefix != sys.base_prefix else None
    usual = [folder for folder in os.get_exec_path() if Path(folder) != ours]
    elsewhere = ("/usr/local/sbin", "/usr/sbin", "/sbin", *map(str, Path("/usr/lib/postgresql").glob("*/bin")))
    return shutil.which(name, path=os.pathsep.join([*usual, *elsewhere]))


def missing_programs(peer: str) -> tuple[str, ...]:
    """The programs of a peer that are not installed."""
    return tuple(name for name in PEERS[peer].programs if program(name) is None)


def _path_of(name: str) -> str:
    path = program(name)
    if path is None:
        raise FileNotFoundError(f"{name} is not installed")
    return path


class Orthanc(ServerProcess):
    """An Orthanc that keeps what it is sent: C-STORE, C-FIND, C-MOVE and C-GET from anybody, REST for the test.

    As installed, unknown SOP classes are refused and a second instance with a known UID is answered 0x0000 and dropped.
    `stop()` and `start()` keep its database. `options` are added to its configuration, `environment` to ours.
    """

    def __init__(
        self,
        folder: Path,
        ae_title: str = "ORTHANC",
        options: Mapping[str, object] = MappingProxyType({}),
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.ae_title = ae_title
        self._options = options
        self._environment = environment
        self.port = free_port()
        self.http_port = free_port()
        configuration = folder / "orthanc.json"
        configuration.write_text(json.dumps(self._configuration(folder)))
        super().__init__([_path_of("Orthanc"), str(configuration)], folder / "orthanc.log", folder)
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open

    def _configuration(self, folder: Path) -> dict[str, Any]:
        return {
            "Name": self.ae_title,
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "Plugins": [],
            "HttpPort": self.http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomAet": self.ae_title,
            "DicomPort": self.port,
            "DicomCheckCalledAet": False,
            "DicomAlwaysAllowFind": True,
            "DicomAlwaysAllowGet": True,
            "DicomAlwaysAllowMove": True,
            "OverwriteInstances": False,
            "StorageCompression": False,
            "StableAge": 1,
            **self._options,
        }

    def start(self) -> None:
        self.launch(self._environment)
        self.await_ready(self._answers, _START_TIMEOUT_S)

    def stop(self) -> None:
        """End it in good order; the database stays."""
        self.signal(signal.SIGTERM)
        self.exit_code(_STOP_TIMEOUT_S)

    def __enter__(self) -> Self:
        self.start()
        return self

    def get(self, path: str) -> bytes:
        """GET a path of the REST interface."""
        with self._open(f"http://127.0.0.1:{self.http_port}{path}", timeout=30) as answer:
            content: bytes = answer.read()
            return content

    def get_json(self, path: str) -> Any:
        return json.loads(self.get(path))

    def statistics(self) -> dict[str, Any]:
        statistics: dict[str, Any] = self.get_json("/statistics")
        return statistics

    def instances(self) -> dict[str, str]:
        """SOP Instance UID by Orthanc's own instance id. Orthanc's id covers PatientID too, so a UID may come twice."""
        return {row["ID"]: row["MainDicomTags"]["SOPInstanceUID"] for row in self.get_json("/instances?expand")}

    def sop_instance_uids(self) -> list[str]:
        """Sorted, with repetitions where Orthanc holds a UID more than once."""
        return sorted(self.instances().values())

    def files(self) -> dict[str, bytes]:
        """The DICOM file of each instance, by SOP Instance UID."""
        return {uid: self.get(f"/instances/{identifier}/file") for identifier, uid in self.instances().items()}

    def pixel_digests(self) -> dict[str, str]:
        """SHA-256 of each instance's decoded stored values ("" without pixels), by SOP Instance UID."""
        return {uid: pixel_digest(content) for uid, content in self.files().items()}

    def calling_ae_titles(self) -> dict[str, str]:
        """The AE title that called to send each instance, by SOP Instance UID."""
        return {
            uid: self.get(f"/instances/{identifier}/metadata/RemoteAET").decode()
            for identifier, uid in self.instances().items()
        }

    def delete(self, path: str) -> None:
        """DELETE a path of the REST interface, as `/instances/ID`."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.http_port}{path}", method="DELETE")
        self._open(request, timeout=30).close()

    def send_everything(self, call: Call) -> None:
        """Send all that it holds by C-STORE, as itself: of `call` only the called side is used."""
        called = {"AET": call.called_ae, "Host": "127.0.0.1", "Port": call.port}
        self._send("PUT", "/modalities/called", called)
        self._send("POST", "/modalities/called/store", list(self.instances()))

    def _send(self, method: str, path: str, content: object) -> None:
        address = f"http://127.0.0.1:{self.http_port}{path}"
        request = urllib.request.Request(address, json.dumps(content).encode(), method=method)
        self._open(request, timeout=_SEND_TIMEOUT_S).close()

    def _answers(self) -> bool:
        try:
            self.get("/system")
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False
        return listens(self.port)


EXACT_AND_FORKING: Final = ("--fork", "+xa", "+B")
"""Options of storescp: a process an association, every transfer syntax, the data set's bytes exactly as received."""


class StoreScp(ServerProcess):
    """DCMTK's storescp: files named by modality and SOP Instance UID. `environment` is added to ours."""

    def __init__(
        self,
        folder: Path,
        ae_title: str = "STORESCP",
        options: Sequence[str] = EXACT_AND_FORKING,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.files = folder / "received"
        self.files.mkdir(parents=True, exist_ok=True)
        self.ae_title = ae_title
        self.port = free_port()
        self._environment = environment
        arguments = [_path_of("storescp"), "-aet", ae_title, "--promiscuous", *options]
        super().__init__([*arguments, "-od", str(self.files), str(self.port)], folder / "storescp.log", folder)

    def start(self) -> None:
        self.launch(self._environment)
        self.await_ready(lambda: listens(self.port), _START_TIMEOUT_S)

    def stop(self) -> None:
        self.kill()

    def __enter__(self) -> Self:
        self.start()
        return self


class PostgreSql(ServerProcess):
    """A throw-away PostgreSQL: a cluster of its own below `folder`, over TCP on 127.0.0.1, that survives no crash.

    It refuses to run as root: there it runs as `nobody`, who must be able to reach `folder`. Nobody is asked for a
    password.
    """

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._cluster = folder / "cluster"
        folder.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            shutil.chown(folder, "nobody")
        self._as_user = ["setpriv", "--reuid=nobody", "--clear-groups"] if os.geteuid() == 0 else []
        settings = {"port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": "",
                    "fsync": "off", "full_page_writes": "off", "shared_buffers": "16MB"}  # fmt: skip
        options = [option for name, value in settings.items() for option in ("-c", f"{name}={value}")]
        command = [*self._as_user, _path_of("postgres"), "-D", str(self._cluster), *options]
        super().__init__(command, folder / "postgresql.log", Path("/"))

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://dicomnode@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        if not self._cluster.exists():
            options = ["--auth=trust", "--no-sync", "--locale=C", "--encoding=UTF8", "--username=dicomnode"]
            command = [*self._as_user, _path_of("initdb"), *options, "--pgdata", str(self._cluster)]
            subprocess.run(command, check=True, capture_output=True, cwd="/")
        self.launch()
        self.await_said("ready to accept connections", _START_TIMEOUT_S)

    def kill(self) -> None:
        """Immediate shutdown: its children are in sessions of their own, and end with it only so."""
        if self.running:
            self.signal(signal.SIGQUIT)
            self.exit_code(_STOP_TIMEOUT_S)

    def __enter__(self) -> Self:
        self.start()
        return self


@dataclass(frozen=True, slots=True)
class Call:
    """Whom a sender calls, and as whom."""

    port: int
    called_ae: str
    calling_ae: str

    @property
    def options(self) -> list[str]:
        return ["-aet", self.calling_ae, "-aec", self.called_ae]

    @property
    def address(self) -> list[str]:
        return ["127.0.0.1", str(self.port)]


def storescu(call: Call, paths: Iterable[Path], *options: str) -> int:
    """Send files and folders with DCMTK's storescu over one association; its exit code.

    `options` are its own, such as "-xs" to propose JPEG lossless. Only contexts that the files need are proposed (-R),
    and a file that is refused does not end the association (-nh).
    """
    return _send(["storescu", "+sd", "+r", "-R", "-nh", *options, *call.options, *call.address], paths)


def dcmsend(call: Call, paths: Iterable[Path], *options: str) -> int:
    """Send files and folders with DCMTK's dcmsend, in the syntaxes they have; its exit code."""
    return _send(["dcmsend", "+sd", "+r", "-dn", "-nh", *options, *call.options, *call.address], paths)


def echoscu(call: Call, *options: str) -> int:
    """Verify with DCMTK's echoscu; its exit code."""
    return _send(["echoscu", "-to", "10", *options, *call.options, *call.address], ())


def _send(arguments: list[str], paths: Iterable[Path]) -> int:
    command = [_path_of(arguments[0]), *arguments[1:], *map(str, paths)]
    return subprocess.run(command, capture_output=True, timeout=_SEND_TIMEOUT_S, check=False).returncode
