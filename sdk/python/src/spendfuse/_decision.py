"""The answer to a check."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Mapping, Optional

from ._errors import BudgetExceededError, SessionBlockedError, SpendfuseError, StateUnknownError

#: The warnings that tell of a session which runs away.
FINDINGS = ("budget_exceeded", "retry_loop", "context_bloat", "token_acceleration", "tool_amplification")

_UNITS = ("usd", "tokens", "calls")


def decimal(value: object) -> Optional[Decimal]:
    """A number that came as text or JSON number; never by way of a float's digits."""
    return None if value is None else Decimal(str(value))


def instant(text: Optional[str]) -> Optional[datetime]:
    """RFC 3339, as every time in an answer is."""
    if text is None:
        return None
    # Before Python 3.11 `fromisoformat` knows no Z, and three or six digits of a second only.
    whole, dot, fraction = text.rstrip("Z").partition(".")
    return datetime.fromisoformat(whole + (f".{fraction[:6]:0<6}" if dot else "") + "+00:00")


@dataclass(frozen=True)
class BudgetLine:
    """How a call stands to one budget."""

    budget: str
    scope: str
    verdict: str
    #: `usd`, `tokens` or `calls`.
    unit: str
    spent: Optional[Decimal]
    #: `None`: a detector has stopped the session.
    limit: Optional[Decimal]
    pending: Optional[Decimal]
    reserved: Optional[Decimal]
    remaining: Optional[Decimal]
    percent: Optional[float]
    window: str
    resets_at: Optional[datetime]
    message: Optional[str]
    help_url: Optional[str]

    @classmethod
    def read(cls, line: Mapping[str, Any]) -> BudgetLine:
        unit = next((unit for unit in _UNITS if line.get(f"limit_{unit}") is not None), "usd")
        return cls(
            budget=line.get("budget", ""),
            scope=line.get("scope", ""),
            verdict=line.get("verdict", "ok"),
            unit=unit,
            spent=decimal(line.get(f"spent_{unit}")),
            limit=decimal(line.get(f"limit_{unit}")),
            pending=decimal(line.get(f"pending_{unit}")),
            reserved=decimal(line.get(f"reserved_{unit}")),
            remaining=decimal(line.get(f"remaining_{unit}")),
            percent=line.get("percent"),
            window=line.get("window", ""),
            resets_at=instant(line.get("resets_at")),
            message=line.get("message"),
            help_url=line.get("help_url"),
        )


@dataclass(frozen=True)
class Warning:
    """Something that is wrong with a session, a budget or the question itself."""

    type: str
    severity: str
    message: str
    wasted_usd: Optional[Decimal] = None
    #: The budget that it is about, where it is about one.
    budget: Optional[str] = None

    @classmethod
    def read(cls, warning: Mapping[str, Any]) -> Warning:
        return cls(
            type=warning.get("type") or warning.get("detector") or "",
            severity=warning.get("severity", "warning"),
            message=warning.get("message", ""),
            wasted_usd=decimal(warning.get("wasted_usd")),
            budget=warning.get("budget"),
        )


@dataclass(frozen=True)
class Decision:
    """May the call be made? `allow`, `warn`, `downgrade` or `block`, and why."""

    decision: str
    budgets: tuple[BudgetLine, ...] = ()
    #: The cheaper model, where `decision` is `downgrade`.
    downgrade_to: Optional[str] = None
    warnings: tuple[Warning, ...] = ()
    #: Seconds.
    retry_after: Optional[int] = None
    #: `live`, `stale`, `cold`; `unavailable` where no sidecar was asked.
    state: str = "live"
    state_age_ms: Optional[int] = None
    #: Everything that was accepted before is counted.
    complete_to: Optional[datetime] = None
    #: What the call holds of its budgets until its usage is told.
    reservation_id: Optional[str] = None
    reserved_usd: Optional[Decimal] = None
    reserved_until: Optional[datetime] = None
    #: The answer as it came.
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, answer: Mapping[str, Any]) -> Decision:
        return cls(
            decision=answer["decision"],
            budgets=tuple(map(BudgetLine.read, answer.get("budgets") or ())),
            downgrade_to=answer.get("downgrade_to"),
            warnings=tuple(map(Warning.read, answer.get("warnings") or ())),
            retry_after=answer.get("retry_after_seconds"),
            state=answer.get("state", "live"),
            state_age_ms=answer.get("state_age_ms"),
            complete_to=instant(answer.get("complete_to")),
            reservation_id=answer.get("reservation_id"),
            reserved_usd=decimal(answer.get("reserved_usd")),
            reserved_until=instant(answer.get("reserved_until")),
            raw=answer,
        )

    @property
    def allowed(self) -> bool:
        return self.decision != "block"

    def model(self, asked: str) -> str:
        """The model to call: the cheaper one, where a budget says so."""
        return self.downgrade_to if self.decision == "downgrade" and self.downgrade_to else asked

    def raise_for_block(self) -> None:
        """Raises what a refused call raises; nothing where the call is allowed."""
        if not self.allowed:
            raise self.error()

    def error(self) -> SpendfuseError:
        # Those refuse because what is known of them is old (their `on_stale`), and not by what is spent.
        late = {warning.budget for warning in self.warnings if warning.type == "stale"}
        blocking = [line for line in self.budgets if line.verdict == "block"]
        line = next((line for line in blocking if line.budget not in late), None)
        if line is None:
            return StateUnknownError(self._unknown(), self)
        if line.limit is None:
            message = line.message or f"session stopped by {line.budget} ({line.scope})"
            return SessionBlockedError(message, rule=line.budget, scope=line.scope, decision=self)
        return self.exceeded(line)

    def exceeded(self, line: BudgetLine) -> BudgetExceededError:
        resets = f"; resets {line.resets_at:%Y-%m-%dT%H:%M:%SZ}" if line.resets_at else ""
        figures = f"{shown(line.spent, line.unit)} of {shown(line.limit, line.unit)} spent"
        held = f", {shown(line.reserved, line.unit)} held by calls under way" if line.reserved else ""
        reason = line.message or f"budget {line.budget} of {line.scope} is used up"
        return BudgetExceededError(
            f"{reason} ({figures}{held}{resets})",
            budget=line.budget,
            scope=line.scope,
            spent=line.spent,
            limit=line.limit,
            unit=line.unit,
            resets_at=line.resets_at,
            retry_after=self.retry_after,
            help_url=line.help_url,
            decision=self,
        )

    def _unknown(self) -> str:
        if self.state == "unavailable":
            return "the spendfuse sidecar cannot be reached, and on_unavailable is block"
        told = next((warning.message for warning in self.warnings if warning.type in ("cold", "stale")), None)
        return told or "the sidecar does not know what is spent, and refuses calls until it does"


def shown(amount: Optional[Decimal], unit: str) -> str:
    if amount is None:
        return "?"
    return f"${amount}" if unit == "usd" else f"{amount} {unit}"
