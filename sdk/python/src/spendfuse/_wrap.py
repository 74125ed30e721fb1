"""Clients of providers, guarded and metered where their bytes pass: at the transport of httpx.

There every way of calling looks the same (helpers, raw responses, streams, `with_options`, the async
client), and nothing of the client's own types changes. Only the refusal of OpenAI's and Anthropic's
clients is raised a step before, because some of their versions try again, and hide, whatever a
transport raises.
"""

from __future__ import annotations

import functools
import sys
from typing import Any, AsyncIterator, Iterator, Optional

from . import _bedrock
from ._answer import Watch
from ._call import REFUSES_BODY, Call, Meter

__all__ = ["Meter", "wrap"]

#: Where a permitted call waits between the two places.
_KEY = "spendfuse.call"
#: Where a client has its own meter: several may share one client of httpx.
_METER = "_spendfuse_meter"
#: Under which names others hold the clients that they call: LangChain's models, resources.
_HOLDERS = ("root_client", "root_async_client", "_client", "_async_client", "client", "async_client")
#: What makes them, and keeps them, at LlamaIndex.
_MAKERS = ("_get_client", "_get_aclient")


def wrap(client: Any, meter: Meter) -> None:
    if not _wrapped(client, meter, 2):
        raise TypeError(
            f"{type(client).__module__}.{type(client).__name__} cannot be wrapped: pass a client of openai, "
            "anthropic or google-genai, boto3's for bedrock-runtime, a model of LangChain or LlamaIndex on top of "
            "one, or a client of httpx"
        )


def _wrapped(client: Any, meter: Meter, depth: int) -> bool:
    if _is_http(client):
        _wrap_http(client, meter)
        return True
    if _is_http(getattr(client, "_client", None)) and callable(getattr(client, "_prepare_request", None)):
        _wrap_http(client._client, meter)
        _hook(client, meter)
        return True
    google = getattr(client, "_api_client", None)
    if google is not None and hasattr(google, "_async_httpx_client"):
        for http in (google._httpx_client, google._async_httpx_client):
            if http is not None:
                _wrap_http(http, meter)
        # The other way for its coroutines goes by aiohttp, where that is installed.
        google._use_aiohttp = lambda: False
        return True
    if _bedrock.is_runtime(client):
        _bedrock.wrap(client, meter)
        return True
    if depth == 0:
        return False
    held = [getattr(client, name, None) for name in _HOLDERS]
    held += [make() for name in _MAKERS if callable(make := getattr(client, name, None))]
    return any([_wrapped(one, meter, depth - 1) for one in held if one is not None])


def _is_http(client: Any) -> bool:
    return hasattr(client, "_transport") and hasattr(client, "_mounts") and callable(getattr(client, "send", None))


def _wrap_http(http: Any, meter: Meter) -> None:
    def metered(transport: Any) -> Any:
        if isinstance(transport, (Metered, AsyncMetered)):
            # Wrapped twice is guarded once, as said last.
            transport.meter = meter
            return transport
        return (AsyncMetered if is_async else Metered)(transport, meter)

    # Of transports some can do both.
    is_async = hasattr(http, "aclose")
    http._transport = metered(http._transport)
    for pattern, transport in http._mounts.items():
        if transport is not None:
            http._mounts[pattern] = metered(transport)
    make = getattr(http, "_inner_client_cls", None)
    if make is not None:
        # google-genai (3.6) sends by another client for each event loop, made when it is needed.
        http._inner_client_cls = lambda **kwargs: _with_meter(make(**kwargs), meter)
        for inner in getattr(http, "_loop_clients", {}).values():
            _wrap_http(inner, meter)


def _with_meter(http: Any, meter: Meter) -> Any:
    _wrap_http(http, meter)
    return http


def _hook(client: Any, meter: Meter) -> None:
    """Asks before the client's own retries begin, and follows it into its copies."""
    is_hooked = _METER in vars(client)
    setattr(client, _METER, meter)
    if is_hooked:
        return
    prepare = client._prepare_request
    if isinstance(client._client._transport, AsyncMetered):

        async def prepare_async(request: Any) -> None:
            await prepare(request)
            await _apermitted(getattr(client, _METER), request)

        client._prepare_request = prepare_async
    else:

        def prepare_sync(request: Any) -> None:
            prepare(request)
            _permitted(getattr(client, _METER), request)

        client._prepare_request = prepare_sync
    for name in ("copy", "with_options"):
        original = getattr(client, name, None)
        if callable(original):
            setattr(client, name, _following(original, client))


def _following(original: Any, client: Any) -> Any:
    @functools.wraps(original)
    def copied(*args: Any, **kwargs: Any) -> Any:
        copy = original(*args, **kwargs)
        _wrapped(copy, getattr(client, _METER), 0)
        return copy

    return copied


def _permitted(meter: Meter, request: Any) -> Optional[Call]:
    """The call of this request, asked about once; raises where it is refused."""
    call: Optional[Call] = request.extensions.get(_KEY)
    if call is not None and not call.is_settled:
        return call
    call, question = _begun(meter, request)
    if call is not None and question is not None:
        call.permit(call.adopted() or meter.sf.sidecar.check(question))
    return call


