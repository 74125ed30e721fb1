"""Events on their way to the sidecar, in the background.

Nothing here holds up the app or raises: what does not fit is dropped, counted and logged. Events keep
their ids, so that sending a batch again, of which nobody knows whether it arrived, counts nothing
twice.
"""

from __future__ import annotations

import json
import logging
import os
import random
import sys
import threading
import time
import weakref
from collections import deque
from dataclasses import dataclass
from itertools import islice
from typing import Any, Callable, Mapping, Optional

from ._http import Answer, Unreachable
from ._sidecar import Complaints, error_text

log = logging.getLogger("spendfuse")

#: Of the sidecar's 10,000 events and 8 MiB.
_MOST_EVENTS = 500
_MOST_BYTES = 2 * 1024 * 1024
#: The sidecar refuses longer ones.
_LONGEST_EVENT = 64 * 1024
#: Bytes of long answers that wait to be read: beyond, they are read where they come.
_MOST_UNREAD = 64 * 1024 * 1024
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0
#: Seconds that the first event of a batch waits for others: sent at once, it would take the interpreter
#: from the call that has just ended.
_GATHER = 0.005
#: Seconds until an event is found whose notice nobody heard.
_UNHEARD = 1.0

Result = Mapping[str, Any]


@dataclass
class Waiting:
    """An event, or a job that makes one (a long answer is read in the background)."""

    event: Optional[bytes] = None
    make: Optional[Callable[[], Optional[bytes]]] = None
    #: Bytes of the answer that waits to be read.
    unread: int = 0
    on_result: Optional[Callable[[Result], None]] = None


