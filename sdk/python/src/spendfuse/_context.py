"""Whom calls count against: said once for a block of code, found by every call in it.

Held in a context variable, so that asyncio tasks inherit it and threads of a pool do not:
`copy_context` carries it there.
"""

from __future__ import annotations

import contextvars
import difflib
import functools
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, Mapping, Optional, TypeVar

if TYPE_CHECKING:
    from ._session import Session

#: Fields of events and checks that say whom a call counts against.
DIMENSIONS = (
    "workspace",
    "customer",
    "feature",
    "project",
    "user",
    "agent",
    "plan",
    "environment",
    "account",
    "session",
    "root_session",
)

MOST_TAGS = 16

R = TypeVar("R")

_current: contextvars.ContextVar[Mapping[str, Any]] = contextvars.ContextVar("spendfuse_context", default={})
_session: contextvars.ContextVar[Optional[Session]] = contextvars.ContextVar("spendfuse_session", default=None)


def checked(fields: Mapping[str, Any]) -> dict[str, Any]:
    """`fields` as they go into events; `None` says nothing.

    Raises `TypeError` for a name that does not exist: a misspelt customer is nobody's budget.
    """
    told: dict[str, Any] = {}
    for name, value in fields.items():
        if name == "tags":
            if value is not None:
                tags = {str(tag): str(text) for tag, text in dict(value).items()}
                if len(tags) > MOST_TAGS:
                    raise ValueError(f"{len(tags)} tags; at most {MOST_TAGS} are kept")
                told["tags"] = tags
            continue
        if name not in DIMENSIONS:
            near = difflib.get_close_matches(name, (*DIMENSIONS, "tags"), n=1)
            meant = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(DIMENSIONS)} and tags"
            raise TypeError(f"{name!r} is no field of a context{meant}")
        if value is not None:
            told[name] = str(value)
    return told


def merged(outer: Mapping[str, Any], inner: Mapping[str, Any]) -> dict[str, Any]:
    """`inner` goes before; tags of both stand side by side."""
    both = {**outer, **inner}
    if outer.get("tags") and inner.get("tags"):
        both["tags"] = {**outer["tags"], **inner["tags"]}
    return both


def current() -> Mapping[str, Any]:
    return _current.get()


def current_session() -> Optional[Session]:
    return _session.get()


class Applied:
    """A context for as long as a `with` or `async with` lasts."""

    def __init__(self, fields: Mapping[str, Any], session: Optional[Session] = None) -> None:
        self._fields = fields
        self._in_session = session
        # A stack: the same object may be entered again within itself.
        self._tokens: list[tuple[contextvars.Token[Any], Optional[contextvars.Token[Any]]]] = []

    def __enter__(self) -> Applied:
        token = _current.set(merged(_current.get(), self._fields))
        in_session = None if self._in_session is None else _session.set(self._in_session)
        self._tokens.append((token, in_session))
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        token, in_session = self._tokens.pop()
        try:
            _current.reset(token)
            if in_session is not None:
                _session.reset(in_session)
        except ValueError:
            # An async generator that is closed by the event loop ends in another context than it
            # began in: "Token was created in a different Context". There is nothing to undo there.
            pass

    async def __aenter__(self) -> Applied:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.__exit__(kind, error, trace)


def copy_context(function: Callable[..., R]) -> Callable[..., R]:
    """`function` in the context of this moment, for threads: `pool.submit(copy_context(work), …)`."""
    fields, session = _current.get(), _session.get()

    @functools.wraps(function)
    def carried(*args: Any, **kwargs: Any) -> R:
        with Applied(fields, session):
            return function(*args, **kwargs)

    return carried
