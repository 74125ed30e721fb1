"""One call of a wrapped client, from its permission to its event."""

from __future__ import annotations

import re
import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Mapping, Optional

from ._answer import Watch
from ._context import current_permission, current_session
from ._decision import Decision
from ._delivery import Waiting
from ._fingerprint import of_request
from ._ids import fresh
from ._pictures import tokens_of
from ._request import Body
from ._routes import Route, host_provider, provider_of, route_of, source_of
from ._seen import Seen, usage_of
from ._telling import encoded, now

if TYPE_CHECKING:
    from ._client import Spendfuse

#: Exceptions of httpx that say that nothing was sent.
_NOT_SENT = (
    "ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "UnsupportedProtocol",
    # A request that cannot be written down: a line feed at the end of a key.
    "LocalProtocolError",
)

#: Statuses of those who do not know a member of the body; 422 is Mistral's, and that of all who check
#: bodies with pydantic.
REFUSES_BODY = (400, 422)
#: The id at the beginning of an answer.
_ID = re.compile(rb'\s*\{\s*"id"\s*:\s*"([^"\\]+)"')

#: Headers that name an answer which does not name itself.
_REQUEST_IDS = (b"x-request-id", b"request-id", b"apim-request-id", b"x-amzn-requestid")


class Meter:
    """How the calls of one client are guarded and told."""

    def __init__(
        self,
        sf: Spendfuse,
        *,
        provider: Optional[str],
        reserve: Optional[bool],
        downgrade: Optional[str],
        fields: Mapping[str, Any],
    ) -> None:
        self.sf = sf
        self.provider = provider
        self._reserve = reserve
        self.downgrade = downgrade
        self.fields = fields
        #: Hosts that refuse to be asked for a stream's usage.
        self.refusing_hosts: set[str] = set()

    @property
    def reserve(self) -> bool:
        return self.sf.config.reserve if self._reserve is None else self._reserve

    def begin(self, request: Any) -> Optional[Call]:
        """The call that a request of httpx makes; `None` where it costs nothing."""
        route = None if self.sf.config.disabled else route_of(request.method, request.url.path)
        return None if route is None else Call(self, request, route)


