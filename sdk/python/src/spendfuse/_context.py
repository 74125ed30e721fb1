"""Whom calls count against: said once for a block of code, found by every call in it.

Held in a context variable, so that asyncio tasks inherit it and threads of a pool do not:
`copy_context` carries it there.
"""

from __future__ import annotations

import contextvars
import difflib
import functools
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, Mapping, NamedTuple, Optional, TypeVar

if TYPE_CHECKING:
    from ._client import Spendfuse
    from ._decision import Decision
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


class Permission:
    """What a `guarded_call` was allowed. The first call of a wrapped client within it takes over what it
    holds, and does not ask again: its own hold would stand in its way."""

    def __init__(self, sf: Spendfuse, decision: Decision, cheaper_model: Optional[str]) -> None:
        self.sf = sf
        self._held = [] if decision.reservation_id is None else [decision]
        #: What a budget wants in the place of the model that was asked for, where that is called.
        self.cheaper_model = cheaper_model
        #: Whether a wrapped client within it tells of its call.
        self.is_told = False

    def taken(self) -> Optional[Decision]:
        """The decision with its hold, for the first who asks."""
        try:
            return self._held.pop()
        except IndexError:
            return None


class _Entered(NamedTuple):
    by: object
    fields: Mapping[str, Any]
    in_session: Optional[Session]
    permission: Optional[Permission]


class _State(NamedTuple):
    """What was entered and not left, and what follows from it."""

    entered: tuple[_Entered, ...]
    fields: Mapping[str, Any]
    session: Optional[Session]
    permission: Optional[Permission]


_NOTHING = _State((), {}, None, None)
_state: contextvars.ContextVar[_State] = contextvars.ContextVar("spendfuse_context", default=_NOTHING)


def checked(fields: Mapping[str, Any]) -> dict[str, Any]:
    """`fields` as they go into events; `None` says nothing.

    Raises `TypeError` for a name that does not exist: a misspelt customer is nobody's budget.
    """
    told: dict[str, Any] = {}
    for name, value in fields.items():
        if name == "tags":
            if value is not None:
                tags = {_text(tag): _text(text) for tag, text in dict(value).items()}
                if len(tags) > MOST_TAGS:
                    raise ValueError(f"{len(tags)} tags; at most {MOST_TAGS} are kept")
                told["tags"] = tags
            continue
        if name not in DIMENSIONS:
            near = difflib.get_close_matches(name, (*DIMENSIONS, "tags"), n=1)
            meant = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(DIMENSIONS)} and tags"
            raise TypeError(f"{name!r} is no field of a context{meant}")
        if value is not None:
            told[name] = _text(value)
    return told


def _text(value: object) -> str:
    # Half a surrogate pair, as undecodable bytes of file names and arguments become, is no JSON to the
    # sidecar: the question would be refused, and the call let go.
    return str(value).encode("utf-8", "replace").decode()


def merged(outer: Mapping[str, Any], inner: Mapping[str, Any]) -> dict[str, Any]:
    """`inner` goes before; tags of both stand side by side."""
    both = {**outer, **inner}
    if outer.get("tags") and inner.get("tags"):
        both["tags"] = {**outer["tags"], **inner["tags"]}
    return both


def current() -> Mapping[str, Any]:
    return _state.get().fields


def current_session() -> Optional[Session]:
    return _state.get().session


def current_permission() -> Optional[Permission]:
    return _state.get().permission


class Applied:
    """A context for as long as a `with` or `async with` lasts. The same object may be entered again
    within itself, and by several threads and tasks at once."""

    def __init__(
        self,
        fields: Mapping[str, Any],
        session: Optional[Session] = None,
        permission: Optional[Permission] = None,
    ) -> None:
        self._fields = fields
        self._in_session = session
        self._permission = permission

    def __enter__(self) -> Applied:
        entered = _Entered(self, self._fields, self._in_session, self._permission)
        _state.set(_with(_state.get(), entered))
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        # Not by tokens: of an object that several threads have entered, nobody knows whose is the last
        # one; and an async generator that is closed by the event loop ends in another context than it
        # began in, where there may be nothing to undo.
        entered = _state.get().entered
        place = next((at for at in range(len(entered) - 1, -1, -1) if entered[at].by is self), None)
        if place is None:
            return
        state = _NOTHING
        for one in entered[:place] + entered[place + 1 :]:
            state = _with(state, one)
        _state.set(state)

    async def __aenter__(self) -> Applied:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.__exit__(kind, error, trace)


def _with(state: _State, one: _Entered) -> _State:
    session = state.session if one.in_session is None else one.in_session
    permission = state.permission if one.permission is None else one.permission
    return _State((*state.entered, one), merged(state.fields, one.fields), session, permission)


def copy_context(function: Callable[..., R]) -> Callable[..., R]:
    """`function` in the context of this moment, for threads: `pool.submit(copy_context(work), …)`."""
    state = _state.get()

    @functools.wraps(function)
    def carried(*args: Any, **kwargs: Any) -> R:
        with Applied(state.fields, state.session, state.permission):
            return function(*args, **kwargs)

    return carried
