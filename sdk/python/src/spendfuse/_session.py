"""A run with a budget of its own: an agent's task, a conversation, a job.

What it has cost is what the sidecar answers to its events, exact by its price book, and what the
budgets of the session say where other processes spend in it, too. Where the sidecar knows limits that
a session brings along (`session_limit_usd`), it refuses beyond them in every process; else this
process refuses by what it knows.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from decimal import Decimal
from types import TracebackType
from typing import TYPE_CHECKING, Any, Mapping, Optional

from ._context import Applied, current, current_session, merged
from ._decision import FINDINGS, BudgetLine, Decision, Warning
from ._delivery import Result, Waiting
from ._ids import fresh
from ._standings import escaped

if TYPE_CHECKING:
    from ._client import Spendfuse

#: The id of a budget that only this process knows.
LOCAL_BUDGET = "session"
#: Seconds that a step waits for its price; not at all while the sidecar is known to be away.
_STEP_TIMEOUT = 2.0
_SETTLE_PAUSE = 0.02


@dataclass(frozen=True)
class StepResult:
    """After a step, or at the end of a session."""

    #: Of this step, by the sidecar's prices; `None` where it did not answer in time (it is counted all
    #: the same).
    cost: Optional[Decimal]
    total_cost: Decimal
    #: Of the session's budget; `None` where it has none.
    remaining: Optional[Decimal]
    warnings: tuple[Warning, ...]


@dataclass(frozen=True)
class SessionState:
    total_cost: Decimal
    limit: Optional[Decimal]
    remaining: Optional[Decimal]
    warnings: tuple[Warning, ...]
    #: Every budget that the session counts against.
    budgets: tuple[BudgetLine, ...]


class Session:
    """Made by `Spendfuse.session`; used with `with` or `async with`."""

    def __init__(
        self, sf: Spendfuse, session: Optional[str], budget: Optional[Decimal], fields: Mapping[str, Any]
    ) -> None:
        self._sf = sf
        self.id = session or f"s-{fresh()}"
        self.budget = budget
        outer = current()
        # A session within another one belongs to its root.
        root = outer.get("root_session") or outer.get("session")
        own = {"session": self.id, **({"root_session": root} if root and root != self.id else {})}
        self._fields = merged(fields, own)
        self._applied = Applied(self._fields, self)
        #: The session around this one, in whose budget it counts, too.
        self._outer = current_session()
        self._lock = threading.Lock()
        self._total = Decimal(0)
        #: Of sessions within this one.
        self._within = Decimal(0)
        self._last_told: Optional[datetime] = None
        self._is_ended = False
        self._is_trying_limit = False
        sf.sessions.add(self)

    def after_fork(self) -> None:
        # A thread that is not here may hold the lock, and the parent asks what it was about to ask.
        self._lock = threading.Lock()
        self._is_trying_limit = False

    # -- Steps

    def step(
        self, response: Any = None, *, usage: Optional[Mapping[str, Any]] = None, model: Optional[str] = None, **told: Any
    ) -> StepResult:
        """Tells of one call (as `track` takes it) and waits for its price. Without arguments: how the
        session stands after what wrapped clients have told. A response that one of them has told is not
        told again, and has no `cost` here. Raises nothing for money: the next call is refused. What
        detectors find in a step is known some 50 ms later, at the next one or at `end`."""
        costs: list[Decimal] = []

        def priced(result: Result) -> None:
            self.counted(result)
            costs.append(Decimal(result.get("cost_usd") or 0))

        with self._applied:
            name = self._tell(response, usage, model, told, priced)
            self._deliver()
            cost = costs[0] if name and costs else None
            return dataclasses.replace(self._result(), cost=cost)

    def _tell(
        self, response: Any, usage: Optional[Mapping[str, Any]], model: Optional[str], told: dict[str, Any], priced: Any
    ) -> Optional[str]:
        try:
            event = self._sf.event_of(response, usage, model, told)
            if event is None or (response is not None and self._sf.is_told(event["id"])):
                return None
            return self._sf.tell(event, told, priced)
        except Exception as error:  # noqa: BLE001  an app does not fail because it is watched
            self._sf.sidecar.complaints.say(f"track: {error}", "a step was not told: %s", error)
            return None

    def state(self) -> SessionState:
        """As the sidecar sees it. Raises `SpendfuseError` where it does not answer."""
        state = self._sf.sidecar.state(session=self.id, workspace=self._workspace())
        budgets = tuple(map(BudgetLine.read, state.get("budgets") or ()))
        found = tuple(map(Warning.read, state.get("findings") or ()))
        total = max([self.total_cost, *self._spent_elsewhere(budgets)])
        spent = max(total, self.spent)
        return SessionState(total, self.budget, self._left(spent), self._with_own(found, spent), budgets)

    def end(self, settle: float = 0.5) -> StepResult:
        """Ends the session: delivers what waits, lets the detectors see it (up to `settle` seconds),
        and returns cost and warnings. A second time it only returns them."""
        with self._applied:
            self._deliver()
            self._settle(settle)
            result = self._result()
            if not self._is_ended:
                self._is_ended = True
                self._sf.tell({"type": "spendfuse.session_end", "id": f"end-{self.id}"}, {})
        return result

    def __enter__(self) -> Session:
        self._applied.__enter__()
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        if not self._is_ended:
            self._is_ended = True
            # In the background: nobody waits for a result here.
            self._sf.tell({"type": "spendfuse.session_end", "id": f"end-{self.id}"}, {})
        self._applied.__exit__(kind, error, trace)

    async def __aenter__(self) -> Session:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.__exit__(kind, error, trace)

    # -- What it has cost

    @property
    def total_cost(self) -> Decimal:
        """What this process knows of."""
        with self._lock:
            return self._total

    @property
    def spent(self) -> Decimal:
        """What counts in its budget: with what sessions within it cost."""
        with self._lock:
            return self._total + self._within

    def counted(self, result: Result) -> None:
        """An event of this session is safe."""
        cost = Decimal(result.get("cost_usd") or 0) if result.get("status") == "accepted" else Decimal(0)
        with self._lock:
            self._total += cost
            self._last_told = datetime.now(timezone.utc)
        outer = self._outer
        while outer is not None:
            with outer._lock:
                outer._within += cost
            outer = outer._outer

    def limit(self) -> dict[str, str]:
        """What a check says of the limit; a sidecar that does not know such limits is not told of it."""
        return {} if self.budget is None else {"session_limit_usd": format(self.budget, "f")}

    def told_limit(self) -> dict[str, str]:
        """What an event says of the limit: nothing before the sidecar has told that it knows such."""
        limit, sidecar = self.limit(), self._sf.sidecar
        if limit and sidecar.takes_session_limits is None and not sidecar.is_away:
            self._try_limit({**self._sf.who(self._fields), **limit})
        return limit if sidecar.takes_session_limits else {}

    def _try_limit(self, question: Mapping[str, Any]) -> None:
        """In the background: an event is told on an event loop, too, and while garbage is collected."""
        if self._is_trying_limit:
            return

        def ask() -> None:
            self._is_trying_limit = False
            self._sf.sidecar.try_session_limit(question)

        self._is_trying_limit = True
        if not self._sf.delivery.put(Waiting(make=ask)):
            self._is_trying_limit = False

    def judged(self, decision: Decision) -> Decision:
        """`decision`, unless this process knows that the budget is spent, or that of a session around."""
        if not decision.allowed:
            return decision
        spent = self.spent
        if self.budget is None or spent < self.budget:
            return decision if self._outer is None else self._outer.judged(decision)
        line = BudgetLine(
            budget=LOCAL_BUDGET,
            scope=f"session={self.id}",
            verdict="block",
            unit="usd",
            spent=spent,
            limit=self.budget,
            pending=None,
            reserved=None,
            remaining=Decimal(0),
            percent=None,
            window="session",
            resets_at=None,
            message=f"session {self.id} has reached its budget",
            help_url=None,
        )
        return dataclasses.replace(decision, decision="block", budgets=(line, *decision.budgets), downgrade_to=None)

    # -- Inside

    def _result(self) -> StepResult:
        total = self.total_cost
        decision = self._sf.check()
        found = tuple(warning for warning in decision.warnings if warning.type in FINDINGS)
        spent = self.spent
        return StepResult(None, total, self._left(spent), self._with_own(found, spent))

    def _with_own(self, found: tuple[Warning, ...], spent: Decimal) -> tuple[Warning, ...]:
        is_over = self.budget is not None and spent >= self.budget
        if not is_over or any(warning.type == "budget_exceeded" for warning in found):
            return found
        message = f"session {self.id} has spent ${spent} of ${self.budget}"
        beyond = spent - (self.budget or 0)
        return (*found, Warning("budget_exceeded", "critical", message, beyond))

    def _left(self, spent: Decimal) -> Optional[Decimal]:
        return None if self.budget is None else max(Decimal(0), self.budget - spent)

    def _spent_elsewhere(self, budgets: tuple[BudgetLine, ...]) -> list[Decimal]:
        scope = f"session={escaped(self.id)}"
        own = [line for line in budgets if line.scope.endswith(scope) and line.unit == "usd"]
        return [line.spent for line in own if line.spent is not None]

    def _workspace(self) -> Optional[str]:
        workspace = merged(current(), self._fields).get("workspace")
        return workspace or self._sf.config.workspace

    def _deliver(self) -> None:
        self._sf.flush(0 if self._sf.sidecar.is_away else _STEP_TIMEOUT)

    def _settle(self, patience: float) -> None:
        """Until everything told is counted, by the sidecar's word."""
        deadline = time.monotonic() + patience
        while self._last_told is not None and time.monotonic() < deadline:
            complete_to = self._sf.check().complete_to
            if complete_to is None or complete_to >= self._last_told:
                return
            time.sleep(_SETTLE_PAUSE)


