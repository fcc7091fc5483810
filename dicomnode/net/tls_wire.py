"""A TLS connection, for both roles: `Wire` with what goes over the socket encrypted."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from typing import ClassVar, Final, cast

from dicomnode.errors import AssociationLostError
from dicomnode.net.certificates import peer_certificate
from dicomnode.net.pdu import StoppedError, Wire
from dicomnode.net.tls import explain

_RECORDS_BYTES: Final = 1 << 16  # four TLS records of the largest size a system call


class TlsError(AssociationLostError):
    """TLS failed: no handshake was possible, the other side refused what we are, or a record is damaged."""


class TlsWire(Wire):
    """OpenSSL works in memory and never sees the socket: time-outs, `stop` and `cut` are those of a plain connection,
    and a thread that writes does not wait for one that reads.

    called_host  the host that we called, whose name the other side's certificate may have to bear; None: it called us
    """

    sends_files: ClassVar[bool] = False

    def __init__(
        self, connection: socket.socket, address: str, context: ssl.SSLContext, called_host: str | None = None
    ) -> None:
        super().__init__(connection, address)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, called_host is None, called_host)
        self._records = memoryview(bytearray(_RECORDS_BYTES))
        self._early = b""  # decrypted before it was asked for
        self._using = threading.Lock()  # OpenSSL's object: one thread at a time
        self._sending = threading.Lock()  # records leave in the order in which they were made; taken before `_using`

    def secure(self) -> None:
        """Do the handshake within one time-out. Raises TlsError, and AssociationLostError as `read` does."""
        deadline = time.monotonic() + self._timeout_s
        try:
            while not self._shake_hands():
                if not self._feed(deadline):
                    raise AssociationLostError("the other side closed the connection", "its log may say why")
        except ssl.SSLError as error:
            raise TlsError(*explain(error)) from None
        except OSError as error:
            what = "took too long" if isinstance(error, BlockingIOError) else f"broke off: {error.strerror}"
            raise AssociationLostError(
                f"the TLS handshake {what}", "it may not speak TLS on this port: look at its log"
            ) from None
        self.certificate = peer_certificate(self._tls)
        self.is_secured = True

    def is_silent(self) -> bool:
        if self._start < self._end or self._early:
            return False
        try:
            while received := self._socket.recv_into(self._records, 0, socket.MSG_DONTWAIT):
                self._incoming.write(self._records[:received])
            return False
        except BlockingIOError:
            pass
        except OSError:
            return False
        early = bytearray(1)
        try:  # what came may be TLS's own, such as tickets for a next session
            is_silent = self._decrypt(memoryview(early)) is None
        except ssl.SSLError:
            return False
        self._early = b"" if is_silent else bytes(early)
        return is_silent

    def close(self) -> None:
        """Say that nothing more comes (close_notify, RFC 8446 6.1), and wait for no answer."""
        if self._sending.acquire(blocking=False):
            with contextlib.suppress(OSError), self._using:  # ssl.SSLWantReadError: the answer
                self._tls.unwrap()
            with contextlib.suppress(OSError):
                self._socket.send(self._outgoing.read(), socket.MSG_DONTWAIT)
            self._sending.release()
        super().close()

    def _shake_hands(self) -> bool:
        """Go on with the handshake as far as what was received allows; whether it is done."""
        try:
            self._tls.do_handshake()
            return True
        except ssl.SSLWantReadError:
            return False
        finally:  # an alert goes out too
            self._flush()

    def _feed(self, deadline: float) -> bool:
        """Hand OpenSSL what the socket has; whether it had not ended. A trickle is a time-out too."""
        if self._stopped.is_set():
            raise StoppedError("this node is stopping")
        if time.monotonic() > deadline:
            raise BlockingIOError
        received = super()._receive_once(self._records)
        if received:
            self._incoming.write(self._records[:received])
        else:
            self._incoming.write_eof()
        return received > 0

    def _receive_once(self, view: memoryview) -> int:
        if self._early:
            view[:1], self._early = self._early, b""
            return 1
        deadline = time.monotonic() + self._timeout_s
        try:
            while (taken := self._decrypt(view)) is None:
                self._feed(deadline)
        except ssl.SSLError as error:
            raise TlsError(*explain(error)) from None
        return taken

    def _decrypt(self, view: memoryview) -> int | None:
        """Fill the view with what was received; how much it is, 0 at the end, None where more has to come first."""
        filled = 0
        with self._using:
            with contextlib.suppress(ssl.SSLWantReadError):
                while filled < len(view):
                    read = cast(int, self._tls.read(len(view) - filled, view[filled:]))
                    if not read:
                        return filled
                    filled += read
            has_answer = self._outgoing.pending > 0  # as TLS 1.3 wants one to a new key
        if has_answer:
            self._flush()
        return filled or None

    def _transmit(self, parts: Sequence[bytes | memoryview]) -> None:
        with self._sending:
            with self._using:
                left = memoryview(b"".join(parts))
                while left:
                    left = left[self._tls.write(left) :]
                records = self._outgoing.read()
            super()._transmit([records])

    def _flush(self) -> None:
        """Send what OpenSSL wants to say by itself; a thread that is sending takes it along with what it sends next."""
        if self._sending.acquire(blocking=False):
            try:
                with self._using:
                    records = self._outgoing.read()
                if records:
                    super()._transmit([records])
            finally:
                self._sending.release()
