"""What a call holds is free again, whatever becomes of the call."""

from __future__ import annotations

import asyncio
import gc
import time
from typing import Any

import pytest
import spendfuse

MESSAGES = [{"role": "user", "content": "Say hello"}]
CHAT = {"model": "gpt-4o", "messages": MESSAGES}


def released(recorder: Any) -> list[str]:
    recorder.flush(5)
    found: list[str] = recorder.released
    return found


def test_a_coroutine_that_is_cancelled_while_it_asks_holds_nothing(recorder: Any) -> None:
    recorder.answer["reservation_id"] = "h.0-1"
    answered = recorder.ask

    def slow(*args: Any, **kwargs: Any) -> Any:
        time.sleep(0.2)
        return answered(*args, **kwargs)

    recorder.ask = slow

    async def main() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(recorder.acheck(model="gpt-4o", reserve=True), 0.05)

    asyncio.run(main())
    deadline = time.monotonic() + 5
    while not recorder.released and time.monotonic() < deadline:
        time.sleep(0.01)
    assert recorder.released == ["h.0-1"]


def test_a_permitted_call_that_never_reaches_its_transport_holds_nothing(recorder: Any, clients: Any) -> None:
    recorder.answer["reservation_id"] = "h.0-1"
    client = recorder.wrap(clients.openai(max_retries=0), reserve=True)
    client._client.close()
    with pytest.raises(Exception):
        client.chat.completions.create(**CHAT)
    gc.collect()
    assert released(recorder) == ["h.0-1"]
    assert recorder.events == []


def test_a_guarded_call_of_a_wrapped_client_holds_once(recorder: Any, clients: Any) -> None:
    client = recorder.wrap(clients.openai())
    recorder.answer["reservation_id"] = "h.0-1"
    recorder.guarded_call(lambda model: client.chat.completions.create(**{**CHAT, "model": model}), model="gpt-4o", reserve=True)
    assert len(recorder.events) == 1
    # Its own, because the client told the answer without it.
    assert released(recorder) == ["h.0-1"]


def test_a_check_that_the_session_refuses_holds_nothing(recorder: Any) -> None:
    with recorder.session(budget="0.001") as run:
        run.step(model="gpt-4o", usage={"input_tokens": 1})
        recorder.answer["reservation_id"] = "h.0-1"
        decision = recorder.check(model="gpt-4o", reserve=True)
    assert (decision.allowed, decision.reservation_id) == (False, None)
    assert released(recorder) == ["h.0-1"]


@pytest.mark.parametrize("is_async", [False, True])
def test_a_request_that_cannot_be_written_down_costs_nothing(is_async: bool, recorder: Any, clients: Any, provider: Any) -> None:
    recorder.answer["reservation_id"] = "h.0-1"
    # A key that was read from a file with its line feed.
    headers = {"x-of-a-file": "value\n"}
    client = recorder.wrap(clients.openai(max_retries=0), reserve=True)
    async_client = recorder.wrap(clients.async_openai(max_retries=0), reserve=True)

    async def called() -> None:
        async with async_client:
            await async_client.chat.completions.create(**CHAT, extra_headers=headers)

    with pytest.raises(Exception, match="Connection error"):
        asyncio.run(called()) if is_async else client.chat.completions.create(**CHAT, extra_headers=headers)
    assert provider.requests == []
    assert recorder.events == []
    assert released(recorder) == ["h.0-1"]


def test_counting_tokens_at_vertex_is_no_call_and_other_makers_models_there_are_guarded(recorder: Any) -> None:
    httpx = pytest.importorskip("httpx")
    recorder.refuse("cap")
    client = recorder.wrap(httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200, json={"input_tokens": 14}))))
    base = "https://aiplatform.eu.rep.googleapis.com/v1/projects/p/locations/eu/publishers"
    counted = client.post(f"{base}/anthropic/models/count-tokens:rawPredict", json={"messages": MESSAGES})
    assert counted.json() == {"input_tokens": 14}
    assert recorder.questions == [] and recorder.events == []
    for model in ("anthropic/models/claude-opus-4-8", "mistralai/models/codestral"):
        with pytest.raises(spendfuse.BudgetExceededError):
            client.post(f"{base}/{model}:rawPredict", json={"messages": MESSAGES})
    asked = [(question["provider"], question["model"]) for question in recorder.questions]
    assert asked == [("vertex_ai", "claude-opus-4-8"), ("vertex_ai", "codestral")]
