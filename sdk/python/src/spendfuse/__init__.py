"""Guards and meters AI calls: what is over budget is refused before it is sent, what is made is priced.

    import spendfuse
    from openai import OpenAI

    client = spendfuse.wrap(OpenAI())
    with spendfuse.context(customer="c-42"):
        client.chat.completions.create(model="gpt-4o", messages=[...])

The functions of this module are the verbs of one `Spendfuse`, which is made at the first of them from
the environment, or by `configure`.
"""

from __future__ import annotations

import atexit as _atexit
import threading as _threading
from typing import Any, Callable, Optional, TypeVar, overload

from . import _instrument
from ._client import Spendfuse
from ._context import Applied, copy_context
from ._decision import BudgetLine, Decision, Warning
from ._delivery import close_all as _close_all
from ._errors import BudgetExceededError, SessionBlockedError, SpendfuseError, StateUnknownError
from ._fingerprint import prompt_fingerprint
from ._session import Session, SessionState, StepResult

__version__ = "0.1.0"

__all__ = [
    "BudgetExceededError",
    "BudgetLine",
    "Decision",
    "Session",
    "SessionBlockedError",
    "SessionState",
    "Spendfuse",
    "SpendfuseError",
    "StateUnknownError",
    "StepResult",
    "Warning",
    "acheck",
    "add_usage",
    "check",
    "configure",
    "context",
    "copy_context",
    "flush",
    "guard",
    "guarded_call",
    "instrument",
    "prompt_fingerprint",
    "session",
    "shutdown",
    "track",
    "uninstrument",
    "wrap",
]

_C = TypeVar("_C")
_R = TypeVar("_R")
_F = TypeVar("_F", bound=Callable[..., Any])

_default: Optional[Spendfuse] = None
#: Whether nobody has configured it.
_is_implicit = True
_lock = _threading.Lock()

_atexit.register(_close_all)


def configure(url: Optional[str] = None, **settings: Any) -> Spendfuse:
    """Makes the `Spendfuse` whose verbs this module has, from arguments as `Spendfuse` takes them. What was
    wrapped and guarded before anybody configured anything, as modules do that are imported first, goes by
    these settings, too."""
    global _default, _is_implicit
    with _lock:
        if _default is None or not _is_implicit:
            _default = Spendfuse(url, **settings)
        else:
            _default.configure(url, **settings)
        _is_implicit = False
        return _default


def _sf(**settings: Any) -> Spendfuse:
    """That of the module's verbs; `settings` are those of the first who needs it."""
    global _default
    if _default is None:
        with _lock:
            if _default is None:
                _default = Spendfuse(**settings)
    return _default


def wrap(client: _C, **options: Any) -> _C:
    return _sf().wrap(client, **options)


def check(**asked: Any) -> Decision:
    return _sf().check(**asked)


async def acheck(**asked: Any) -> Decision:
    return await _sf().acheck(**asked)


def guarded_call(call: Callable[..., _R], **options: Any) -> _R:
    return _sf().guarded_call(call, **options)


@overload
def guard(function: _F, **options: Any) -> _F: ...


@overload
def guard(**options: Any) -> Callable[[_F], _F]: ...


def guard(function: Any = None, **options: Any) -> Any:
    return _sf().guard(function, **options)


def context(**fields: Any) -> Applied:
    return _sf().context(**fields)


def session(session: Optional[str] = None, **options: Any) -> Session:
    return _sf().session(session, **options)


def track(response: Any = None, **told: Any) -> Optional[str]:
    return _sf().track(response, **told)


def add_usage(response: Any, **told: Any) -> Optional[str]:
    return _sf().add_usage(response, **told)


def flush(timeout: Optional[float] = None) -> bool:
    return _sf().flush(timeout)


def shutdown(timeout: Optional[float] = None) -> bool:
    return _sf().shutdown(timeout)


def instrument(**options: Any) -> list[str]:
    """Every client of openai, anthropic and google-genai that is made from now on is wrapped, with
    these options of `wrap`. The packages that were found."""
    return _instrument.instrument(_sf(), **options)


def uninstrument() -> None:
    """Undoes `instrument` for clients that are made from now on."""
    _instrument.uninstrument()


for _name in ("wrap", "check", "acheck", "guarded_call", "guard", "context", "session", "track", "add_usage", "flush", "shutdown"):
    globals()[_name].__doc__ = getattr(Spendfuse, _name).__doc__
