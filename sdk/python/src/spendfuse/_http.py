"""HTTP/1.1 to one server, over TCP, TLS or a Unix socket, on connections that are kept.

Written out because a check is on the way of every call: `http.client` parses headers as mail, which
takes longer than the sidecar's answer, and cannot hold one deadline over a whole exchange.
"""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from typing import Any, Mapping, Optional, Sequence, Tuple
from urllib.parse import urlsplit

#: Connections that wait for their next use.
_MOST_IDLE = 16
#: Answers are small; this only bounds what a stranger at that address may send.
_LONGEST_ANSWER = 64 * 1024 * 1024
_LONGEST_HEAD = 64 * 1024


class Unreachable(Exception):
    """There was no answer, or none that is HTTP."""


@dataclass(frozen=True)
class Answer:
    status: int
    #: Names in lower case.
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Address:
    scheme: str
    host: str
    port: int
    #: What goes before every path; of a Unix socket its own path.
    path: str

    @classmethod
    def parse(cls, url: str) -> Address:
        if url.startswith("unix:"):
            path = url[len("unix:") :]
            path = path[2:] if path.startswith("//") else path
            if not path:
                raise ValueError(f"{url!r} names no socket; write unix:/path/of/the.sock")
            return cls("unix", "localhost", 0, path)
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is no address of a sidecar; write http://host:port, https://host or unix:/path")
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return cls(parts.scheme, parts.hostname, port, parts.path.rstrip("/"))


#: As `socket.getaddrinfo` gives it.
_Place = Tuple[int, int, int, str, Any]


class _Resolution:
    def __init__(self, host: str, port: int) -> None:
        self._named = host, port
        self.found: Sequence[_Place] = ()
        self.error: Optional[Exception] = None
        self.done = threading.Event()

    def ask(self) -> None:
        try:
            self.found = socket.getaddrinfo(*self._named, type=socket.SOCK_STREAM)
        except Exception as error:  # noqa: BLE001  raised where it is waited for
            self.error = error if isinstance(error, OSError) else OSError(str(error))
        self.done.set()


class Server:
    """One server, asked from any thread."""

    def __init__(self, url: str, token: Optional[str] = None) -> None:
        self._address = Address.parse(url)
        host = self._address.host
        named = f"[{host}]" if ":" in host else host
        if self._address.scheme != "unix" and self._address.port not in (80, 443):
            named = f"{named}:{self._address.port}"
        head = f"Host: {named}\r\nUser-Agent: spendfuse-python\r\nAccept: application/json\r\n"
        if token:
            if not token.isascii() or any(ord(character) < 32 for character in token):
                raise ValueError("the token holds characters that no header can hold")
            head += f"x-spendfuse-token: {token}\r\n"
        self._head = head
        self._prefix = "" if self._address.scheme == "unix" else self._address.path
        self._tls = ssl.create_default_context() if self._address.scheme == "https" else None
        self._idle: list[_Connection] = []
        self._lock = threading.Lock()
        self._resolving: Optional[_Resolution] = None

    def ask(self, method: str, path: str, body: bytes = b"", *, timeout: float, connects: Optional[float] = None) -> Answer:
        """One request and its answer within `timeout` seconds; a connection within `connects`, if less.

        It may be sent twice: a kept connection that the server has closed meanwhile says so only when
        it is used. Everything that is asked here bears that: ids and reservations do.
        """
        began = time.monotonic()
        deadline = began + timeout
        connected = deadline if connects is None else min(deadline, began + connects)
        head = f"{method} {self._prefix}{path} HTTP/1.1\r\n{self._head}"
        if body or method == "POST":
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        request = head.encode("ascii") + b"\r\n" + body
        connection = self._take()
        if connection is not None:
            try:
                return self._exchange(connection, request, deadline)
            except _ClosedBefore:
                pass
            except (OSError, ValueError) as error:
                raise Unreachable(_words(error)) from error
        try:
            return self._exchange(_Connection(self._open(connected)), request, deadline)
        except (OSError, ValueError) as error:
            raise Unreachable(_words(error)) from error

    def forget_connections(self) -> None:
        """In a forked child: they are the parent's, and its answers would be mixed with ours."""
        idle, self._idle, self._lock = self._idle, [], threading.Lock()
        self._resolving = None
        for connection in idle:
            connection.close()

    def _take(self) -> Optional[_Connection]:
        while True:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            if connection is None or connection.is_trusted:
                return connection
            connection.close()

    def _exchange(self, connection: _Connection, request: bytes, deadline: float) -> Answer:
        try:
            answer, keeps = connection.exchange(request, deadline)
        except BaseException:
            connection.close()
            raise
        with self._lock:
            if keeps and len(self._idle) < _MOST_IDLE:
                self._idle.append(connection)
                return answer
        connection.close()
        return answer

    def _open(self, deadline: float) -> socket.socket:
        address = self._address
        if address.scheme == "unix":
            unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                unix.settimeout(_left(deadline))
                unix.connect(os.fspath(address.path))
            except BaseException:
                unix.close()
                raise
            return unix
        plain = self._connected(self._resolved(deadline), deadline)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is None:
            return plain
        plain.settimeout(_left(deadline))
        return self._tls.wrap_socket(plain, server_hostname=address.host)

    def _resolved(self, deadline: float) -> Sequence[_Place]:
        """Where the server is. A name server that does not answer takes half a minute, which nothing bounds
        and nothing ends: so it is asked on a thread, one at a time."""
        question = self._resolving
        if question is None or question.done.is_set():
            question = self._resolving = _Resolution(self._address.host, self._address.port)
            try:
                threading.Thread(target=question.ask, name="spendfuse-resolve", daemon=True).start()
            except RuntimeError:
                # Python starts no thread while it ends.
                question.ask()
        if not question.done.wait(_left(deadline)):
            raise TimeoutError(f"the name {self._address.host} was not resolved in time")
        if question.error is not None:
            raise question.error
        return question.found

    @staticmethod
    def _connected(places: Sequence[_Place], deadline: float) -> socket.socket:
        for number, (family, kind, protocol, _, place) in enumerate(places):
            stream = socket.socket(family, kind, protocol)
            try:
                # One that does not answer leaves the others their part of the time.
                stream.settimeout(_left(deadline) / (len(places) - number))
                stream.connect(place)
                return stream
            except OSError:
                stream.close()
                if number + 1 == len(places):
                    raise
        raise OSError("the name has no address")


