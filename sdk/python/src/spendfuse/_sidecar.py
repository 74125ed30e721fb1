"""What the sidecar is asked, and what becomes of it while it cannot be reached."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Mapping, Optional
from urllib.parse import quote, urlencode

from ._config import Config
from ._decision import Decision
from ._errors import SpendfuseError
from ._http import Answer, Server, Unreachable
from ._watch import Watch

log = logging.getLogger("spendfuse")

#: So many failures in a row, and nobody asks for a while.
_FAILURES = 3
_PAUSE = 1.0
#: Threads that ask for coroutines; each for a millisecond or for `check_timeout`.
_ASKING_THREADS = 8
#: The same for checks that reserve, which may have to wait: the others must not wait behind them.
_RESERVING_THREADS = 64
#: The same complaint is logged once in so many seconds.
_COMPLAIN_EVERY = 60.0
_MOST_KINDS = 100
_SESSION_LIMIT = "session_limit_usd"

_encode = json.JSONEncoder(separators=(",", ":")).encode

UNAVAILABLE_ALLOWED = Decision("allow", state="unavailable")
UNAVAILABLE_BLOCKED = Decision("block", state="unavailable")


class Complaints:
    """Logs the same kind of trouble once a minute, and how often it came."""

    def __init__(self) -> None:
        #: By kind: when it was logged, and how often it came since.
        self._kinds: dict[str, tuple[float, int]] = {}

    def say(self, kind: str, message: str, *details: object) -> None:
        now = time.monotonic()
        if len(self._kinds) > _MOST_KINDS:
            self._kinds.clear()
        last, count = self._kinds.get(kind, (now - _COMPLAIN_EVERY, 0))
        count += 1
        if now - last >= _COMPLAIN_EVERY:
            log.warning(message + (f" ({count} times)" if count > 1 else ""), *details)
            last, count = now, 0
        self._kinds[kind] = (last, count)


class Breaker:
    """Keeps calls from waiting for a sidecar that does not answer: after some failures in a row one
    call a second tries again, the others do not."""

    def __init__(self) -> None:
        self._failures = 0
        self._again_at = 0.0

    def is_open(self) -> bool:
        return self._failures >= _FAILURES and time.monotonic() < self._again_at

    def lets_through(self) -> bool:
        if self.is_open():
            return False
        if self._failures >= _FAILURES:
            # The others wait until this one is back.
            self._again_at = time.monotonic() + _PAUSE
        return True

    def succeeded(self) -> None:
        self._failures = 0

    def failed(self) -> None:
        self._failures += 1
        self._again_at = time.monotonic() + _PAUSE


class Sidecar:
    def __init__(self, config: Config) -> None:
        self._config = config
        self._server = Server(config.url, config.token)
        self._breaker = Breaker()
        #: By whether they reserve.
        self._asking: dict[bool, ThreadPoolExecutor] = {}
        self._lock = threading.Lock()
        #: Whether it knows limits that a session brings along; `None` until a check has told.
        self.takes_session_limits: Optional[bool] = None
        self.complaints = Complaints()
        self.watch = Watch(config, self.complaints) if config.mode == "watch" else None
        #: Calls that were decided without the sidecar.
        self.undecided = 0

    def after_fork(self) -> None:
        self._server.forget_connections()
        # Its threads are not here.
        self._asking = {}
        self._lock = threading.Lock()
        self._breaker = Breaker()
        if self.watch is not None:
            self.watch.after_fork()

    def check(self, question: Mapping[str, Any]) -> Decision:
        """Never raises for what the sidecar does or does not: `on_unavailable` decides then."""
        if self._config.disabled:
            return UNAVAILABLE_ALLOWED
        if self.watch is not None:
            return self.watch.check(question) or self._without()
        if not self._breaker.lets_through():
            return self._without()
        if self.takes_session_limits is False:
            question = _without_session_limit(question)
        try:
            answer = self._ask(question)
        except Unreachable as error:
            self._breaker.failed()
            self.complaints.say("unreachable", "the sidecar at %s does not answer: %s", self._config.url, error)
            return self._without()
        self._breaker.succeeded()
        if self._refuses_session_limit(question, answer):
            return self.check(_without_session_limit(question))
        if answer.status == 200:
            try:
                return Decision.read(json.loads(answer.body))
            except Exception as error:  # noqa: BLE001  whatever it is, it is no answer
                self.complaints.say("answer", "the answer to a check cannot be read: %s", error)
                return self._without()
        if answer.status == 503 and question.get("reserve"):
            # Nothing more can be held; what is spent still counts.
            return self.check({name: value for name, value in question.items() if name != "reserve"})
        self.complaints.say("check", "a check was answered %d: %s", answer.status, error_text(answer))
        return self._without()

    def _ask(self, question: Mapping[str, Any]) -> Answer:
        connects = self._config.check_timeout
        # A call that is let go because nobody waited for its place is what reserving is to prevent.
        timeout = max(connects, self._config.reserve_timeout) if question.get("reserve") else connects
        return self._server.ask("POST", "/v1/check", _json(question), timeout=timeout, connects=connects)

    async def acheck(self, question: Mapping[str, Any]) -> Decision:
        """As `check`, without holding up the event loop."""
        if self._config.disabled:
            return UNAVAILABLE_ALLOWED
        if self.watch is not None and self.watch.is_ready:
            return self.check(question)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            # Another loop (trio): a check takes less than a millisecond, and its time-out at most.
            return self.check(question)
        if self._breaker.is_open():
            return self._without()
        reserves = bool(question.get("reserve"))
        with self._lock:
            if reserves not in self._asking:
                threads = _RESERVING_THREADS if reserves else _ASKING_THREADS
                self._asking[reserves] = ThreadPoolExecutor(threads, "spendfuse-check")
            asking = self._asking[reserves]
        try:
            answered = asking.submit(self.check, question)
        except RuntimeError:
            # The interpreter is going down and starts no thread any more.
            return self.check(question)
        try:
            return await asyncio.wrap_future(answered, loop=loop)
        except asyncio.CancelledError:
            # Nobody makes the call that is asked about.
            answered.add_done_callback(self._release_unheard)
            raise

    def _release_unheard(self, answered: Future[Decision]) -> None:
        decision = None if answered.cancelled() or answered.exception() else answered.result()
        if decision is not None and decision.reservation_id is not None:
            self.release(decision.reservation_id)

    def _refuses_session_limit(self, question: Mapping[str, Any], answer: Answer) -> bool:
        """Whether `answer` refuses the limit that a session brings along; remembers what it says of such
        limits. Any other status may be of another trouble, and says nothing."""
        if _SESSION_LIMIT not in question:
            return False
        is_named = _SESSION_LIMIT.encode() in answer.body
        if answer.status == 200:
            # An older one warns that it does not know the field, and names it.
            self.takes_session_limits = b"unknown_field" not in answer.body or not is_named
            return False
        if answer.status != 400 or not is_named:
            return False
        self.takes_session_limits = False
        return True

    def try_session_limit(self, question: Mapping[str, Any]) -> None:
        """Asks whether limits of sessions are known, where no check has told, as none does by `watch`."""
        if self.takes_session_limits is not None or not self._breaker.lets_through():
            return
        try:
            self._refuses_session_limit(question, self._ask(question))
            self._breaker.succeeded()
        except Unreachable:
            self._breaker.failed()

    def release(self, reservation: str) -> None:
        try:
            self._server.ask("DELETE", f"/v1/reservations/{quote(reservation, safe='')}", timeout=1.0)
        except Unreachable:
            # It ends by itself after its time.
            pass

    def usage(self, events: bytes) -> Answer:
        """Raises `Unreachable`."""
        try:
            return self._server.ask("POST", "/v1/usage", events, timeout=self._config.delivery_timeout)
        except Unreachable:
            self._breaker.failed()
            raise

    @property
    def is_away(self) -> bool:
        """It did not answer several times in a row, just now."""
        return self._breaker.is_open()

    def state(self, **who: Optional[str]) -> Mapping[str, Any]:
        """Raises `SpendfuseError` where there is no answer: somebody wants to see it."""
        query = urlencode({name: value for name, value in who.items() if value is not None})
        try:
            answer = self._server.ask("GET", f"/v1/state?{query}", timeout=1.0)
        except Unreachable as error:
            raise SpendfuseError(f"the sidecar at {self._config.url} does not answer: {error}") from error
        if answer.status != 200:
            raise SpendfuseError(f"the sidecar answered {answer.status}: {error_text(answer)}")
        state: Mapping[str, Any] = json.loads(answer.body)
        return state

    def _without(self) -> Decision:
        self.undecided += 1
        return UNAVAILABLE_BLOCKED if self._config.on_unavailable == "block" else UNAVAILABLE_ALLOWED


def error_text(answer: Answer) -> str:
    try:
        error = json.loads(answer.body)["error"]
        return f"{error['code']}: {error['message']}"
    except (ValueError, KeyError, TypeError):
        return "no reason that can be read"


def _without_session_limit(question: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: value for name, value in question.items() if name != _SESSION_LIMIT}


def _json(value: Mapping[str, Any]) -> bytes:
    return whole(_encode(value)).encode()


#: A pair of surrogates, a backslash that is one, or what is left: half a pair.
_ESCAPES = re.compile(r"(\\\\|\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2})|\\ud[89a-f][0-9a-f]{2}")


def whole(text: str) -> str:
    """JSON of ASCII without halves of surrogate pairs, which are no text to the sidecar: it would refuse a
    question with one, and a whole batch of events."""
    return _ESCAPES.sub(lambda found: found[1] or "\\ufffd", text) if "\\ud" in text else text