class Delivery:
    def __init__(
        self,
        send: Callable[[bytes], Answer],
        complaints: Complaints,
        queue_size: int,
        exit_timeout: float,
    ) -> None:
        self._send = send
        self._complaints = complaints
        self._queue_size = queue_size
        self._exit_timeout = exit_timeout
        self.dropped = 0
        self.rejected = 0
        self.delivered = 0
        self._begin()
        _all.add(self)

    def _begin(self) -> None:
        self._queue: deque[Waiting] = deque()
        # Reentrant: a stream that is collected as garbage tells its call at any moment, this one too.
        self._changed = threading.Condition(threading.RLock())
        self._thread: Optional[threading.Thread] = None
        self._is_sending = False
        #: So many wait for an empty queue now, and have begun to so far.
        self._flushing = 0
        self._flushes = 0
        self._unread = 0
        #: Of a batch: less where somebody on the way takes no more.
        self._most = _MOST_EVENTS

    def after_fork(self) -> None:
        # What waits is the parent's, which sends it; its thread is not here, and its lock may be held
        # by a thread that is not here either.
        self._begin()

    def put(self, waiting: Waiting) -> bool:
        """Whether it will be sent."""
        if waiting.event is not None and len(waiting.event) > _LONGEST_EVENT:
            self.dropped += 1
            self._complaints.say("long", "an event of %d bytes was dropped", len(waiting.event))
            return False
        with self._changed:
            if len(self._queue) >= self._queue_size:
                self.dropped += 1
                self._complaints.say("full", "%d events wait already: new ones are dropped", self._queue_size)
                return False
            self._queue.append(waiting)
            self._unread += waiting.unread
            self._ensure_thread()
            if len(self._queue) in (1, _MOST_EVENTS):
                self._changed.notify_all()
        return True

    def has_room_for(self, unread: int) -> bool:
        """Whether an answer of so many bytes may wait to be read."""
        return self._unread + unread <= _MOST_UNREAD

    def flush(self, timeout: Optional[float] = None) -> bool:
        """Waits until everything that was put is safe; whether it is."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            has_thread = not self._queue or self._ensure_thread()
            self._flushing += 1
            if timeout is None or timeout > 0:
                self._flushes += 1
            self._changed.notify_all()
            try:
                while has_thread and (self._queue or self._is_sending):
                    left = None if deadline is None else deadline - time.monotonic()
                    if left is not None and left <= 0:
                        return False
                    self._changed.wait(left)
            finally:
                self._flushing -= 1
        if not has_thread:
            self._send_here(deadline)
        return not self._queue

    def close(self, timeout: Optional[float] = None) -> bool:
        """The last flush."""
        is_empty = self.flush(self._exit_timeout if timeout is None else timeout)
        if not is_empty:
            log.warning("%d events could not be delivered before the end", len(self._queue))
        return is_empty

    def _ensure_thread(self) -> bool:
        """Only at the first event: a thread that begins with an import is lost where servers fork."""
        if self._thread is not None and self._thread.is_alive():
            return True
        if sys.is_finalizing():
            # A thread that is started now never begins, and whoever starts it waits for that forever.
            return False
        self._thread = threading.Thread(target=self._run, name="spendfuse-delivery", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            # Python starts no thread while it ends.
            self._thread = None
            return False
        _at_end_of_a_worker_process()
        return True

    def _run(self) -> None:
        changed = self._changed
        pause = _FIRST_PAUSE
        while changed is self._changed:
            with changed:
                while not self._queue:
                    # A stream that is collected as garbage may put its event on this very thread, between
                    # the look at the queue and the wait: nobody hears that notice.
                    changed.wait(_UNHEARD)
                if len(self._queue) < _MOST_EVENTS and not self._flushing:
                    changed.wait(_GATHER)
                batch = list(islice(self._queue, self._most))
                self._is_sending = True
                flushes = self._flushes
            waits = 0.0
            try:
                batch = self._within_bounds(batch)
                waits = self._deliver(batch, pause)
            except Exception:  # noqa: BLE001  whatever it is, the next batch is delivered
                log.exception("a batch of %d events was dropped", len(batch))
                self._done(batch)
            finally:
                with changed:
                    self._is_sending = False
                    changed.notify_all()
            pause = min(pause * 2, _LONGEST_PAUSE) if waits else _FIRST_PAUSE
            # Half of it by chance: many processes lose the same sidecar at the same time.
            if waits and self._is_woken(changed, waits * (0.5 + random.random() / 2), flushes):
                pause = _FIRST_PAUSE

    def _is_woken(self, changed: threading.Condition, seconds: float, flushes: int) -> bool:
        """Waits so long, or until somebody waits who did not when there were so many `flushes`: the end of a
        process has less time than the longest pause."""
        deadline = time.monotonic() + seconds
        with changed:
            while changed is self._changed and self._flushes == flushes:
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                changed.wait(left)
        return True

    def _send_here(self, deadline: Optional[float]) -> None:
        while self._queue and (deadline is None or time.monotonic() < deadline):
            with self._changed:
                batch = list(islice(self._queue, self._most))
            if self._deliver(self._within_bounds(batch), _FIRST_PAUSE):
                time.sleep(_FIRST_PAUSE)

    def _deliver(self, batch: list[Waiting], pause: float) -> float:
        """Sends a batch, which stays in the queue until it is safe; seconds to wait before it is sent again, 0 where it is settled."""
        events = [waiting for waiting in batch if waiting.event]
        if not events:
            self._done(batch)
            return 0.0
        body = b"[" + b",".join(waiting.event or b"" for waiting in events) + b"]"
        try:
            answer = self._send(body)
        except Unreachable as error:
            self._complaints.say("delivery", "%d events wait for the sidecar: %s", len(self._queue), error)
            return pause
        if answer.status == 413 and len(events) > 1:
            # Sent again in parts; what was taken before counts once all the same.
            self._most = max(1, len(batch) // 2)
            return 0.0
        self._most = min(self._most * 2, _MOST_EVENTS)
        if answer.status in (202, 400):
            self._settle(events, answer)
        elif answer.status < 400 or answer.status in (401, 403, 404, 405, 408, 429) or answer.status >= 500:
            # A wrong token or address can be put right while events wait.
            reason = error_text(answer)
            self._complaints.say("delivery", "%d events wait; the sidecar answers %s", len(self._queue), reason)
            return max(pause, _retry_after(answer))
        else:
            self.rejected += len(events)
            self._complaints.say("refused", "%d events were refused: %s", len(events), error_text(answer))
        self._done(batch)
        return 0.0

    def _settle(self, events: list[Waiting], answer: Answer) -> None:
        try:
            results = json.loads(answer.body)["results"]
        except (ValueError, KeyError, TypeError):
            results = []
        if not results and answer.status == 400:
            self.rejected += len(events)
            self._complaints.say("rejected", "events were rejected: %s", error_text(answer))
        for result in results:
            if result.get("status") == "rejected":
                self.rejected += 1
                self._complaints.say("rejected", "an event was rejected: %s", result.get("detail"))
                continue
            self.delivered += 1
            on_result = events[result["index"]].on_result
            if on_result is not None:
                on_result(result)

    def _done(self, batch: list[Waiting]) -> None:
        with self._changed:
            for _ in batch:
                self._queue.popleft()
            self._changed.notify_all()

    def _within_bounds(self, batch: list[Waiting]) -> list[Waiting]:
        """As many of `batch` as one request may hold; those that are still to be made are made."""
        length = 0
        for index, waiting in enumerate(batch):
            if waiting.event is None:
                waiting.event = _made(waiting)
                with self._changed:
                    self._unread -= waiting.unread
                waiting.unread = 0
            length += len(waiting.event)
            if index and length > _MOST_BYTES:
                return batch[:index]
        return batch


def _made(waiting: Waiting) -> bytes:
    try:
        made = waiting.make() if waiting.make is not None else None
    except Exception:  # noqa: BLE001  an answer of an unknown form costs its event, not the others
        log.exception("an answer could not be read")
        made = None
    waiting.make = None
    return made or b""


def _retry_after(answer: Answer) -> float:
    try:
        return min(float(answer.headers.get("retry-after", "0")), 60.0)
    except ValueError:
        return 0.0


#: Called before the last flush of the process.
at_end: list[Callable[[], None]] = []
_all: weakref.WeakSet[Delivery] = weakref.WeakSet()


def forget_all() -> None:
    """In a forked child."""
    for delivery in list(_all):
        delivery.after_fork()


def close_all() -> None:
    """When the process ends."""
    for settle in at_end:
        settle()
    for delivery in list(_all):
        delivery.close()


def _at_end_of_a_worker_process() -> None:
    # Children of multiprocessing end by `os._exit`, which no `atexit` function sees.
    util = sys.modules.get("multiprocessing.util")
    if util is not None and _closing.get("process") != os.getpid():
        _closing["process"] = os.getpid()
        util.Finalize(None, close_all, exitpriority=100)


_closing: dict[str, int] = {}
