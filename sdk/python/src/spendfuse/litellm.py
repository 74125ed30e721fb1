"""LiteLLM, guarded and metered, as SDK and as proxy.

    import spendfuse.litellm
    spendfuse.litellm.install()                     # SDK

    litellm_settings:                               # proxy, in its config.yaml
      callbacks: ["spendfuse.litellm.callback"]

Needs the package `litellm`; nothing else of spendfuse does.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import threading
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timezone
from types import FrameType
from typing import Any, Mapping, Optional

import spendfuse

from ._client import Spendfuse
from ._context import checked, current, current_session, merged
from ._decision import Decision
from ._delivery import Waiting
from ._errors import SpendfuseError
from ._litellm import NOT_METERED, event_of, found_in, http_error, is_asked_for_usage, resolved, split
from ._pictures import tokens_of
from ._session import Session
from ._telling import encoded

__all__ = ["SpendfuseCallback", "callback", "install"]

#: Seconds for a check, where nobody has configured anything. LiteLLM's proxy is busy for tens of
#: milliseconds with each request (1.108.7): by the usual 0.05 one check in six timed out at 50 calls at
#: once, and a call whose check times out goes ahead.
_CHECK_TIMEOUT = 1.0
#: Calls under way that are remembered; of the oldest beyond, the hold is given back.
_UNDER_WAY = 10_000

_CustomLogger: Any = importlib.import_module("litellm.integrations.custom_logger").CustomLogger


@dataclass
class _Call:
    """A request of LiteLLM's between its permission and its event."""

    who: dict[str, Any]
    session: Optional[Session] = None
    reservation: Optional[str] = None
    #: The model that was asked about, and the cheaper one that a budget wants in its place.
    asked_model: str = ""
    other_model: Optional[str] = None
    #: The one that this attempt goes out with in its place; LiteLLM's log of it still says the other.
    used_model: Optional[str] = None
    is_downgraded: bool = False
    #: The proxy asks once for a request, which may be several attempts.
    is_of_proxy: bool = False


#: Kinds of calls whose model none that writes can stand in for, as they stand within LiteLLM's names.
_WRITES_NOTHING = ("embedding", "image", "transcription", "speech", "rerank", "ocr", "video")


def _writes(call_type: Any) -> bool:
    return not any(kind in str(call_type) for kind in _WRITES_NOTHING)


