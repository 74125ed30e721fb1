"""Clients of boto3 for Bedrock's runtime, guarded and metered by the events that botocore emits around a call.

Whatever makes the call emits them: the client's methods, LangChain. A `Stubber` answers before them. The check
is before the signature and before botocore's own retries, which stay within one call.
"""

from __future__ import annotations

import io
import re
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Iterator, Mapping, Optional
from urllib.parse import quote, unquote, urlsplit

from ._answer import is_over, is_under_way
from ._call import Call
from ._routes import Route
from ._seen import Seen

if TYPE_CHECKING:
    from ._call import Meter

#: The calls that cost money, and how their answers are read.
_OPERATIONS = {
    "Converse": "chat",
    "ConverseStream": "chat",
    "InvokeModel": "invoke_model",
    "InvokeModelWithResponseStream": "invoke_model",
}
#: Where a model stands in a path.
PATH = re.compile(r"/model/([^/]+)/(?:converse|invoke)[\w-]*$")
#: Models that Bedrock has: `us.anthropic.claude-…`, `amazon.nova-…`, and their ARNs.
_OF_BEDROCK = re.compile(r"arn:|([a-z-]+\.)?[a-z0-9]+\.[a-z]")
#: Exceptions of botocore after which a request may have reached Bedrock.
_SENT = ("ReadTimeoutError", "ConnectionClosedError", "ResponseStreamingError", "IncompleteReadError", "HTTPClientError")
#: What Bedrock counts in headers, where a model does not say it in a form that is known.
_COUNTS = (
    ("x-amzn-bedrock-input-token-count", "inputTokens"),
    ("x-amzn-bedrock-output-token-count", "outputTokens"),
    ("x-amzn-bedrock-cache-read-input-token-count", "cacheReadInputTokens"),
    ("x-amzn-bedrock-cache-write-input-token-count", "cacheWriteInputTokens"),
)
_METER = "_spendfuse_meter"
_KEY = "spendfuse_call"


def is_runtime(client: Any) -> bool:
    service = getattr(getattr(getattr(client, "meta", None), "service_model", None), "service_name", None)
    # Handlers of aiobotocore's are awaited, and its streams are others.
    is_async = any(kind.__module__.startswith("aiobotocore") for kind in type(client).__mro__)
    return service == "bedrock-runtime" and not is_async