class Call:
    def __init__(self, meter: Meter, request: Any, route: Route) -> None:
        self._meter = meter
        self._sf = meter.sf
        self.route = route
        self._headers = headers = _raw(request.headers)
        self.host = request.url.host
        self._path = path = request.url.path
        self._provider = meter.provider or provider_of(self.host, path, route)
        # Servers of one's own and gateways may count their answers from one: Ollama counts to 999.
        is_known = meter.provider is not None or host_provider(self.host, path) is not None
        self._is_private = request.url.scheme == "http" or not is_known
        content = b"" if b"content-encoding" in headers else _content(request)
        self._body = Body.read(content) if content else None
        self._request_tokens = tokens_of(content)
        self.asked_model = route.model or (self._body.asked_model if self._body is not None else "")
        self._call_id = fresh()
        retries = headers.get(b"x-stainless-retry-count", b"")
        self._attempt = int(retries) + 1 if retries.isdigit() else 1
        # A signature covers body and headers: such a request is sent as it is.
        self._is_signed = headers.get(b"authorization", b"").startswith(b"AWS4-")
        self._who = self._sf.who(meter.fields)
        self._session = current_session()
        permission = current_permission()
        #: Of the `guarded_call` around it.
        self._permission = permission if permission is not None and permission.sf is self._sf else None
        self._reservation: Optional[str] = None
        #: Where it is called, for providers whose prices differ.
        self.region: Optional[str] = None
        self._other_model: Optional[str] = None
        self.asks_usage = (
            route.is_chat_completion
            and self._body is not None
            and self._body.can_ask_usage
            and self.host not in meter.refusing_hosts
            and not self._is_signed
        )
        self._began = time.monotonic()
        self.is_settled = False

    # -- Before it is sent

    def question(self) -> Optional[dict[str, Any]]:
        """What the sidecar is asked; `None` where the call costs nothing by itself."""
        if self.route.retrieves:
            return None
        question: dict[str, Any] = {**self._who, "model": self.asked_model}
        if self._provider is not None:
            question["provider"] = self._provider
        if self._session is not None:
            question.update(self._session.limit())
        # Without its model nothing can be estimated, and the sidecar refuses such a question.
        if self._meter.reserve and self.asked_model:
            estimate: dict[str, Any] = {"model": self.asked_model, "input_tokens": self._request_tokens}
            output = self._body.max_output_tokens if self._body is not None else None
            output = 0 if self.route.operation == "embeddings" else output
            if output is not None:
                estimate["max_output_tokens"] = output
            question.update(reserve=True, estimate=estimate)
        return question

    def adopted(self) -> Optional[Decision]:
        """What the `guarded_call` around it was allowed, with what that holds."""
        if self._permission is None:
            return None
        self._permission.is_told = True
        return self._permission.taken()

    def permit(self, decision: Decision) -> None:
        """Raises where the call is refused."""
        judged = decision if self._session is None else self._session.judged(decision)
        if not judged.allowed:
            self._sf.release(decision)
            raise judged.error()
        other = self._sf.model_by(judged, self.asked_model, self._meter.downgrade)
        self._reservation = decision.reservation_id
        if other == self.asked_model:
            return
        if self._can_ask(other):
            self._other_model = self.asked_model = other
        else:
            what = "a cheaper model is wanted and cannot be asked here: %s for %s"
            self._sf.sidecar.complaints.say("cheaper", what, other, self.asked_model)

    def _can_ask(self, other: str) -> bool:
        # What embeds cannot be replaced by what writes.
        if self._is_signed or self.route.operation == "embeddings":
            return False
        if self.route.model is None:
            return self._body is not None and self._body.model is not None
        # In a path: another maker's model has another path, and its answer another form.
        return self._place_of_model in self._path and self.route.usage_format == "gemini" and other.startswith("gemini")

    @property
    def _is_downgraded(self) -> bool:
        cheaper = None if self._permission is None else self._permission.cheaper_model
        return self._other_model is not None or (cheaper is not None and cheaper == self.asked_model)

    @property
    def _place_of_model(self) -> str:
        """How a path has it; an endpoint or a tuned model stands in another place."""
        return f"/models/{self.route.model}:"

    def outgoing(self, request: Any, asks_usage: bool) -> Any:
        """The request as it is sent."""
        if not self._is_signed:
            accepted = request.headers.get("accept-encoding", "")
            if self.route.streams or (self._body is not None and self._body.streams):
                request.headers["accept-encoding"] = "identity"
            elif "br" in accepted or "zstd" in accepted:
                # What can be read without a package.
                request.headers["accept-encoding"] = "gzip, deflate"
        url = request.url
        content: Optional[bytes] = None
        if self._body is not None:
            in_body = None if self.route.model else self._other_model
            edits = self._body.edits(in_body, asks_usage)
            content = self._body.edited(edits) if edits else None
        if self.route.model and self._other_model:
            url = url.copy_with(path=url.path.replace(self._place_of_model, f"/models/{self._other_model}:"))
        if content is None and url is request.url:
            return request
        headers = request.headers.copy()
        if content is None:
            content = request.content
        headers["content-length"] = str(len(content))
        return type(request)(request.method, url, headers=headers, content=content, extensions=request.extensions)

    def may_refuse_usage(self, body: bytes) -> bool:
        """Whether an answer that refuses the body mentions the question for a stream's usage; then it is sent
        without."""
        mentions = b"stream_options" in body or b"include_usage" in body
        self.asks_usage = not mentions
        return mentions

    def sent_without_asking(self, response: Any) -> None:
        """Only where that succeeds was the question at fault, and not something else in the request."""
        if 200 <= response.status_code < 300:
            self._meter.refusing_hosts.add(self.host)

    # -- After

    def failed(self, error: Optional[BaseException] = None) -> None:
        """There is no answer, or an error; nothing is charged, unless the connection broke after the
        request was sent: then its provider may charge, and so it is charged by estimate."""
        if error is not None and type(error).__name__ not in _NOT_SENT:
            self.settle(Seen())
            return
        self.is_settled = True
        self._release()

    def answered(self, response: Any) -> Optional[Watch]:
        """How the answer is read; `None` where it is not: an error, a redirect, the proxy's."""
        if 300 <= response.status_code < 400:
            return None
        headers = _raw(response.headers)
        if response.status_code >= 400 or b"x-spendfuse-decision" in headers:
            # The proxy tells of its calls itself.
            self.failed()
            return None
        # A name that the app has sent is no name: all its calls could have one.
        sent = self._headers.values()
        named = map(headers.get, _REQUEST_IDS)
        request_id = next((name.decode("utf-8", "replace") for name in named if name and name not in sent), None)
        return Watch(self, headers, request_id)

    def settle(self, seen: Seen, request_id: Optional[str] = None, later: Optional[bytes] = None) -> None:
        """Tells what the call has cost; once. A long answer (`later`) is read in the background, while
        there is room for it."""
        if self.is_settled:
            return
        self.is_settled = True
        latency = int((time.monotonic() - self._began) * 1000)

        def make() -> Optional[bytes]:
            if later is not None:
                seen.take(self.route, later)
            return self._event(seen, latency, request_id)

        on_result = self._session.counted if self._session is not None else None
        unread = 0 if later is None else len(later)
        # `add_usage` of the same answer is not told again, although nobody has read it yet.
        for name in (request_id, _id_in(later) if later is not None else None):
            if name:
                self._sf.remember(name)
        waiting = Waiting(make=make, on_result=on_result, unread=unread)
        try:
            if not unread or not self._sf.delivery.has_room_for(unread):
                waiting.event, waiting.make, waiting.unread = make(), None, 0
            if waiting.event or waiting.make:
                self._sf.delivery.put(waiting)
        except Exception as error:  # noqa: BLE001  the answer is the app's all the same
            self.complain("a call was not told: %r", error)

    def complain(self, message: str, error: Exception) -> None:
        self._sf.sidecar.complaints.say("answer", message, error)

    def __del__(self) -> None:
        # Permitted, and not made: what held it up lies between here and the transport.
        if not self.__dict__.get("is_settled", True):
            self._release()

    def _release(self) -> None:
        if self._reservation is not None:
            self._sf.release(Decision("allow", reservation_id=self._reservation))

    def _event(self, seen: Seen, latency: int, request_id: Optional[str]) -> Optional[bytes]:
        is_made_later = seen.is_pending and seen.was_background
        if is_made_later or (self.route.retrieves and not (seen.was_background and seen.is_final)):
            # Its cost is told when somebody asks for the finished answer.
            self._release()
            return None
        source, name = self._identity(seen, request_id)
        usage_format, usage = usage_of(seen, self.route, self._request_tokens)
        event: dict[str, Any] = {
            "id": name,
            "source": source,
            "time": now(),
            **self._who,
            "model": seen.model or self.asked_model,
            "operation": self.route.operation,
            "usage_format": usage_format,
            "usage": usage,
            "status": "ok",
        }
        optional = {
            "provider": self._provider,
            "request_model": self.asked_model,
            "service_tier": self._service_tier(seen),
            "reservation_id": self._reservation,
            "tool_calls": seen.tool_calls,
            "units": seen.units(self.asked_model),
            "prompt_fingerprint": self._fingerprint(),
            "region": self.region,
            "flags": ["downgraded"] if self._is_downgraded else None,
        }
        event.update({name: value for name, value in optional.items() if value})
        if self.route.retrieves:
            # The same at every asking.
            if seen.created_at is not None:
                event["time"] = datetime.fromtimestamp(seen.created_at, timezone.utc).isoformat()
        else:
            event.update(call_id=self._call_id, attempt=self._attempt, latency_ms=latency)
        if self._session is not None:
            event.update(self._session.told_limit())
        # `add_usage` of the same answer is not told again.
        self._sf.remember(seen.id or name)
        return encoded(event)

    def _identity(self, seen: Seen, request_id: Optional[str]) -> tuple[str, str]:
        name = seen.id or request_id or ""
        call_id = "background" if self.route.retrieves else self._call_id
        if self._is_private:
            return f"spendfuse-python:{self._provider or self.route.language}", f"{call_id}-{name}"
        return source_of(self._provider or self.host), name or call_id

    def _service_tier(self, seen: Seen) -> Optional[str]:
        asked = self._body.members.get("service_tier") if self._body is not None else None
        tier = seen.service_tier or asked
        return tier if isinstance(tier, str) and tier != "auto" else None

    def _fingerprint(self) -> Optional[str]:
        key = self._sf.config.fingerprint_key
        if key is None or self._body is None or self.route.operation == "embeddings":
            return None
        return of_request(key, self._body.members)


def _id_in(answer: bytes) -> Optional[str]:
    """By its beginning: to read all of a long answer is for later."""
    found = _ID.match(answer)
    return None if found is None else found[1].decode("utf-8", "replace")


def _content(request: Any) -> bytes:
    try:
        content: bytes = request.content
    except Exception:  # noqa: BLE001  a body that is streamed is not held in memory
        return b""
    return content


def _raw(headers: Any) -> dict[bytes, bytes]:
    """Headers as they are on the wire, names in lower case: httpx decodes all of them for one."""
    pairs = getattr(headers, "raw", None)
    if pairs is None:
        pairs = [(name.encode(), str(value).encode()) for name, value in headers.items()]
    return {name.lower(): value for name, value in pairs}