class SpendfuseCallback(_CustomLogger):  # type: ignore[misc]
    """A callback of LiteLLM's: asks before a call, holds what it may cost, tells what it cost.

    Calls count against `spendfuse.context(…)`, then what LiteLLM knows (the request's `user` is the
    customer, a key's user and team, session, tags), then `context` here.
    """

    def __init__(
        self,
        sf: Optional[Spendfuse] = None,
        *,
        reserve: Optional[bool] = None,
        downgrade: Optional[str] = None,
        **context: Any,
    ) -> None:
        super().__init__(turn_off_message_logging=True)
        self._given = sf
        self._reserve = reserve
        self._downgrade = downgrade
        self._fields = checked(context)
        self._calls: OrderedDict[str, _Call] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def sf(self) -> Spendfuse:
        """As given, else that of the module's verbs."""
        return spendfuse._sf(check_timeout=_CHECK_TIMEOUT) if self._given is None else self._given

    # -- Before a call

    async def async_pre_call_hook(self, user_api_key_dict: Any, cache: Any, data: Any, call_type: Any) -> Any:
        """The proxy: once for a request, whose attempts it makes afterwards."""
        if call_type in NOT_METERED or not isinstance(data.get("model"), str):
            return None
        model, provider, is_listed = resolved(data["model"])
        call = self._begun(found_in(data, user_api_key_dict), model)
        call.is_of_proxy = True
        try:
            await self._apermitted(call, provider, data)
        except SpendfuseError as error:
            raise http_error(error) from None
        if not _writes(call_type):
            call.other_model = None
        if call.other_model is not None and is_listed(call.other_model):
            # A name of the proxy's own, with its own key.
            data["model"], call.other_model = call.other_model, None
            call.is_downgraded = True
        self._remember(data.get("litellm_call_id"), call)
        return data

    async def async_pre_call_deployment_hook(self, kwargs: Any, call_type: Any) -> Any:
        """SDK and router: before each attempt. Of a request that was asked about already: its model."""
        if getattr(call_type, "value", call_type) in NOT_METERED:
            return None
        call_id = kwargs.get("litellm_call_id")
        asked = kwargs.get("model") or getattr(kwargs.get("litellm_logging_obj"), "model", None)
        if not call_id or not isinstance(asked, str):
            return None
        with self._lock:
            call = self._calls.get(call_id)
        if call is None:
            call = self._begun(found_in(kwargs), asked)
            try:
                await self._apermitted(call, kwargs.get("custom_llm_provider"), kwargs)
            except SpendfuseError as error:
                # A router neither tries such a status again nor takes its deployment for broken.
                error.status_code = 400  # type: ignore[attr-defined]
                raise
            if not _writes(getattr(call_type, "value", call_type)):
                call.other_model = None
            self._remember(call_id, call)
        return {**kwargs, **self._changes(call, asked, kwargs)}

    def permit(self, _: str) -> bool:
        """A rule for synchronous completions, for which LiteLLM calls no hook that can refuse. It tells
        the rule neither model nor user: they are judged by their context, and hold nothing."""
        if _is_asked_by_a_hook():
            return True
        if not self.sf.config.disabled:
            call = self._begun({}, "")
            self._judged(call, self.sf.sidecar.check(call.who)).raise_for_block()
        return True

    def log_pre_api_call(self, model: Any, messages: Any, kwargs: Any) -> None:
        """A synchronous call goes out: its event is told on another thread, which has another context."""
        call_id = kwargs.get("litellm_call_id")
        with self._lock:
            is_known = call_id in self._calls
        if not is_known:
            self._remember(call_id, self._begun(found_in(kwargs), str(model)))

    # -- After it

    async def async_log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        self._succeeded(kwargs, response_obj)

    def log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        self._succeeded(kwargs, response_obj)

    async def async_log_failure_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        self._failed(kwargs.get("litellm_call_id"), is_last=False)

    def log_failure_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        self._failed(kwargs.get("litellm_call_id"), is_last=False)

    async def async_post_call_failure_hook(
        self, request_data: Any, original_exception: Any, user_api_key_dict: Any, traceback_str: Any = None
    ) -> None:
        """The proxy gives a request up, after all its attempts."""
        self._failed(request_data.get("litellm_call_id"), is_last=True)

    # -- How

    def _begun(self, found: Mapping[str, Any], model: str) -> _Call:
        who = self.sf.who(merged(merged(self._fields, found), current()))
        return _Call(who, current_session(), asked_model=model)

    async def _apermitted(self, call: _Call, provider: Any, request: Mapping[str, Any]) -> None:
        """Raises where the call is refused."""
        sf = self.sf
        if sf.config.disabled:
            return
        named, model = split(call.asked_model)
        question: dict[str, Any] = {**call.who, "model": model}
        if provider or named:
            question["provider"] = provider or named
        if call.session is not None:
            question.update(call.session.limit())
        if sf.config.reserve if self._reserve is None else self._reserve:
            estimate: dict[str, Any] = {"model": model, "input_tokens": _tokens_of(request)}
            limits = [request.get(name) for name in ("max_completion_tokens", "max_output_tokens", "max_tokens")]
            told = next((count for count in limits if isinstance(count, int)), None)
            if told is not None:
                estimate["max_output_tokens"] = told
            question.update(reserve=True, estimate=estimate)
        decision = await sf.sidecar.acheck(question)
        judged = self._judged(call, decision)
        if not judged.allowed:
            sf.release(decision)
            raise judged.error()
        other = sf.model_by(judged, model, self._downgrade)
        call.reservation = decision.reservation_id
        call.other_model = None if other == model else other

    def _judged(self, call: _Call, decision: Decision) -> Decision:
        return decision if call.session is None else call.session.judged(decision)

    def _changes(self, call: _Call, asked: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The cheaper model, where it is the same provider's, and the question for a stream's usage:
        without it LiteLLM estimates, and does not say so."""
        changes: dict[str, Any] = {}
        provider, name = split(asked)
        is_same = name == split(call.asked_model)[1] and "model" in kwargs
        call.used_model = call.other_model if is_same and "/" not in (call.other_model or "") else None
        if call.used_model is not None:
            changes["model"] = f"{provider}/{call.used_model}" if provider else call.used_model
        if not is_asked_for_usage(asked, kwargs):
            changes["stream_options"] = {**(kwargs.get("stream_options") or {}), "include_usage": True}
        return changes

    def _remember(self, call_id: Any, call: _Call) -> None:
        dropped = None
        with self._lock:
            self._calls[str(call_id)] = call
            if len(self._calls) > _UNDER_WAY:
                dropped = self._calls.popitem(last=False)[1]
        if dropped is not None:
            self._release(dropped)

    def _release(self, call: _Call) -> None:
        if call.reservation is not None:
            self.sf.release(Decision("allow", reservation_id=call.reservation))

    def _failed(self, call_id: Any, is_last: bool) -> None:
        with self._lock:
            call = self._calls.get(str(call_id))
            if call is None or (call.is_of_proxy and not is_last):
                return
            del self._calls[str(call_id)]
        self._release(call)

    def _succeeded(self, kwargs: Mapping[str, Any], answer: Any) -> None:
        with self._lock:
            call = self._calls.pop(str(kwargs.get("litellm_call_id")), None)
        if self.sf.config.disabled:
            return
        try:
            told = event_of(kwargs, answer)
            if told is None:
                # From its cache, or no call of a model: nobody is charged.
                if call is not None:
                    self._release(call)
                return
            if self.sf.is_told(told["id"]):
                return
            call = call or self._begun(found_in(kwargs), told["model"])
            event = {**told, **call.who, "time": told.get("time") or datetime.now(timezone.utc).isoformat()}
            if call.used_model is not None:
                event.update(model=call.used_model, request_model=call.asked_model)
                event.pop("reported_cost_usd", None)
            if call.used_model is not None or call.is_downgraded:
                event["flags"] = ["downgraded"]
            if call.reservation is not None:
                event["reservation_id"] = call.reservation
            if call.session is not None:
                event.update(call.session.told_limit())
            self.sf.remember(told["id"])
            on_result = call.session.counted if call.session is not None else None
            self.sf.delivery.put(Waiting(encoded(event), on_result=on_result))
        except Exception as error:  # noqa: BLE001  a call that was made does not fail because it is watched
            self.sf.sidecar.complaints.say("litellm", "a call of LiteLLM's was not told: %r", error)


def _is_asked_by_a_hook() -> bool:
    """Whether the call that a rule is asked about is one of LiteLLM's coroutines, which its hook asks about
    afterwards. A running loop does not say so: synchronous calls are made on one, too, in notebooks."""
    frame: Optional[FrameType] = sys._getframe(1)
    while frame is not None:
        # The decorator of every call has one function for each kind (1.108.7).
        if frame.f_globals.get("__name__") == "litellm.utils" and frame.f_code.co_name in ("wrapper", "wrapper_async"):
            return frame.f_code.co_name == "wrapper_async"
        frame = frame.f_back
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    # The proxy prepares a request outside of both.
    return True


def _tokens_of(request: Mapping[str, Any]) -> int:
    """At most so many, by the length of what is asked; the text itself goes nowhere."""
    parts = ("messages", "input", "prompt", "system", "instructions", "tools", "contents")
    asked = {name: request[name] for name in parts if request.get(name)}
    text = json.dumps(asked, default=str, ensure_ascii=False, skipkeys=True)
    return tokens_of(text.encode("utf-8", "replace"))


def install(sf: Optional[Spendfuse] = None, **options: Any) -> SpendfuseCallback:
    """Guards and meters all calls of LiteLLM's SDK in this process; takes what `SpendfuseCallback` does.

    Synchronous completions are refused by their context only, and hold nothing; other synchronous
    calls are counted, and never refused.
    """
    litellm: Any = importlib.import_module("litellm")
    uninstall()
    one = SpendfuseCallback(sf, **options)
    litellm.callbacks.append(one)
    litellm.pre_call_rules.append(one.permit)
    return one


def uninstall() -> None:
    """Undoes `install`."""
    litellm: Any = importlib.import_module("litellm")
    names = ("callbacks", "input_callback", "success_callback", "failure_callback")
    for name in (*names, "_async_success_callback", "_async_failure_callback", "_async_input_callback"):
        listed = getattr(litellm, name)
        listed[:] = [one for one in listed if not isinstance(one, SpendfuseCallback)]
    rules = litellm.pre_call_rules
    rules[:] = [one for one in rules if not isinstance(getattr(one, "__self__", None), SpendfuseCallback)]


#: For the proxy's `callbacks`; what it does not say here comes from the environment.
callback = SpendfuseCallback()