class _ClosedBefore(OSError):
    """Not a byte of an answer came."""


class _Connection:
    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream
        self._read = b""

    def close(self) -> None:
        try:
            self._stream.close()
        except OSError:
            pass

    @property
    def is_trusted(self) -> bool:
        """Whether it is open, and nothing has come that nobody has asked for: it would be taken for the answer to
        the next question."""
        if self._read:
            return False
        if isinstance(self._stream, ssl.SSLSocket):
            # What has come may be of TLS itself.
            return self._stream.pending() == 0
        try:
            self._stream.settimeout(0)
            self._stream.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def exchange(self, request: bytes, deadline: float) -> tuple[Answer, bool]:
        try:
            self._stream.settimeout(_left(deadline))
            self._stream.sendall(request)
            self._more(deadline)
        except (ConnectionError, EOFError) as error:
            raise _ClosedBefore(_words(error)) from error
        try:
            return self._answer(deadline)
        except EOFError as error:
            raise ConnectionResetError("the answer broke off") from error

    def _answer(self, deadline: float) -> tuple[Answer, bool]:
        while True:
            while (end := self._read.find(b"\r\n\r\n")) < 0:
                if len(self._read) > _LONGEST_HEAD:
                    raise ValueError("the head of the answer has no end")
                self._more(deadline)
            lines = self._read[:end].decode("latin-1").split("\r\n")
            self._read = self._read[end + 4 :]
            version, _, rest = lines[0].partition(" ")
            if not version.startswith("HTTP/1.") or not rest[:3].isdigit():
                raise ValueError("the answer is not HTTP/1.1")
            status = int(rest[:3])
            if status >= 200:
                break
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        keeps = version == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
        if status in (204, 304):
            body = b""
        elif headers.get("transfer-encoding", "").lower() == "chunked":
            body = self._chunked(deadline)
        elif "content-length" in headers:
            body = self._exactly(int(headers["content-length"]), deadline)
        else:
            body, keeps = self._to_the_end(deadline), False
        return Answer(status, headers, body), keeps

    def _exactly(self, length: int, deadline: float) -> bytes:
        if length > _LONGEST_ANSWER:
            raise ValueError("the answer is too long")
        while len(self._read) < length:
            self._more(deadline)
        body, self._read = self._read[:length], self._read[length:]
        return body

    def _chunked(self, deadline: float) -> bytes:
        body = bytearray()
        while True:
            while (end := self._read.find(b"\r\n")) < 0:
                self._more(deadline)
            length = int(self._read[:end].split(b";")[0], 16)
            self._read = self._read[end + 2 :]
            body += self._exactly(length, deadline)
            if len(body) > _LONGEST_ANSWER:
                raise ValueError("the answer is too long")
            if length:
                self._exactly(2, deadline)
                continue
            # Trailers, up to an empty line.
            while self._read[:2] != b"\r\n":
                end = self._read.find(b"\r\n")
                if end < 0:
                    self._more(deadline)
                else:
                    self._read = self._read[end + 2 :]
            self._read = self._read[2:]
            return bytes(body)

    def _to_the_end(self, deadline: float) -> bytes:
        try:
            while len(self._read) < _LONGEST_ANSWER:
                self._more(deadline)
        except EOFError:
            pass
        body, self._read = self._read, b""
        return body

    def _more(self, deadline: float) -> None:
        self._stream.settimeout(_left(deadline))
        more = self._stream.recv(65536)
        if not more:
            raise EOFError("the server has closed the connection")
        self._read += more


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__
