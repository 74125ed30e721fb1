"""`mode="watch"`: follows the blocklist in the background and decides in this process.

One thread asks for what has changed and waits for the answer at the sidecar. A check asks nobody. It
starts with the first check, again in each forked process, and ends when nobody has the client any more.
"""

from __future__ import annotations

import json
import random
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Mapping, Optional
from urllib.parse import quote

from ._config import Config
from ._decision import Decision
from ._http import Answer, Server, Unreachable
from ._standings import MOST_ENTRIES, Standings

if TYPE_CHECKING:
    from ._sidecar import Complaints

#: Seconds that a request waits for a change; less where state is stale sooner.
_LONGEST_WAIT = 5.0
#: Seconds for an answer beyond its wait.
_PATIENCE = 10.0
#: Seconds that the very first check waits until anything is known.
_FIRST_WAIT = 2.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0


class Watch:
    def __init__(self, config: Config, complaints: Complaints) -> None:
        self._config = config
        self._complaints = complaints
        self._standings: Optional[Standings] = None
        #: What is being read from the beginning, while what was known before still counts.
        self._coming: Optional[Standings] = None
        self._cursor: Optional[str] = None
        self._begin()

    def _begin(self) -> None:
        self._server = Server(self._config.url, self._config.token)
        self._lock = threading.Lock()
        self._thread: Optional[threading.Thread] = None
        #: Something is known, or it was tried in vain.
        self._has_tried = threading.Event()
        #: Until when checks wait for that; `None` before the first.
        self._known_by: Optional[float] = None
        self._may_wait = True
        self._stopped = False

    def after_fork(self) -> None:
        # What is known stays, and grows old until the child's own thread hears more. A page that was
        # half taken is taken again, because its cursor is kept only after it.
        self._begin()
        if self._coming is not None:
            self._coming = self._cursor = None

    @property
    def is_ready(self) -> bool:
        """Whether a check takes no time."""
        return self._standings is not None or self._has_tried.is_set() or self._patience == 0

    @property
    def _patience(self) -> float:
        """Seconds that are left of the first wait, which all have in common."""
        return _FIRST_WAIT if self._known_by is None else max(self._known_by - time.monotonic(), 0)

    def check(self, question: Mapping[str, Any]) -> Optional[Decision]:
        """`None` where nothing is known."""
        self._ensure_thread()
        if self._standings is None:
            self._has_tried.wait(self._patience)
        standings = self._standings
        if standings is None:
            return None
        if question.get("reserve"):
            self._complaints.say("watch", 'mode="watch" cannot reserve: calls go by what is spent')
        return Decision.read(standings.decide(question, time.monotonic() * 1000))

    def stop(self) -> None:
        """The thread ends with its request; a check starts another one."""
        self._stopped = True

    def _ensure_thread(self) -> None:
        if self._thread is not None and self._thread.is_alive() and not self._stopped:
            return
        with self._lock:
            if self._thread is not None and self._thread.is_alive() and not self._stopped:
                return
            self._stopped = False
            if self._known_by is None:
                self._known_by = time.monotonic() + _FIRST_WAIT
            thread = threading.Thread(target=_follow, args=(weakref.ref(self),), name="spendfuse-watch", daemon=True)
            self._thread = thread
            try:
                thread.start()
            except RuntimeError:
                # Python starts no thread while it ends.
                self._has_tried.set()

    # -- In the thread

    def request(self) -> tuple[Server, str, float]:
        """What to ask next, and for how many seconds it waits there."""
        wait = 0.0
        path = "/v1/blocklist?view=standings"
        if self._cursor is not None:
            path += f"&cursor={quote(self._cursor, safe='')}"
            if self._may_wait and self._coming is None and self._standings is not None:
                wait = min(_LONGEST_WAIT, self._standings.longest_wait)
                path += f"&wait={int(wait * 1000)}ms"
        return self._server, path, wait

    def take(self, answer: Answer, asked_at: float) -> float:
        """Takes an answer; seconds until the next request, 0 where there is no reason to wait."""
        if answer.status == 410:
            self._coming = self._cursor = None
            return 0.0
        if answer.status != 200:
            # Where too many wait already, this one asks now and then.
            self._may_wait = answer.status != 503
            from ._sidecar import error_text

            self._complaints.say("watch", "the blocklist cannot be followed: %d, %s", answer.status, error_text(answer))
            self._has_tried.set()
            return _FIRST_PAUSE
        page = json.loads(answer.body)
        if "waited_ms" not in page:
            raise ValueError("the sidecar is older than this SDK: it knows no view=standings")
        if self._cursor is None:
            self._coming = Standings()
        standings = self._standings if self._coming is None else self._coming
        assert standings is not None
        standings.take(page, asked_at * 1000 + page["waited_ms"])
        self._cursor = page["cursor"]
        if standings.left_out:
            self._complaints.say(
                "watch", "the blocklist has more than %d entries: %d are not known here", MOST_ENTRIES, standings.left_out
            )
        if self._coming is not None and not page["more"]:
            self._standings, self._coming = self._coming, None
            self._has_tried.set()
        waited, self._may_wait = self._may_wait, True
        return 0.0 if waited or page["more"] else 1.0

    def missed(self, error: Exception) -> None:
        self._complaints.say("watch", "the blocklist cannot be followed at %s: %s", self._config.url, error)
        self._has_tried.set()


def _follow(watch_of: weakref.ref[Watch]) -> None:
    """Holds the `Watch` only between requests, so that it can be collected."""
    own = threading.current_thread()
    pause = _FIRST_PAUSE
    while True:
        watch = watch_of()
        if watch is None or watch._stopped or watch._thread is not own:
            return
        server, path, wait = watch.request()
        del watch
        asked_at = time.monotonic()
        answer, failure = None, None
        try:
            answer = server.ask("GET", path, timeout=wait + _PATIENCE)
        except Unreachable as error:
            failure = error
        watch = watch_of()
        if watch is None or watch._thread is not own:
            return
        waits = 0.0
        try:
            if answer is None:
                raise failure or Unreachable()
            waits = watch.take(answer, asked_at)
        except Exception as error:  # noqa: BLE001  whatever is answered, the next answer may be better
            watch.missed(error)
            waits = _FIRST_PAUSE
        del watch
        if not waits:
            pause = _FIRST_PAUSE
            continue
        # Half of it by chance: many processes lose the same sidecar at the same time.
        time.sleep(max(waits, pause) * (0.5 + random.random() / 2))
        pause = min(pause * 2, _LONGEST_PAUSE)
