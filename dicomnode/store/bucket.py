"""Files at rest in an S3 bucket, for machines that share no file system.

The bucket holds what counts: an instance is stored when the bucket has confirmed it. The folder of `FileStore` is a
cache in front of it: what was written or brought lately lies there, and everything that reads files reads them there.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from dicomnode.errors import ConfigError, DiskFullError, StoreError
from dicomnode.store.files import FileStore, storage_errors
from dicomnode.store.results import MANIFEST, ResultStore

if TYPE_CHECKING:
    from obstore.store import S3Store

_AT_ONCE: Final = 8
_RECENT_S: Final = 600.0
"""What was written or asked for so lately is in use, and never leaves the cache."""

_TIDIED_AFTER: Final = 20
"""The cache is looked through when this part of it was written anew."""

_PATIENCE_S: Final = 20
_HINT: Final = (
    "is the bucket there and reachable, and may we in? see [bucket]; the sender or the next attempt tries again"
)


@dataclass(frozen=True, slots=True)
class BucketAddress:
    """Which bucket, where, and who asks.

    url          s3://BUCKET/PREFIX
    endpoint     of a server that is not Amazon's, as "https://minio.hospital.local:9000"
    access_key, secret_key  None: what the environment says (AWS_ACCESS_KEY_ID and so on, or the machine's role)
    """

    url: str
    endpoint: str | None = None
    region: str = "us-east-1"
    access_key: str | None = None
    secret_key: str | None = None


class Bucket:
    """Objects by name in one bucket, below its prefix. Every failure of the server is a StoreError.

    It may not be used before a process forks: its connections belong to threads.
    """

    def __init__(self, address: BucketAddress) -> None:
        self._address = address
        self._made: S3Store | None = None

    def put(self, name: str, source: Path) -> None:
        """Store a file under a name; returns when the server has confirmed it."""
        with _server_errors():
            self._store.put(name, source)

    def fetch(self, name: str, target: Path) -> bool:
        """Bring an object to a path, whole or not at all; False where there is none."""
        part = target.with_name(f"{target.name}.{secrets.token_hex(8)}.part")
        with _server_errors():
            try:
                answer = self._store.get(name)
            except FileNotFoundError:
                return False
            with storage_errors():
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    with part.open("wb") as file:
                        for chunk in answer:
                            file.write(chunk)
                    part.rename(target)
                finally:
                    part.unlink(missing_ok=True)
        return True

    def read(self, name: str) -> bytes | None:
        """The content of a small object; None where there is none."""
        with _server_errors():
            try:
                return bytes(self._store.get(name).bytes())
            except FileNotFoundError:
                return None

    def delete(self, names: Collection[str]) -> None:
        """Remove objects; those that are not there do not matter."""
        with _server_errors():
            for name in names:
                with suppress(FileNotFoundError):
                    self._store.delete(name)

    def names(self, prefix: str) -> list[str]:
        """The names that begin with a prefix, which may end within a name."""
        folder = prefix.rpartition("/")[0]
        with _server_errors():
            found = [str(entry["path"]) for page in self._store.list(f"{folder}/") for entry in page]
        return sorted(name for name in found if name.startswith(prefix))

    def folders(self, prefix: str) -> list[str]:
        """The folders below one, with its name."""
        with _server_errors():
            return sorted(map(str, self._store.list_with_delimiter(f"{prefix}/")["common_prefixes"]))

    @property
    def _store(self) -> S3Store:
        if self._made is None:
            self._made = _open(self._address)
        return self._made


class BucketStore(FileStore):
    """Files in a bucket, cached below a folder.

    cache_bytes  how much of the folder's disk they may take; what was used lately stays whatever it takes
    """

    def __init__(self, folder: Path, reserve_bytes: int, bucket: Bucket, cache_bytes: int, owner: str = "") -> None:
        super().__init__(folder, reserve_bytes, sync=False, owner=owner)
        self._bucket = bucket
        self._cache_bytes = cache_bytes
        self._lock = threading.Lock()
        self._written_bytes = 0

    def require_space(self) -> None:
        try:
            super().require_space()
        except DiskFullError:
            shrink(self._objects, 0, time.time())
            super().require_space()

    def make_durable(self, key: str, descriptor: int) -> None:
        size = os.fstat(descriptor).st_size
        self._bucket.put(_object(key), self.path(key))
        self._make_room(size)

    def bring(self, keys: Collection[str]) -> None:
        missing = [key for key in dict.fromkeys(keys) if not self._touch(key)]
        if len(missing) == 1:
            self._fetch(missing[0])
        elif missing:
            with ThreadPoolExecutor(min(_AT_ONCE, len(missing))) as threads:
                for _ in threads.map(self._fetch, missing):
                    pass

    def remove(self, key: str) -> None:
        super().remove(key)
        self._bucket.delete([_object(key)])

    def own_latest(self) -> list[str]:
        days = sorted(self._bucket.folders("objects"), reverse=True)
        hours = sorted((hour for day in days[:2] for hour in self._bucket.folders(day)), reverse=True)
        names = [name for hour in hours[: self.HOURS_SEARCHED] for name in self._bucket.names(f"{hour}/{self.mark}")]
        return [name.removeprefix("objects/").removesuffix(".dcm") for name in names]

    def set_aside(self, key: str) -> None:
        self.bring([key])
        super().set_aside(key)
        self._bucket.delete([_object(key)])

    def _touch(self, key: str) -> bool:
        """Whether a file is in the cache, which keeps it from now on for a while."""
        try:
            os.utime(self.path(key))
        except OSError:
            return False
        return True

    def _fetch(self, key: str) -> None:
        if self._bucket.fetch(_object(key), self.path(key)):
            with suppress(FileNotFoundError):
                self._make_room(self.path(key).stat().st_size)

    def _make_room(self, size: int) -> None:
        """Count what came into the cache; now and then let go of what was not used for longest."""
        with self._lock:
            self._written_bytes += size
            if self._written_bytes * _TIDIED_AFTER < self._cache_bytes:
                return
            self._written_bytes = 0
        shrink(self._objects, self._cache_bytes, time.time())


def shrink(folder: Path, keep_bytes: int, now: float) -> int:
    """Remove what was not used for longest from a cache, until it holds so much at most; how many files."""
    found = []
    for path in folder.rglob("*.dcm"):
        with suppress(FileNotFoundError):  # another process tidies too
            status = path.stat()
            found.append((status.st_mtime, status.st_size, path))
    excess = sum(size for _, size, _ in found) - keep_bytes
    removed = 0
    for used_at, size, path in sorted(found):
        if excess <= 0 or used_at > now - _RECENT_S:
            break
        path.unlink(missing_ok=True)
        excess -= size
        removed += 1
    return removed


class BucketResults(ResultStore):
    """Engine results in a bucket, so that another machine can derive from them; those made here lie here too."""

    def __init__(self, folder: Path, bucket: Bucket, machine: str = "") -> None:
        super().__init__(folder, machine)
        self._bucket = bucket

    def find(self, key: str) -> tuple[Path, dict[str, Any]] | None:
        return super().find(key) or (super().find(key) if self._bring(key) else None)

    def has_of(self, prefix: str) -> bool:
        return super().has_of(prefix) or bool(self._bucket.names(f"results/{prefix}"))

    def keep(self, made: Path, key: str, report: Mapping[str, Any]) -> Path:
        folder = super().keep(made, key, report)
        files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
        for name in sorted(files, key=lambda name: name == Path(MANIFEST)):  # what has a manifest is whole
            self._bucket.put(f"results/{key}/{name}", folder / name)
        return folder

    def forget(self, key: str) -> None:
        super().forget(key)
        self._bucket.delete([f"results/{key}/{MANIFEST}"])
        self._bucket.delete(self._bucket.names(f"results/{key}/"))

    def _bring(self, key: str) -> bool:
        manifest = self._bucket.read(f"results/{key}/{MANIFEST}")
        if manifest is None:
            return False
        folder = self._results / key
        wanted = [MANIFEST, *json.loads(manifest)["files"]]
        return all(self._bucket.fetch(f"results/{key}/{name}", folder / name) for name in wanted)


def _object(key: str) -> str:
    return f"objects/{key}.dcm"


def _open(address: BucketAddress) -> S3Store:
    try:
        from obstore.store import S3Store
    except ImportError:
        raise ConfigError("[bucket] url: obstore is not installed", "pip install 'dicomnode-router[s3]'") from None
    parts = urlsplit(address.url)
    options: dict[str, Any] = {
        "region": address.region,
        "endpoint": address.endpoint,
        "access_key_id": address.access_key,
        "secret_access_key": address.secret_key,
    }
    return S3Store(
        parts.netloc,
        prefix=parts.path.strip("/") or None,
        client_options={
            "allow_http": address.endpoint is not None and address.endpoint.startswith("http://"),
            "timeout": timedelta(seconds=_PATIENCE_S),
        },
        retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=_PATIENCE_S)},
        **{name: value for name, value in options.items() if value is not None},
    )


@contextmanager
def _server_errors() -> Iterator[None]:
    """Errors of the bucket's server as StoreError; their own text quotes whole answers."""
    from obstore.exceptions import BaseError

    try:
        yield
    except BaseError as error:
        raise StoreError(f"the bucket failed ({type(error).__name__})", _HINT) from None
    except FileNotFoundError:  # of an object or of the bucket itself: the server's 404
        raise StoreError("the bucket, or an object in it, is not there", _HINT) from None
    except PermissionError:
        raise StoreError("the bucket does not let us in", _HINT) from None
