"""What is raised, and what it says.

Only verbs that guard raise: `guarded_call`, `guard`, wrapped clients and `Decision.raise_for_block`.
Tracking never does.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Optional

if TYPE_CHECKING:
    from ._decision import Decision


class SpendfuseError(Exception):
    """Everything that this package raises on purpose."""

    def __init__(self, message: str, decision: Optional[Decision] = None) -> None:
        super().__init__(message)
        self.message = message
        #: The whole answer that led to this.
        self.decision = decision

    # Exceptions cross processes (multiprocessing, Celery): the default would call `__init__` with the
    # message alone and lose all else.
    def __reduce__(self) -> Any:
        return (_restored, (type(self), self.args, self.__dict__))


def _restored(kind: type[SpendfuseError], args: tuple[Any, ...], fields: dict[str, Any]) -> SpendfuseError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(fields)
    return error


class BudgetExceededError(SpendfuseError):
    """A budget refuses the call. It was not sent."""

    def __init__(
        self,
        message: str,
        *,
        budget: str,
        scope: str,
        spent: Optional[Decimal],
        limit: Optional[Decimal],
        unit: str = "usd",
        resets_at: Optional[datetime] = None,
        retry_after: Optional[int] = None,
        help_url: Optional[str] = None,
        decision: Optional[Decision] = None,
    ) -> None:
        super().__init__(message, decision)
        #: The budget's id.
        self.budget = budget
        #: What it limits, such as `acme/customer=c-42`.
        self.scope = scope
        #: Spent and limit, in `unit`.
        self.spent = spent
        self.limit = limit
        #: `usd`, `tokens` or `calls`.
        self.unit = unit
        #: When the budget begins anew; `None` where it never does.
        self.resets_at = resets_at
        #: Seconds until every budget that refuses has begun anew; `None` where one never does.
        self.retry_after = retry_after
        #: The budget's own, for people who want more.
        self.help_url = help_url


class SessionBlockedError(SpendfuseError):
    """A detector has stopped the session, because it runs away."""

    def __init__(self, message: str, *, rule: str, scope: str, decision: Optional[Decision] = None) -> None:
        super().__init__(message, decision)
        #: The detector's rule.
        self.rule = rule
        self.scope = scope


class StateUnknownError(SpendfuseError):
    """Nobody knows what is spent, and the settings say that such calls are refused: the sidecar cannot
    be reached (`on_unavailable="block"`) or has not caught up (its `cold_start`, a budget's
    `on_stale`)."""
