"""Decisions and their errors, and what becomes of calls while the sidecar is away."""

from __future__ import annotations

import asyncio
import os
import pickle
import time
from typing import Any

import pytest
import spendfuse
from fake import FakeSidecar
from spendfuse import Spendfuse

MESSAGES = [{"role": "user", "content": "x" * 400}]
CHAT = {"model": "gpt-4o", "messages": MESSAGES}
USAGE = {"model": "gpt-4o", "usage": {"input_tokens": 10, "output_tokens": 5}}
UNKNOWN = "`session_limit_usd` is unknown and was ignored"


def test_the_error_says_which_budget_and_survives_other_processes(recorder: Any) -> None:
    recorder.answer = {
        "decision": "block",
        "retry_after_seconds": 60,
        "state": "live",
        "budgets": [
            {
                "budget": "cap", "scope": "acme/customer=c-42", "verdict": "block", "spent_usd": "5.000123",
                "limit_usd": "5.00", "resets_at": "2026-11-23T05:00:00Z", "message": None, "help_url": "https://h",
            }
        ],
    }
    with pytest.raises(spendfuse.BudgetExceededError) as refused:
        recorder.guarded_call(lambda: 1 / 0)
    for error in (refused.value, pickle.loads(pickle.dumps(refused.value))):
        assert (error.budget, error.scope, error.unit) == ("cap", "acme/customer=c-42", "usd")
        assert (str(error.spent), str(error.limit)) == ("5.000123", "5.00")
        assert error.resets_at.isoformat() == "2026-11-23T05:00:00+00:00"
        assert (error.retry_after, error.help_url, error.decision.decision) == (60, "https://h", "block")
        assert str(error) == (
            "budget cap of acme/customer=c-42 is used up "
            "($5.000123 of $5.00 spent; resets 2026-11-23T05:00:00Z)"
        )


def test_a_stopped_session_and_an_unknown_state_have_errors_of_their_own(recorder: Any) -> None:
    line = {"budget": "loops", "scope": "acme/session=s-1", "verdict": "block", "spent_usd": None, "limit_usd": None}
    recorder.answer = {"decision": "block", "budgets": [line], "state": "live"}
    with pytest.raises(spendfuse.SessionBlockedError, match="loops"):
        recorder.check().raise_for_block()
    warning = {"type": "cold", "severity": "warning", "message": "not caught up", "wasted_usd": None}
    recorder.answer = {"decision": "block", "budgets": [], "warnings": [warning], "state": "cold"}
    with pytest.raises(spendfuse.StateUnknownError, match="not caught up"):
        recorder.check().raise_for_block()
    # By its `on_stale`: most of it is left.
    line = {"budget": "cap", "scope": "acme", "verdict": "block", "spent_usd": "1.00", "limit_usd": "5.00"}
    warning = {"type": "stale", "severity": "critical", "message": "state is old", "wasted_usd": None, "budget": "cap"}
    recorder.answer = {"decision": "block", "budgets": [line], "warnings": [warning], "state": "stale"}
    with pytest.raises(spendfuse.StateUnknownError, match="state is old"):
        recorder.check().raise_for_block()
    recorder.answer["budgets"].append({**line, "budget": "other", "spent_usd": "5.00"})
    with pytest.raises(spendfuse.BudgetExceededError, match="other"):
        recorder.check().raise_for_block()


@pytest.mark.parametrize("odd", [[], 7, {}, {"decision": "block", "budgets": [7]}, {"decision": "allow", "reserved_usd": "much"}])
def test_an_answer_that_is_none_is_taken_for_a_sidecar_that_is_away(odd: Any, recorder: Any) -> None:
    recorder.answer = odd
    assert recorder.check().state == "unavailable"


def test_a_sidecar_that_is_away_or_hangs_costs_50_ms_at_most_and_soon_nothing(sidecar: FakeSidecar, caplog: Any) -> None:
    for url, hangs in (("http://127.0.0.1:1", 0.0), (sidecar.url, 0.5)):
        sidecar.hangs = hangs
        sf = Spendfuse(url)
        began = time.monotonic()
        for _ in range(100):
            assert sf.check().decision == "allow"
        # Three that wait, and none after that.
        assert time.monotonic() - began < 2
        assert sf.sidecar.undecided == 100
    assert caplog.text.count("does not answer") == 2
    sidecar.hangs = 0
    time.sleep(1.1)
    assert sf.check().state == "live"
    assert sf.check().state == "live"


def test_who_reserves_waits_for_the_answer_and_not_for_a_connection(sidecar: FakeSidecar) -> None:
    sidecar.decision = {"decision": "block", "budgets": [], "state": "live"}
    sidecar.hangs = 0.3
    sf = Spendfuse(sidecar.url, workspace="acme")
    assert sf.check(reserve=True).decision == "block"
    assert sf.check().state == "unavailable"

    async def main() -> None:
        # More of them than threads for other checks, which do not wait behind them.
        sidecar.hangs = 1.0
        waiting = [asyncio.create_task(sf.acheck(reserve=True)) for _ in range(20)]
        await asyncio.sleep(0.05)
        assert (await sf.acheck()).state == "unavailable"
        assert not any(task.done() for task in waiting)
        assert [decision.decision for decision in await asyncio.gather(*waiting)] == ["block"] * 20

    asyncio.run(main())
    # Whoever hangs altogether is waited for thrice; who is not there, not at all.
    hanging = Spendfuse(sidecar.url, reserve_timeout=0.1)
    assert [hanging.check(reserve=True).state for _ in range(4)] == ["unavailable"] * 4
    began = time.monotonic()
    away = Spendfuse("http://127.0.0.1:1", on_unavailable="block")
    assert [away.check(reserve=True).decision for _ in range(100)] == ["block"] * 100
    assert time.monotonic() - began < 1