def wrap(client: Any, meter: Meter) -> None:
    is_hooked = _METER in vars(client)
    setattr(client, _METER, meter)
    if is_hooked:
        return
    held = weakref.ref(client)

    def begin(model: Any, params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
        one = held()
        if one is not None:
            _begin(getattr(one, _METER), model.name, params, context)

    for operation in _OPERATIONS:
        events, name = client.meta.events, f"bedrock-runtime.{operation}"
        events.register_first(f"before-call.{name}", begin)
        events.register_last(f"after-call.{name}", _answered)
        events.register_last(f"after-call-error.{name}", _failed)


@dataclass(frozen=True)
class _Url:
    scheme: str
    host: str
    path: str


@dataclass(frozen=True)
class _Request:
    """As much as a call wants to know of it, under the names of httpx."""

    url: _Url
    headers: Mapping[str, str]
    content: bytes


class _Call(Call):
    def _can_ask(self, other: str) -> bool:
        # Only Bedrock's own form is the same for all models.
        return self.route.operation == "chat" and _OF_BEDROCK.match(other) is not None


def _begin(meter: Meter, operation: str, params: dict[str, Any], context: dict[str, Any]) -> None:
    """Asks, and raises where the call is refused."""
    sf = meter.sf
    if sf.config.disabled:
        return
    try:
        url = urlsplit(params["url"])
        found = PATH.search(url.path)
        body = params.get("body") or b""
        content = body if isinstance(body, bytes) else str(body).encode() if isinstance(body, str) else b""
        asked = found[1] if found else ""
        route = Route(_OPERATIONS[operation], "bedrock.converse", "bedrock", unquote(asked), operation.endswith("Stream"))
        request = _Request(_Url(url.scheme, url.hostname or "", url.path), {}, content)
        call = _Call(meter, request, route)
        call.region = context.get("client_region")
        question = call.question()
    except Exception as error:  # noqa: BLE001  a request of an unknown form goes out as it is
        sf.sidecar.complaints.say("request", "a call is neither guarded nor told: %r", error)
        return
    call.permit(call.adopted() or sf.sidecar.check(question or {}))
    if call.asked_model != route.model:
        other = quote(call.asked_model, safe="-_.~")
        for name in ("url", "url_path"):
            params[name] = params[name].replace(f"/model/{asked}/", f"/model/{other}/")
    context[_KEY] = call


def _answered(http_response: Any, parsed: dict[str, Any], model: Any, context: dict[str, Any], **_: Any) -> None:
    call: Optional[_Call] = context.pop(_KEY, None)
    if call is None:
        return
    if http_response.status_code >= 300:
        call.failed()
        return
    told = parsed.get("ResponseMetadata") or {}
    headers = told.get("HTTPHeaders") or {}
    request_id = told.get("RequestId") or headers.get("x-amzn-requestid")
    seen = Seen()
    if model.name == "Converse":
        _take(call, seen, parsed)
    elif model.name == "InvokeModel":
        try:
            body = parsed["body"].read()
        except BaseException:
            call.settle(seen, request_id)
            raise
        parsed["body"] = type(parsed["body"])(io.BytesIO(body), len(body))
        _take(call, seen, body)
        _count_by_headers(seen, headers)
    else:
        _follow(parsed.get("stream") or parsed.get("body"), call, seen, request_id)
        return
    call.settle(seen, request_id)


def _failed(exception: BaseException, context: dict[str, Any], **_: Any) -> None:
    call: Optional[_Call] = context.pop(_KEY, None)
    if call is None:
        return
    if type(exception).__name__ in _SENT:
        call.settle(Seen())
    else:
        call.failed()


def _take(call: _Call, seen: Seen, told: Any) -> None:
    try:
        seen.take(call.route, told) if isinstance(told, bytes) else seen.take_told(call.route, told)
    except Exception as error:  # noqa: BLE001  an answer of an unknown form is the app's all the same
        call.complain("an answer cannot be read, and is charged by estimate: %r", error)


def _count_by_headers(seen: Seen, headers: Mapping[str, str]) -> None:
    seen.service_tier = headers.get("x-amzn-bedrock-service-tier") or seen.service_tier
    counts = {name: int(headers[header]) for header, name in _COUNTS if headers.get(header, "").isdigit()}
    if counts and not seen.is_final:
        seen.usage, seen.usage_format, seen.is_final = counts, "", True


class _Reading:
    """A stream that somebody reads, or has forgotten."""

    def __init__(self, call: _Call, seen: Seen, request_id: Optional[str]) -> None:
        self._call = call
        self._seen = seen
        self._request_id = request_id
        is_under_way(self)

    def settle(self) -> None:
        is_over(self)
        self._call.settle(self._seen, self._request_id)

    def forget(self) -> None:
        self._call.is_settled = True


def _follow(stream: Any, call: _Call, seen: Seen, request_id: Optional[str]) -> None:
    """Reads the events of a stream as they are handed out, by the same object."""
    if not hasattr(stream, "_parse_event"):
        # Of another version of botocore.
        call.settle(seen, request_id)
        return
    parse, close, events = stream._parse_event, stream.close, stream._event_generator
    settle = _Reading(call, seen, request_id).settle

    def parsed(raw: Any) -> Any:
        event = parse(raw)
        for told in (event or {}).values():
            _take(call, seen, told.get("bytes", told) if isinstance(told, dict) else told)
        return event

    def to_the_end() -> Iterator[Any]:
        try:
            yield from events
        finally:
            settle()

    def closed() -> None:
        try:
            close()
        finally:
            settle()

    # Neither read nor closed: Bedrock charges for it all the same.
    weakref.finalize(stream, settle)
    stream._parse_event, stream._event_generator, stream.close = parsed, to_the_end(), closed
