"""Against a real sidecar, processor and broker: `tests/tests/pipeline/python_sdk.rs` starts them.

SPENDFUSE_TEST_URL and SPENDFUSE_TEST_SOCKET say where, SPENDFUSE_TEST_TRACKED how many events the
restart is to survive. `deploy/sample/first.yaml` is in force ($0.05 a day for each customer of acme), and
workspace cheap gets gpt-4o-mini beyond $0.003.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
import spendfuse

URL = os.environ.get("SPENDFUSE_TEST_URL")
SOCKET = os.environ.get("SPENDFUSE_TEST_SOCKET", "")
TRACKED = int(os.environ.get("SPENDFUSE_TEST_TRACKED", "0"))

pytestmark = pytest.mark.skipif(URL is None, reason="SPENDFUSE_TEST_URL names no sidecar")

# A customer has five cents a day, so that each run has its own.
RUN = uuid.uuid4().hex[:8]
MESSAGES = [{"role": "user", "content": "x"}]


@pytest.fixture
def sf() -> Iterator[spendfuse.Spendfuse]:
    # A busy machine's checks may take longer than an app would wait.
    sf = spendfuse.Spendfuse(URL, workspace="acme", check_timeout=5.0, fingerprint_key=b"k")
    yield sf
    assert sf.shutdown(20)


def line_of(sf: spendfuse.Spendfuse, customer: str) -> spendfuse.BudgetLine:
    return next(line for line in sf.check(customer=customer).budgets if line.budget == "per-customer")


def eventually(holds: Callable[[], Any], what: str, patience: float = 20.0) -> None:
    deadline = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def test_every_providers_calls_are_priced_and_counted(sf: spendfuse.Spendfuse, clients: Any) -> None:
    openai, claude = sf.wrap(clients.openai(), provider="openai"), sf.wrap(clients.anthropic())
    gemini = sf.wrap(clients.gemini())
    claude_call = {"model": "claude-opus-4-8", "max_tokens": 9, "messages": MESSAGES}

    async def asynchronous() -> None:
        async with sf.wrap(clients.async_openai(), provider="openai") as client:
            await client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)

    with sf.session(customer=f"c-priced-{RUN}") as run:
        list(gemini.models.generate_content_stream(model="gemini-2.5-flash", contents="x"))
        gemini.models.generate_content(model="gemini-2.5-flash", contents="x")
        openai.chat.completions.create(model="gpt-4o", messages=MESSAGES)
        list(openai.chat.completions.create(model="gpt-4o", messages=MESSAGES, stream=True))
        openai.responses.create(model="gpt-4o", input="x")
        asyncio.run(asynchronous())
        claude.messages.create(**claude_call)
        total = run.step().total_cost
        state = run.state()
        assert state.total_cost == total
        assert {line.budget for line in state.budgets} <= {"per-customer"}
    # 1,000 tokens in and 100 out of each: gpt-4o at $2.50 and $10 a million, gpt-4o-mini at $0.15 and
    # $0.60, gemini-2.5-flash at $0.30 and $2.50, claude-opus-4-8 at $5 and $25.
    assert total == 3 * Decimal("0.0035") + Decimal("0.00021") + 2 * Decimal("0.00055") + Decimal("0.0075")
    eventually(lambda: line_of(sf, f"c-priced-{RUN}").spent == total, "the ledger says the same")


def test_of_many_at_once_as_many_are_admitted_as_there_is_room_for(sf: spendfuse.Spendfuse, clients: Any, provider: Any) -> None:
    client = sf.wrap(clients.openai(), provider="openai", reserve=True)

    def call(_: int) -> bool:
        # A feature of its own: what ten calls of one have cost is held from then on.
        with sf.context(customer=f"c-holds-{RUN}", feature=RUN):
            try:
                client.chat.completions.create(model="gpt-4o", messages=MESSAGES, max_tokens=950)
                return True
            except spendfuse.BudgetExceededError as error:
                assert error.budget == "per-customer" and "held by calls under way" in str(error)
                return False

    # Each holds $0.0095 and a little: five fit into $0.05 at the same time.
    provider.slow = 0.5
    with ThreadPoolExecutor(20) as pool:
        admitted = sum(pool.map(call, range(20)))
    assert admitted == 5
    sf.flush(10)
    eventually(lambda: line_of(sf, f"c-holds-{RUN}").spent == 5 * Decimal("0.0035"), "what was made is counted")
    assert line_of(sf, f"c-holds-{RUN}").reserved == 0


def test_beyond_a_step_calls_go_to_the_cheaper_model(sf: spendfuse.Spendfuse, clients: Any, provider: Any) -> None:
    client = sf.wrap(clients.openai(), provider="openai", workspace="cheap", customer=RUN)
    client.chat.completions.create(model="gpt-4o", messages=MESSAGES)

    def answered_by_the_cheaper() -> bool:
        answer = client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
        return bool(answer.model == provider.last["body"]["model"] == "gpt-4o-mini")

    eventually(answered_by_the_cheaper, "the step is in force")
    assert sf.check(workspace="cheap", customer=RUN, model="gpt-4o").model("gpt-4o") == "gpt-4o-mini"


def test_who_watches_is_refused_without_asking(clients: Any, monkeypatch: Any) -> None:
    sf = spendfuse.Spendfuse(URL, workspace="acme", mode="watch")
    asked: list[str] = []
    ask = sf.sidecar._server.ask
    monkeypatch.setattr(sf.sidecar._server, "ask", lambda method, path, *rest, **more: asked.append(path) or ask(method, path, *rest, **more))
    client = sf.wrap(clients.openai(), provider="openai", customer=f"c-watch-{RUN}")

    def is_refused() -> bool:
        try:
            client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
            return False
        except spendfuse.BudgetExceededError as error:
            assert error.budget == "per-customer" and error.limit == Decimal("0.05")
            return True

    eventually(is_refused, "the blocklist is heard")
    assert sf.check(customer=f"c-other-{RUN}").state == "live"
    assert sf.shutdown(20) and set(asked) == {"/v1/usage"}


def test_a_loop_is_found_and_warned_of(sf: spendfuse.Spendfuse, clients: Any) -> None:
    client = sf.wrap(clients.openai(), provider="openai")
    with sf.session(customer=f"c-loop-{RUN}") as run:
        for _ in range(4):
            client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)
        found = run.end(settle=20).warnings
    assert [warning.type for warning in found] == ["retry_loop"]
    assert found[0].wasted_usd


def test_revenue_and_ends_of_sessions_are_taken(sf: spendfuse.Spendfuse) -> None:
    sf.track(revenue_usd="4.99", customer="c-1", id="invoice-1")
    with sf.session("s-ends"):
        pass
    assert sf.flush(10)
    assert (sf.delivery.rejected, sf.delivery.delivered) == (0, 2)


@pytest.mark.skipif(TRACKED == 0, reason="SPENDFUSE_TEST_TRACKED says no number")
def test_nothing_is_lost_or_counted_twice_while_the_sidecar_is_killed_and_started_again() -> None:
    sf = spendfuse.Spendfuse(f"unix:{SOCKET}", workspace="tracked", queue_size=TRACKED)
    usage = {"input_tokens": 1000, "output_tokens": 100}

    def track(worker: int) -> None:
        for number in range(worker, TRACKED, 4):
            sf.track(model="gpt-4o-mini", provider="openai", usage=usage, customer="c-1", id=f"t-{number}")
            if number % 64 == 0:
                time.sleep(0.001)

    began = time.monotonic()
    workers = [threading.Thread(target=track, args=(worker,)) for worker in range(4)]
    for worker in workers:
        worker.start()
    eventually(lambda: sf.delivery.delivered > TRACKED // 10, "it is under way", 60)
    # Whoever started this kills the sidecar now, and starts it again.
    Path(SOCKET).with_suffix(".now").touch()
    for worker in workers:
        worker.join()
    assert sf.flush(300)
    assert (sf.delivery.delivered, sf.delivery.dropped, sf.delivery.rejected) == (TRACKED, 0, 0)
    print(f"{TRACKED} events told in {time.monotonic() - began:.1f} s")
