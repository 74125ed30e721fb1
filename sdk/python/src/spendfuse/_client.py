"""The verbs: check, guard, wrap, track, sessions, flush."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
import sys
import weakref
from decimal import Decimal
from typing import Any, Awaitable, Callable, Mapping, Optional, TypeVar, cast, overload

from . import _config, _usage
from ._context import Applied, Permission, checked, current_session
from ._decision import Decision
from ._delivery import Delivery, Waiting, forget_all
from ._session import Session
from ._sidecar import Sidecar
from ._telling import Money, Telling, amount

C = TypeVar("C")
F = TypeVar("F", bound=Callable[..., Any])
R = TypeVar("R")

class Spendfuse(Telling):
    """A connection to one sidecar. Cheap to make: nothing is asked and no thread starts before the
    first call.

    What an argument does not say comes from the environment (`SPENDFUSE_URL`, `SPENDFUSE_TOKEN`,
    `SPENDFUSE_WORKSPACE`, `SPENDFUSE_MODE`, `SPENDFUSE_ON_UNAVAILABLE`, `SPENDFUSE_FINGERPRINT_KEY`,
    `SPENDFUSE_DISABLED`).
    """

    def __init__(
        self,
        url: Optional[str] = None,
        *,
        token: Optional[str] = None,
        workspace: Optional[str] = None,
        source: Optional[str] = None,
        mode: Optional[str] = None,
        on_unavailable: Optional[str] = None,
        downgrade: Optional[str] = None,
        reserve: Optional[bool] = None,
        check_timeout: Optional[float] = None,
        reserve_timeout: Optional[float] = None,
        delivery_timeout: Optional[float] = None,
        queue_size: Optional[int] = None,
        exit_timeout: Optional[float] = None,
        fingerprint_key: Optional[bytes] = None,
        disabled: Optional[bool] = None,
    ) -> None:
        self.config = _config.from_environment(
            url=url,
            token=token,
            workspace=workspace,
            source=source,
            mode=mode,
            on_unavailable=on_unavailable,
            downgrade=downgrade,
            reserve=reserve,
            check_timeout=check_timeout,
            reserve_timeout=reserve_timeout,
            delivery_timeout=delivery_timeout,
            queue_size=queue_size,
            exit_timeout=exit_timeout,
            fingerprint_key=fingerprint_key,
            disabled=disabled,
        )
        self.sidecar = Sidecar(self.config)
        self.delivery = Delivery(
            self.sidecar.usage, self.sidecar.complaints, self.config.queue_size, self.config.exit_timeout
        )
        self.sessions: weakref.WeakSet[Session] = weakref.WeakSet()
        super().__init__()
        _instances.add(self)

    def configure(self, url: Optional[str] = None, **settings: Any) -> None:
        """Other settings for all that goes by this one; what was told before is delivered as it was to be."""
        former = self.sidecar.watch
        Spendfuse.__init__(self, url, **settings)
        if former is not None:
            former.stop()

    # -- Guarding

    def check(
        self,
        *,
        model: Optional[str] = None,
        provider: Optional[str] = None,
        estimated_cost_usd: Optional[Money] = None,
        estimate: Optional[Mapping[str, Any]] = None,
        reserve: bool = False,
        call_timeout_s: Optional[int] = None,
        **context: Any,
    ) -> Decision:
        """May a call be made? Asks, and raises nothing for the answer; what to hold is `reserve`d until
        the call's usage event names the `reservation_id`, or `release`."""
        asked = self.question(
            model=model,
            provider=provider,
            estimated_cost_usd=estimated_cost_usd,
            estimate=estimate,
            reserve=reserve,
            call_timeout_s=call_timeout_s,
            **context,
        )
        return self._judged(self.sidecar.check(asked), reserve)

    async def acheck(self, **asked: Any) -> Decision:
        """`check` for coroutines: takes the same, and does not hold up the event loop."""
        decision = await self.sidecar.acheck(self.question(**asked))
        return self._judged(decision, asked.get("reserve", False))

    def question(
        self,
        *,
        model: Optional[str] = None,
        provider: Optional[str] = None,
        estimated_cost_usd: Optional[Money] = None,
        estimate: Optional[Mapping[str, Any]] = None,
        reserve: bool = False,
        call_timeout_s: Optional[int] = None,
        **context: Any,
    ) -> dict[str, Any]:
        """The body of a check about a call in the context of this moment."""
        members = {
            "model": model,
            "provider": provider,
            "estimated_cost_usd": None if estimated_cost_usd is None else amount(estimated_cost_usd),
            "estimate": estimate,
            "reserve": reserve or None,
            "call_timeout_s": call_timeout_s,
        }
        session = current_session()
        limit = session.limit() if session is not None else {}
        told = {name: value for name, value in members.items() if value is not None}
        return {**self.who(checked(context)), **limit, **told}

    def guarded_call(
        self,
        call: Callable[..., R],
        *,
        model: Optional[str] = None,
        provider: Optional[str] = None,
        estimated_cost_usd: Optional[Money] = None,
        reserve: bool = False,
        **context: Any,
    ) -> R:
        """Asks, makes the call and tells what it cost.

        `call` gets the model to use where `model` is given, and nothing where it is not. A coroutine
        function, or a function that returns an awaitable, makes this awaitable, too. A refused call is
        not made: `BudgetExceededError`, `SessionBlockedError` or `StateUnknownError` says why.
        """
        fields = checked(context)
        asked: dict[str, Any] = dict(
            model=model, provider=provider, estimated_cost_usd=estimated_cost_usd, reserve=reserve
        )
        if inspect.iscoroutinefunction(call):
            return cast(R, self._aguarded_call(call, asked, fields))
        with Applied(fields):
            use, permission = self._permitted(self.check(**asked), model)
            try:
                with Applied({}, permission=permission):
                    result = call() if use is None else call(use)
                if not inspect.isawaitable(result):
                    self._settle(result, permission, use, provider)
                    return result
            except BaseException:
                self._give_back(permission)
                raise
        return cast(R, self._awaited(result, permission, use, provider, fields))

    def _permitted(self, decision: Decision, model: Optional[str]) -> tuple[Optional[str], Permission]:
        """The model to call, where one is asked for; raises where the call is refused."""
        decision.raise_for_block()
        use = None if model is None else self.model_by(decision, model)
        return use, Permission(self, decision, None if use == model else use)

    async def _aguarded_call(
        self, call: Callable[..., Awaitable[Any]], asked: dict[str, Any], fields: Mapping[str, Any]
    ) -> Any:
        with Applied(fields):
            use, permission = self._permitted(await self.acheck(**asked), asked["model"])
            try:
                result = call() if use is None else call(use)
            except BaseException:
                self._give_back(permission)
                raise
        return await self._awaited(result, permission, use, asked["provider"], fields)

    async def _awaited(
        self,
        result: Awaitable[Any],
        permission: Permission,
        model: Optional[str],
        provider: Optional[str],
        fields: Mapping[str, Any],
    ) -> Any:
        with Applied(fields):
            try:
                with Applied({}, permission=permission):
                    answer = await result
            except BaseException:
                self._give_back(permission)
                raise
            self._settle(answer, permission, model, provider)
        return answer

    def _settle(self, result: Any, permission: Permission, model: Optional[str], provider: Optional[str]) -> None:
        decision = permission.taken()
        told: dict[str, Any] = dict(model=model, provider=provider)
        if decision is not None:
            told["reservation_id"] = decision.reservation_id
        if permission.cheaper_model is not None:
            told["flags"] = ["downgraded"]
        # A wrapped client has told of it; where the answer has an id, that says so.
        is_told = permission.is_told and not _usage.names_itself(result)
        if (is_told or not self.told_now(result, told)[1]) and decision is not None:
            self.release(decision)

    def _give_back(self, permission: Permission) -> None:
        decision = permission.taken()
        if decision is not None:
            self.release(decision)

    @overload
    def guard(self, function: F, *, model: Optional[str] = None, **context: Any) -> F: ...

    @overload
    def guard(self, *, model: Optional[str] = None, **context: Any) -> Callable[[F], F]: ...

    def guard(self, function: Optional[F] = None, *, model: Optional[str] = None, **context: Any) -> Any:
        """A decorator: the function runs only while its budgets allow, and its calls count against
        `context`. A value may be a function of the arguments: `customer=lambda request: request.user`.

        For functions, coroutine functions, generators and async generators.
        """
        if function is None:
            return functools.partial(self.guard, model=model, **context)
        from ._guard import guarded

        checked({name: None for name in context})
        return guarded(self, function, model, context)

    def model_by(self, decision: Decision, asked: str, mode: Optional[str] = None) -> str:
        """The model to call by `downgrade`: the cheaper one, the one that was asked for, or an error."""
        mode = mode or self.config.downgrade
        if decision.decision != "downgrade" or decision.downgrade_to in (None, asked) or mode == "ignore":
            return asked
        if mode == "apply":
            return decision.model(asked)
        line = next((line for line in decision.budgets if line.verdict == "downgrade"), decision.budgets[0])
        self.release(decision)
        raise decision.exceeded(line)

    def release(self, decision: Decision) -> None:
        """The call of this decision is not made: what it held is free again."""
        reservation = decision.reservation_id
        if reservation is None:
            return

        def release() -> None:
            self.sidecar.release(reservation)

        self.delivery.put(Waiting(make=release))

    def wrap(
        self,
        client: C,
        *,
        provider: Optional[str] = None,
        reserve: Optional[bool] = None,
        downgrade: Optional[str] = None,
        **context: Any,
    ) -> C:
        """Guards and meters every call of a provider's client: `client = sf.wrap(OpenAI())`.

        Takes clients of `openai`, `anthropic` and `google-genai`, sync and async, LangChain's chat
        models on top of them, and clients of httpx. It is the same object afterwards: same class, same
        methods, same results. `provider` says whose prices hold where the address does not.
        """
        if self.config.disabled:
            return client
        from ._wrap import Meter, wrap

        meter = Meter(
            self,
            provider=provider,
            reserve=reserve,
            downgrade=downgrade,
            fields=checked(context),
        )
        wrap(client, meter)
        return client

    # -- Whom it counts against

    def context(self, **fields: Any) -> Applied:
        """`with sf.context(customer="c-42", feature="agent"):` for all calls in the block."""
        return Applied(checked(fields))

    def session(self, session: Optional[str] = None, *, budget: Optional[Money] = None, **context: Any) -> Session:
        """A run with a budget of its own: `with sf.session(budget="0.50") as s:`."""
        return Session(self, session, None if budget is None else Decimal(str(budget)), checked(context))

    def _judged(self, decision: Decision, reserve: bool) -> Decision:
        session = current_session()
        judged = decision if session is None else session.judged(decision)
        if judged.allowed or not reserve:
            return judged
        # The sidecar has allowed the call, and holds it; the session's own budget refuses it.
        self.release(decision)
        return dataclasses.replace(judged, reservation_id=None)

    def flush(self, timeout: Optional[float] = None) -> bool:
        """Waits until everything told so far is safe; whether it is."""
        return self.delivery.flush(timeout)

    def shutdown(self, timeout: Optional[float] = None) -> bool:
        """The last flush; a process does it by itself at its end, for `exit_timeout` seconds."""
        if self.sidecar.watch is not None:
            self.sidecar.watch.stop()
        return self.delivery.close(timeout)

    def after_fork(self) -> None:
        self.sidecar.after_fork()
        for session in list(self.sessions):
            session.after_fork()


_instances: weakref.WeakSet[Spendfuse] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    answers = sys.modules.get("spendfuse._answer")
    if answers is not None:
        answers.forget_all()
    forget_all()
    for one in list(_instances):
        one.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
