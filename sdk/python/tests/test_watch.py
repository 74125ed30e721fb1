"""`mode="watch"`: decisions in this process, by what it hears of the blocklist."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import threading
import time
from pathlib import Path
from typing import Any, Callable, Iterator, Optional
from urllib.parse import parse_qs, urlsplit

import pytest
import spendfuse
from fake import FakeSidecar
from spendfuse import Spendfuse
from spendfuse._decision import Decision
from spendfuse._standings import Standings

VECTORS = Path(__file__).resolve().parents[3] / "schemas" / "decision-vectors.json"
CASES = json.loads(VECTORS.read_text(encoding="utf-8"))["cases"]
USAGE = {"model": "gpt-4o", "usage": {"input_tokens": 10, "output_tokens": 5}}
SHOWN = ("budget", "scope", "verdict", "window", "resets_at", "message")


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_every_call_of_the_vectors_is_decided_as_the_guard_decides_it(case: dict[str, Any]) -> None:
    standings = Standings()
    for step in case["steps"]:
        if "page" in step:
            if "rules" in step["page"]:
                standings = Standings()
            standings.take(step["page"], step["at_ms"])
            continue
        answer = standings.decide(step["call"], step["at_ms"])
        lines = [{name: line.get(name) for name in SHOWN} for line in answer["budgets"]]
        decided = {name: answer[name] for name in ("decision", "downgrade_to", "retry_after_seconds", "state")}
        expected = {name: step[name] for name in decided}
        assert (decided, lines) == (expected, step["budgets"]), step
        assert Decision.read(answer).allowed == (step["decision"] != "block")


class Blocklist:
    """A blocklist as a sidecar serves it: in pages, with waits."""

    def __init__(self, sidecar: FakeSidecar) -> None:
        self.asked: list[dict[str, str]] = []
        self.changes: list[dict[str, Any]] = []
        self.run = 0
        #: Answers that come first.
        self.first: list[tuple[int, dict[str, Any]]] = []
        self.is_away = False
        self.stale_after_ms = 10_000
        self._changed = threading.Condition()
        sidecar.blocklist = self.answer

    def block(self, customer: str, verdict: Optional[str] = "block") -> None:
        value = None if verdict is None else {
            "budget": "daily", "verdict": verdict, "when_stale": verdict, "downgrade_to": "gpt-4o-mini",
            "spent_usd": "5.01", "limit_usd": "5.00", "window": "day:2026-11-22", "resets_at": None,
            "expires_at": None, "where": None, "session_is_root": False, "message": None, "help_url": None,
        }
        with self._changed:
            self.changes.append({"key": f"daily|acme/customer={customer}", "value": value})
            self._changed.notify_all()

    def begin_again(self) -> None:
        """Budgets have changed: every cursor is gone."""
        with self._changed:
            self.run += 1
            self.changes.clear()
            self._changed.notify_all()

    def answer(self, path: str) -> tuple[int, dict[str, Any]]:
        query = {name: values[0] for name, values in parse_qs(urlsplit(path).query).items()}
        self.asked.append(query)
        if self.is_away:
            return 0, {}
        if self.first:
            return self.first.pop(0)
        began = time.monotonic()
        wait = float(query.get("wait", "0ms").removesuffix("ms")) / 1000
        with self._changed:
            run, seq = (int(part) for part in query.get("cursor", f"{self.run}-0").split("-"))
            self._changed.wait_for(lambda: self.run != run or len(self.changes) > seq, wait)
            if self.run != run:
                return 410, {"error": {"code": "cursor_expired", "message": "begin again"}}
            # In pages of two.
            entries = self.changes[seq : seq + 2]
            more = len(self.changes) > seq + 2
        page = {
            "entries": entries, "cursor": f"{run}-{seq + len(entries)}", "more": more, "state": "live", "state_age_ms": 5,
            "complete_to": "2026-11-22T10:15:30Z", "stale_after_ms": self.stale_after_ms, "cold_start": "allow",
            "time": "2026-11-22T10:15:30Z", "waited_ms": int((time.monotonic() - began) * 1000), "workspace": "acme",
            "imposed": {}, **({} if "cursor" in query else {"rules": []}),
        }
        return 200, page


@pytest.fixture
def blocklist(sidecar: FakeSidecar) -> Iterator[Blocklist]:
    blocklist = Blocklist(sidecar)
    yield blocklist
    blocklist.begin_again()


def eventually(holds: Callable[[], bool], patience: float = 10.0) -> None:
    deadline = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def allowed(sf: Spendfuse, customer: str) -> bool:
    return sf.check(customer=customer).allowed


def test_calls_are_decided_here_and_told_there(sidecar: FakeSidecar, blocklist: Blocklist) -> None:
    for customer in ("c-1", "c-2", "c-3"):
        blocklist.block(customer)
    sf = Spendfuse(sidecar.url, mode="watch")
    assert blocklist.asked == []
    # Known from the first call on, though it takes two pages.
    assert not allowed(sf, "c-3") and allowed(sf, "c-4")
    with pytest.raises(spendfuse.BudgetExceededError, match="daily of acme/customer=c-1"):
        sf.guarded_call(lambda: None, customer="c-1")
    blocklist.block("c-4")
    eventually(lambda: not allowed(sf, "c-4"))
    blocklist.block("c-4", None)
    eventually(lambda: allowed(sf, "c-4"))
    blocklist.block("c-5", "downgrade")
    eventually(lambda: sf.check(customer="c-5", model="gpt-4o").model("gpt-4o") == "gpt-4o-mini")
    assert not asyncio.run(sf.acheck(customer="c-1")).allowed
    began, asked = time.monotonic(), len(blocklist.asked)
    for _ in range(1000):
        allowed(sf, "c-1")
    assert time.monotonic() - began < 1.0 and len(blocklist.asked) - asked <= 1
    sf.track(**USAGE, customer="c-1")
    assert sf.flush(5) and len(sidecar.events) == 1
    assert sidecar.checks == []
    sf.shutdown()


def test_while_nothing_is_known_the_settings_decide_and_later_the_age(
    sidecar: FakeSidecar, blocklist: Blocklist, caplog: Any
) -> None:
    blocklist.block("c-1")
    blocklist.is_away = True
    strict = Spendfuse(sidecar.url, mode="watch", on_unavailable="block")
    loose = Spendfuse(sidecar.url, mode="watch")
    began = time.monotonic()
    assert allowed(loose, "c-1")
    with pytest.raises(spendfuse.StateUnknownError):
        strict.guarded_call(lambda: None, customer="c-2")
    assert time.monotonic() - began < 2.0 and "cannot be followed" in caplog.text
    blocklist.is_away, blocklist.stale_after_ms = False, 400
    eventually(lambda: not allowed(loose, "c-1") and allowed(strict, "c-2"))
    assert loose.check().state == "live"
    # It waits for less than the time after which it would be stale.
    time.sleep(1.0)
    assert loose.check().state == "live" and blocklist.asked[-1]["wait"] == "200ms"
    blocklist.is_away = True
    eventually(lambda: loose.check().state == "stale")
    assert not allowed(loose, "c-1")
    for sf in (strict, loose):
        sf.shutdown()


def test_only_the_first_checks_wait_for_a_sidecar_that_says_nothing(sidecar: FakeSidecar) -> None:
    sidecar.hangs = 9.0
    sf = Spendfuse(sidecar.url, mode="watch")
    began = time.monotonic()
    for _ in range(3):
        assert sf.check().state == "unavailable"
    assert time.monotonic() - began < 3.0
    sf.shutdown()


def test_a_budget_that_refuses_because_its_state_is_old_says_so(sidecar: FakeSidecar, blocklist: Blocklist) -> None:
    blocklist.stale_after_ms = 400
    blocklist.block("c-1", "warn")
    blocklist.changes[0]["value"]["when_stale"] = "block"
    sf = Spendfuse(sidecar.url, mode="watch")
    assert allowed(sf, "c-1")
    blocklist.is_away = True
    eventually(lambda: not allowed(sf, "c-1"))
    with pytest.raises(spendfuse.StateUnknownError, match="budget daily .* is old"):
        sf.guarded_call(lambda: None, customer="c-1")
    sf.shutdown()


def test_what_is_gone_is_read_anew_and_meanwhile_what_was_known_counts(sidecar: FakeSidecar, blocklist: Blocklist) -> None:
    blocklist.block("c-1")
    sf = Spendfuse(sidecar.url, mode="watch")
    assert not allowed(sf, "c-1")
    blocklist.first = [(410, {}), (500, {}), (200, {"nonsense": 1})]
    blocklist.begin_again()
    blocklist.block("c-2")
    seen = []

    def is_new() -> bool:
        seen.append((allowed(sf, "c-1"), allowed(sf, "c-2")))
        return seen[-1] == (True, False)

    eventually(is_new)
    assert set(seen) <= {(False, True), (True, False), (False, False)}
    sf.shutdown()


def test_where_too_many_wait_it_asks_without_waiting(sidecar: FakeSidecar, blocklist: Blocklist) -> None:
    sf = Spendfuse(sidecar.url, mode="watch")
    assert allowed(sf, "c-1")
    blocklist.first = [(503, {"error": {"code": "too_many_waiting", "message": "later"}})]
    blocklist.block("c-9")
    eventually(lambda: not blocklist.first)
    blocklist.block("c-1")
    eventually(lambda: not allowed(sf, "c-1"))
    assert [asked for asked in blocklist.asked if "cursor" in asked and "wait" not in asked]
    sf.shutdown()


def test_a_forked_child_follows_by_itself_and_knows_at_once_what_its_parent_knew(
    sidecar: FakeSidecar, blocklist: Blocklist
) -> None:
    blocklist.block("c-1")
    sf = Spendfuse(sidecar.url, mode="watch")
    assert not allowed(sf, "c-1")
    child = os.fork()
    if child == 0:
        knew = not allowed(sf, "c-1")
        try:
            eventually(lambda: not allowed(sf, "c-2"))
        except AssertionError:
            knew = False
        os._exit(0 if knew else 1)
    time.sleep(0.2)
    blocklist.block("c-2")
    eventually(lambda: not allowed(sf, "c-2"))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    sf.shutdown()


def test_a_sidecar_that_is_older_tells_nothing_to_go_by_and_why_is_said(
    sidecar: FakeSidecar, blocklist: Blocklist, caplog: Any
) -> None:
    entry = {"key": "daily|acme/customer=c-1", "value": {"v": 1, "budget": "daily", "verdict": "block"}}
    # It passes by the questions that it does not know.
    blocklist.first = [(200, {"entries": [entry], "cursor": "1-1", "more": False})] * 100
    sf = Spendfuse(sidecar.url, mode="watch", on_unavailable="block")
    assert not allowed(sf, "c-2")
    assert "older than this SDK" in caplog.text
    blocklist.first.clear()
    eventually(lambda: allowed(sf, "c-2"))
    sf.shutdown()


def test_the_thread_ends_with_its_client(sidecar: FakeSidecar, blocklist: Blocklist) -> None:
    def watching() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "spendfuse-watch"]

    blocklist.stale_after_ms = 400
    eventually(lambda: not watching())
    sf: Any = Spendfuse(sidecar.url, mode="watch")
    assert allowed(sf, "c-1") and len(watching()) == 1
    sf = None
    gc.collect()
    eventually(lambda: not watching())


def test_a_mode_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="'check' or 'watch'"):
        Spendfuse(mode="wach")
