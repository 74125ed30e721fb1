"""An answer while it goes by, and what is read of it."""

from __future__ import annotations

import weakref
import zlib
from typing import TYPE_CHECKING, Any, Callable, Mapping, Optional, Protocol, Union

from ._delivery import at_end
from ._pieces import Elements, Events
from ._seen import Seen

if TYPE_CHECKING:
    from ._call import Call

#: A longer answer (embeddings of a book) is read by the thread that delivers, not on the app's.
_LONG_ANSWER = 64 * 1024
#: Beyond, an answer is charged by estimate.
_LONGEST_ANSWER = 32 * 1024 * 1024


class Watch:
    """Reads an answer while it goes by. What comes out is what goes on to the app."""

    def __init__(self, call: Call, headers: Mapping[bytes, bytes], request_id: Optional[str]) -> None:
        self._call = call
        self._request_id = request_id
        self._seen = Seen()
        self._encoding = headers.get(b"content-encoding", b"identity").decode("latin-1").lower()
        content_type = headers.get(b"content-type", b"")
        self._pieces: Union[Events, Elements, None] = None
        if content_type.startswith(b"text/event-stream"):
            self._pieces = Events()
        elif call.route.streams:
            self._pieces = Elements()
        if self._encoding != "identity":
            # Compressed although that was not asked for: as it is, and by estimate.
            self._pieces = None
        self._strips = call.asks_usage and isinstance(self._pieces, Events)
        self._whole: list[bytes] = []
        self._length = 0
        is_under_way(self)

    def is_read_already(self, response: Any) -> bool:
        """Whether a transport gave an answer that it has read, as caches and mocks do; then it is taken."""
        if not hasattr(response, "_content"):
            return False
        self._encoding = "identity"
        self.push(response.content)
        self.end()
        return True

    def push(self, chunk: bytes) -> list[bytes]:
        self._length += len(chunk)
        if self._pieces is None:
            if self._length <= _LONGEST_ANSWER:
                self._whole.append(chunk)
            return [chunk]
        kept = [piece for piece in self._pieces.push(chunk) if not (self._take(piece) and self._strips)]
        # Where nothing is taken out, the bytes go on as they came.
        return kept if self._strips else [chunk]

    def end(self) -> list[bytes]:
        """The answer is complete; what is left of it."""
        rest = b""
        if self._pieces is not None:
            rest = self._pieces.rest()
            is_usage = self._take(rest) if rest else False
            rest = rest if self._strips and not is_usage else b""
        self.settle()
        return [rest] if rest else []

    def forget(self) -> None:
        self._call.is_settled = True

    def settle(self) -> None:
        """The answer is at its end, as far as anybody will read it."""
        is_over(self)
        call, whole = self._call, b"".join(self._whole)
        self._whole = []
        if call.is_settled:
            return
        if self._pieces is not None:
            call.settle(self._seen, self._request_id)
            return
        data = _decoded(whole, self._encoding)
        if data is not None and len(data) > _LONG_ANSWER:
            call.settle(self._seen, self._request_id, later=data)
            return
        if data is not None:
            self._read(data)
        if not self._seen.is_read:
            # Cut, or compressed by other means: by its length.
            self._seen.generated = self._length
        call.settle(self._seen, self._request_id)

    def _take(self, piece: bytes) -> bool:
        if self._seen.take_text(self._call.route, piece):
            return False
        read: Callable[[bytes], bytes] = Events.json if isinstance(self._pieces, Events) else Elements.json
        return self._read(read(piece))

    def _read(self, data: bytes) -> bool:
        try:
            return self._seen.take(self._call.route, data)
        except Exception as error:  # noqa: BLE001  an answer of an unknown form is the app's all the same
            self._call.complain("an answer cannot be read, and is charged by estimate: %r", error)
            return False


class Reading(Protocol):
    """An answer that somebody reads, or has forgotten."""

    def settle(self) -> None: ...

    def forget(self) -> None: ...


_under_way: dict[int, weakref.ref[Reading]] = {}


def is_under_way(reading: Reading) -> None:
    """Settled when the process ends, and forgotten in a forked child; until `is_over`."""
    _under_way[id(reading)] = weakref.ref(reading)


def is_over(reading: Reading) -> None:
    _under_way.pop(id(reading), None)


def _settle_all() -> None:
    """At the end of the process nobody reads on, and afterwards nothing is told any more."""
    for reading in _all_under_way():
        reading.settle()


def forget_all() -> None:
    """In a forked child: they are the parent's, which tells what they cost."""
    for reading in _all_under_way():
        reading.forget()


def _all_under_way() -> list[Reading]:
    return [reading for one in list(_under_way.values()) if (reading := one()) is not None]


at_end.append(_settle_all)


def _decoded(body: bytes, encoding: str) -> Optional[bytes]:
    if encoding == "identity":
        return body
    try:
        if encoding in ("gzip", "x-gzip"):
            return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(body, _LONGEST_ANSWER)
        if encoding == "deflate":
            return zlib.decompressobj().decompress(body, _LONGEST_ANSWER)
    except zlib.error:
        pass
    return None