async def _apermitted(meter: Meter, request: Any) -> Optional[Call]:
    call: Optional[Call] = request.extensions.get(_KEY)
    if call is not None and not call.is_settled:
        return call
    call, question = _begun(meter, request)
    if call is not None and question is not None:
        call.permit(call.adopted() or await meter.sf.sidecar.acheck(question))
    return call


def _begun(meter: Meter, request: Any) -> tuple[Optional[Call], Optional[dict[str, Any]]]:
    """The call, and what the sidecar is asked about it."""
    try:
        call = meter.begin(request)
        if call is None and _bedrock.PATH.search(request.url.path) and not meter.sf.config.disabled:
            # That of Anthropic's client.
            what = "calls of Bedrock by httpx are neither guarded nor told: wrap a client of boto3, or use the proxy"
            meter.sf.sidecar.complaints.say("bedrock", what)
        question = None if call is None else call.question()
        request.extensions[_KEY] = call
    except Exception as error:  # noqa: BLE001  a request of an unknown form goes out as it is
        meter.sf.sidecar.complaints.say("request", "a call is neither guarded nor told: %r", error)
        return None, None
    return call, question


class _Around:
    """Everything but calls goes on to the transport inside."""

    def __init__(self, inner: Any, meter: Meter) -> None:
        self._inner = inner
        self.meter = meter

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_inner"], name)


class Metered(_Around):
    def handle_request(self, request: Any) -> Any:
        call = _permitted(self.meter, request)
        if call is None:
            return self._inner.handle_request(request)
        try:
            response = self._inner.handle_request(call.outgoing(request, call.asks_usage))
            if response.status_code in REFUSES_BODY and call.asks_usage and call.may_refuse_usage(response.read()):
                response.close()
                response = self._inner.handle_request(call.outgoing(request, False))
                call.sent_without_asking(response)
        except BaseException as error:
            call.failed(error)
            raise
        watch = call.answered(response)
        if watch is not None and not watch.is_read_already(response):
            response.stream = _sync_stream(response)(response.stream, watch)
        return response

    def close(self) -> None:
        self._inner.close()

    def __enter__(self) -> Metered:
        self._inner.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._inner.__exit__(*error)


class AsyncMetered(_Around):
    async def handle_async_request(self, request: Any) -> Any:
        call = await _apermitted(self.meter, request)
        if call is None:
            return await self._inner.handle_async_request(request)
        try:
            response = await self._inner.handle_async_request(call.outgoing(request, call.asks_usage))
            if response.status_code in REFUSES_BODY and call.asks_usage and call.may_refuse_usage(await response.aread()):
                await response.aclose()
                response = await self._inner.handle_async_request(call.outgoing(request, False))
                call.sent_without_asking(response)
        except BaseException as error:
            call.failed(error)
            raise
        watch = call.answered(response)
        if watch is not None and not watch.is_read_already(response):
            response.stream = _async_stream(response)(response.stream, watch)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def __aenter__(self) -> AsyncMetered:
        await self._inner.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._inner.__aexit__(*error)


# Clients check that a stream is of their own package's class: httpx, or httpx2, which newer SDKs use.


def _sync_stream(response: Any) -> Any:
    return _sync_stream_of(_package_of(response))


def _async_stream(response: Any) -> Any:
    return _async_stream_of(_package_of(response))


def _package_of(response: Any) -> str:
    packages = [kind.__module__.partition(".")[0] for kind in type(response).__mro__]
    return next((package for package in packages if package in ("httpx", "httpx2")), packages[0])


@functools.lru_cache(maxsize=None)
def _sync_stream_of(package: str) -> Any:
    base = getattr(sys.modules[package], "SyncByteStream")

    class WatchedStream(base):  # type: ignore[misc, valid-type]
        def __init__(self, inner: Any, watch: Watch) -> None:
            self._inner = inner
            self._watch = watch

        def __iter__(self) -> Iterator[bytes]:
            try:
                for chunk in self._inner:
                    yield from self._watch.push(chunk)
                yield from self._watch.end()
            finally:
                # Where the connection broke, some clients close nothing (openai 1.109).
                self._watch.settle()

        def close(self) -> None:
            try:
                self._inner.close()
            finally:
                self._watch.settle()

        def __del__(self) -> None:
            # Neither read nor closed: its provider charges for it all the same.
            watch = self.__dict__.get("_watch")
            if watch is not None:
                watch.settle()

    return WatchedStream


@functools.lru_cache(maxsize=None)
def _async_stream_of(package: str) -> Any:
    base = getattr(sys.modules[package], "AsyncByteStream")

    class AsyncWatchedStream(base):  # type: ignore[misc, valid-type]
        def __init__(self, inner: Any, watch: Watch) -> None:
            self._inner = inner
            self._watch = watch

        async def __aiter__(self) -> AsyncIterator[bytes]:
            try:
                async for chunk in self._inner:
                    for piece in self._watch.push(chunk):
                        yield piece
                for piece in self._watch.end():
                    yield piece
            finally:
                # As of the other one.
                self._watch.settle()

        async def aclose(self) -> None:
            try:
                await self._inner.aclose()
            finally:
                self._watch.settle()

        def __del__(self) -> None:
            # As above.
            watch = self.__dict__.get("_watch")
            if watch is not None:
                watch.settle()

    return AsyncWatchedStream
