"""What calls cost and what customers pay, as events on their way to the sidecar."""

from __future__ import annotations

import json
from collections import OrderedDict
from datetime import datetime, timezone
from decimal import Decimal, InvalidOperation
from typing import Any, Callable, Mapping, Optional, Union

from . import _usage
from ._config import Config
from ._context import checked, current, current_session, merged
from ._delivery import Delivery, Result, Waiting
from ._ids import fresh
from ._routes import source_of
from ._sidecar import Sidecar, whole

#: Made once: `json.dumps` makes one for each call that wants something of its own.
_encode = json.JSONEncoder(separators=(",", ":"), default=str, allow_nan=False).encode

Money = Union[str, int, Decimal]

#: Calls that were told of already: by wrapped clients, and by `add_usage` of the same response.
_REMEMBERED = 4096

REVENUE = "spendfuse.revenue"

#: Members of an event that `track` passes on as they are.
MEMBERS = frozenset(
    "provider request_model operation service_tier speed inference_geo usage_format units tool_calls "
    "prompt_fingerprint tool_fingerprint call_id attempt status latency_ms region api_key_id response_id "
    "flags reported_cost_usd reservation_id trace_id span_id parent_span_id source time".split()
)


def encoded(event: Mapping[str, Any]) -> bytes:
    # Not a number is not JSON: one such event would make a whole batch unreadable.
    return whole(_encode(event)).encode()


def amount(value: Money) -> str:
    """Money as the sidecar reads it: of very small or large amounts Python's own text has an exponent, which
    it refuses. What is no number is left to it."""
    try:
        return format(Decimal(str(value)), "f")
    except InvalidOperation:
        return str(value)


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _fresh_id() -> str:
    return f"py-{fresh()}"


class Telling:
    config: Config
    sidecar: Sidecar
    delivery: Delivery

    def __init__(self) -> None:
        self._told: OrderedDict[str, None] = OrderedDict()

    def track(
        self,
        response: Any = None,
        *,
        model: Optional[str] = None,
        usage: Optional[Mapping[str, Any]] = None,
        revenue_usd: Optional[Money] = None,
        id: Optional[str] = None,
        **told: Any,
    ) -> Optional[str]:
        """Tells of a call (`model` and `usage`, or a provider's `response`) or of what a customer paid
        (`revenue_usd`). The event's id, or `None` where nothing was told. Raises nothing.

        An `id` of your own (an invoice, a job) makes telling again harmless.
        """
        try:
            if revenue_usd is not None:
                if usage is not None or response is not None:
                    self.track(response, model=model, usage=usage, **told)
                data = {"type": REVENUE, "revenue_usd": format(Decimal(str(revenue_usd)), "f")}
                return self.tell({**data, "id": id or _fresh_id()}, told)
            if response is not None:
                return self.add_usage(response, model=model, id=id, **told)
            event = self.event_of(None, usage, model, {**told, "id": id})
            if event is None:
                raise TypeError("a call needs model and usage (or the provider's response), a payment revenue_usd")
            return self.tell(event, told)
        except Exception as error:  # noqa: BLE001  an app does not fail because it is watched
            self.sidecar.complaints.say(f"track: {error}", "an event was not told: %s", error)
            return None

    def add_usage(self, response: Any, **told: Any) -> Optional[str]:
        """Tells what a provider's response object (or its JSON) says about its cost; the event's id, or
        `None` where it says nothing. The same response told twice is counted once. Raises nothing."""
        return self.told_now(response, told)[0]

    def told_now(self, response: Any, told: dict[str, Any]) -> tuple[Optional[str], bool]:
        """As `add_usage`; and whether it is told now, and not by somebody else before."""
        try:
            own_id = None if told.get("id") else (_usage.read(response) or {}).get("id")
            if own_id is not None and self.is_told(own_id):
                return str(own_id), False
            event = self.event_of(response, None, told.pop("model", None), told)
            if event is None:
                return None, False
            if self.is_told(event["id"]):
                return str(event["id"]), False
            return self.tell(event, told), True
        except Exception as error:  # noqa: BLE001  as in `track`
            self.sidecar.complaints.say(f"track: {error}", "an event was not told: %s", error)
            return None, False

    def event_of(
        self, response: Any, usage: Optional[Mapping[str, Any]], model: Optional[str], told: Mapping[str, Any]
    ) -> Optional[dict[str, Any]]:
        """The event of a call, as far as the call itself says; `None` where it says no usage."""
        read: Optional[dict[str, Any]]
        read = {"usage": dict(usage)} if usage is not None else _usage.read(response)
        if read is None:
            return None
        if model is not None:
            read = {"model": model, **read, "request_model": model}
        if "model" not in read:
            raise TypeError("which model was called? the response does not say it: add model=")
        own_id = read.get("id")
        read.update({name: str(told[name]) for name in ("provider", "id") if told.get(name)})
        if "provider" in read and own_id is not None and read["id"] == own_id:
            # As every part of spendfuse names a provider's answer: told twice, it is counted once. An id
            # of the app's own is one of its own source.
            read["source"] = source_of(read["provider"])
        return {"id": _fresh_id(), **read}

    def tell(
        self,
        event: dict[str, Any],
        told: Mapping[str, Any],
        on_result: Optional[Callable[[Result], None]] = None,
    ) -> str:
        """Puts an event on its way, with the context of this moment."""
        name = str(event["id"])
        if self.config.disabled:
            return name
        event = self.completed(event, told)
        session = current_session()
        if on_result is None and session is not None:
            on_result = session.counted
        self.delivery.put(Waiting(encoded(event), on_result=on_result))
        return name

    def completed(self, event: dict[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
        """`event` with what is told of it and its context."""
        known = {name: value for name, value in told.items() if name in MEMBERS and value is not None}
        if "reported_cost_usd" in known:
            known["reported_cost_usd"] = amount(known["reported_cost_usd"])
        who = self.who(checked({name: value for name, value in told.items() if name not in (*MEMBERS, "id")}))
        session = current_session()
        limit = session.told_limit() if session is not None else {}
        event = {"source": self.config.source, "time": now(), **event, **who, **limit, **known}
        self.remember(str(event["id"]))
        return event

    def who(self, context: Mapping[str, Any]) -> dict[str, Any]:
        who = merged(current(), context)
        if self.config.workspace is not None:
            who.setdefault("workspace", self.config.workspace)
        return who

    def remember(self, name: str) -> None:
        self._told[name] = None
        while len(self._told) > _REMEMBERED:
            self._told.popitem(last=False)

    def is_told(self, name: str) -> bool:
        return name in self._told
