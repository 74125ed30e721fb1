"""For the tests of apps: no sidecar, no network.

    recorder = Recorder()
    client = recorder.wrap(OpenAI(...))
    recorder.refuse("per-customer")      # from now on calls raise BudgetExceededError
    assert recorder.events[0]["customer"] == "c-42"
"""

from __future__ import annotations

import json
from typing import Any, Mapping, Optional

from ._client import Spendfuse
from ._http import Answer


class Recorder(Spendfuse):
    """A `Spendfuse` that keeps what it would tell, and decides as it is told to."""

    def __init__(self, **settings: Any) -> None:
        super().__init__("http://127.0.0.1:1", **settings)
        #: What was told, as `POST /v1/usage` takes it.
        self._events: list[dict[str, Any]] = []
        #: What was asked, as `POST /v1/check` takes it.
        self.questions: list[Mapping[str, Any]] = []
        self.answer: dict[str, Any] = {"decision": "allow", "state": "live"}
        self.cost_usd = "0.001"
        self.released: list[str] = []
        self.sidecar._server = self  # type: ignore[assignment]
        # It decides as it is told to, and there is nothing to follow.
        self.sidecar.watch = None

    @property
    def events(self) -> list[dict[str, Any]]:
        self.flush(5)
        return self._events

    def refuse(self, budget: str, scope: str = "acme", spent: str = "1.00", limit: str = "1.00") -> None:
        line = {"budget": budget, "scope": scope, "verdict": "block", "spent_usd": spent, "limit_usd": limit}
        self.answer = {"decision": "block", "budgets": [line], "state": "live"}

    def downgrade(self, model: str, budget: str = "cap") -> None:
        line = {"budget": budget, "scope": "acme", "verdict": "downgrade", "spent_usd": "1", "limit_usd": "1"}
        self.answer = {"decision": "downgrade", "downgrade_to": model, "budgets": [line], "state": "live"}

    # In place of the sidecar

    def ask(
        self, method: str, path: str, body: bytes = b"", *, timeout: Optional[float] = None, connects: Optional[float] = None
    ) -> Answer:
        if path == "/v1/check":
            self.questions.append(json.loads(body))
            return Answer(200, {}, json.dumps(self.answer).encode())
        if path == "/v1/usage":
            events = json.loads(body)
            self._events += events
            results = [
                # Only calls cost something.
                {"index": index, "id": event["id"], "status": "accepted", "cost_usd": None if "type" in event else self.cost_usd}
                for index, event in enumerate(events)
            ]
            return Answer(202, {}, json.dumps({"results": results}).encode())
        if method == "DELETE":
            self.released.append(path.rpartition("/")[2])
            return Answer(204, {}, b"")
        return Answer(200, {}, json.dumps({"budgets": [], "findings": []}).encode())

    def forget_connections(self) -> None:
        """There are none."""