def test_without_a_sidecar_calls_are_refused_where_one_says_so(clients: Any, provider: Any) -> None:
    sf = Spendfuse("http://127.0.0.1:1", on_unavailable="block", exit_timeout=0)
    with pytest.raises(spendfuse.StateUnknownError, match="cannot be reached"):
        sf.wrap(clients.openai()).chat.completions.create(**CHAT)
    assert provider.requests == []
    assert Spendfuse("http://127.0.0.1:1").wrap(clients.openai()).chat.completions.create(**CHAT)


def test_coroutines_are_not_held_up_by_a_sidecar_that_hangs(sidecar: FakeSidecar) -> None:
    # Far from what a busy machine does to a loop.
    sidecar.hangs = 3.0
    sf = Spendfuse(sidecar.url, check_timeout=2.0)
    longest = 0.0

    async def tick() -> None:
        nonlocal longest
        for _ in range(20):
            began = time.monotonic()
            await asyncio.sleep(0.005)
            longest = max(longest, time.monotonic() - began)

    async def main() -> None:
        await asyncio.gather(tick(), sf.acheck(), sf.acheck())

    asyncio.run(main())
    assert longest < 1.0


def test_a_unix_socket_a_token_and_a_restart(tmp_path: Any) -> None:
    path = str(tmp_path / "sidecar.sock")
    sidecar = FakeSidecar(path)
    sf = Spendfuse(f"unix:{path}", token="secret")
    assert sf.check(customer="c-1").state == "live"
    assert sidecar.headers[0]["x-spendfuse-token"] == "secret"
    sidecar.stop()
    os.unlink(path)
    again = FakeSidecar(path)
    # The kept connection is dead; the call does not notice.
    assert sf.check(customer="c-1").state == "live"
    again.stop()


def test_disabled_asks_and_tells_nothing(sidecar: FakeSidecar, clients: Any) -> None:
    sf = Spendfuse(sidecar.url, disabled=True)
    client = clients.openai()
    assert sf.wrap(client) is client
    client.chat.completions.create(**CHAT)
    assert sf.check().allowed
    sf.track(**USAGE)
    assert sf.guarded_call(lambda: 7) == 7
    assert sf.flush(1) and sidecar.checks == [] and sidecar.events == []


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (400, {"error": {"code": "bad_request", "message": "session_limit_usd is not supported yet"}}),
        (200, {"decision": "allow", "warnings": [{"type": "unknown_field", "severity": "warning", "message": UNKNOWN}]}),
    ],
)
def test_a_sidecar_that_knows_no_limits_of_sessions_is_not_told_of_them_and_this_process_keeps_them(
    status: int, answer: Any, sidecar: FakeSidecar
) -> None:
    sidecar.check_status, sidecar.decision = status, answer
    sf = Spendfuse(sidecar.url)
    with sf.session(budget="0.02") as run:
        for _ in range(3):
            sidecar.check_status, sidecar.decision = status, answer
            sf.check()
            sidecar.check_status, sidecar.decision = 200, {"decision": "allow", "state": "live"}
            run.step(**USAGE)
        with pytest.raises(spendfuse.BudgetExceededError):
            sf.guarded_call(lambda: None)
    assert sf.flush(5)
    assert ["session_limit_usd" in check for check in sidecar.checks].count(True) == 1
    assert not [event for event in sidecar.events if "session_limit_usd" in event]


@pytest.mark.parametrize("status", [401, 429, 502, 503])
def test_trouble_with_a_check_says_nothing_about_limits_of_sessions(status: int, sidecar: FakeSidecar) -> None:
    sf = Spendfuse(sidecar.url)
    with sf.session(budget="0.02"):
        sidecar.check_status = status
        sf.check()
        sidecar.check_status = 200
        sf.check()
        sf.track(**USAGE)
    assert sf.flush(5)
    assert {event["session_limit_usd"] for event in sidecar.events} == {"0.02"}


def test_whether_limits_of_sessions_are_known_is_asked_with_the_calls_own_workspace(sidecar: FakeSidecar) -> None:
    sidecar.is_strict = True
    sf = Spendfuse(sidecar.url)
    with sf.session(budget="0.02"):
        # Refused for its workspace, not for its limit.
        sf.check()
        with sf.context(workspace="acme"):
            sf.check()
            sf.track(**USAGE)
    assert sf.flush(5)
    assert sidecar.events[0]["session_limit_usd"] == "0.02"


def test_events_say_the_limit_of_their_session_where_no_call_is_checked_at_the_sidecar(sidecar: FakeSidecar) -> None:
    sf = Spendfuse(sidecar.url, workspace="acme")
    with sf.session(budget="0.02") as run:
        sf.track(**USAGE)
        deadline = time.monotonic() + 5
        while not sf.sidecar.takes_session_limits and time.monotonic() < deadline:
            time.sleep(0.01)
        sf.track(**USAGE)
    assert sf.flush(5)
    assert ["session_limit_usd" in event for event in sidecar.events[:2]] == [False, True]
    assert [check["session"] for check in sidecar.checks] == [run.id]
