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
    # The client's call takes it over, asks for none of its own, and settles it.
    assert recorder.events[0]["reservation_id"] == "h.0-1"
    assert released(recorder) == []


@pytest.mark.parametrize("is_async", [False, True])
def test_a_guarded_call_of_a_wrapped_client_that_reserves_asks_once_and_is_known_as_cheaper(
    is_async: bool, recorder: Any, clients: Any
) -> None:
    recorder.downgrade("gpt-4o-mini")
    recorder.answer["reservation_id"] = "h.0-1"

    async def call(model: str) -> Any:
        async with recorder.wrap(clients.async_openai(), reserve=True) as client:
            return await client.chat.completions.create(**{**CHAT, "model": model})

    if is_async:
        asyncio.run(recorder.guarded_call(call, model="gpt-4o", reserve=True))
    else:
        client = recorder.wrap(clients.openai(), reserve=True)
        recorder.guarded_call(lambda model: client.chat.completions.create(**{**CHAT, "model": model}), model="gpt-4o", reserve=True)
    assert [question["model"] for question in recorder.questions] == ["gpt-4o"]
    [event] = recorder.events
    assert (event["request_model"], event["flags"], event["reservation_id"]) == ("gpt-4o-mini", ["downgraded"], "h.0-1")
    assert released(recorder) == []


def test_a_guarded_call_that_holds_nothing_is_known_as_cheaper_too(recorder: Any, clients: Any) -> None:
    client = recorder.wrap(clients.openai())
    recorder.downgrade("gpt-4o-mini")
    recorder.guarded_call(lambda model: client.chat.completions.create(**{**CHAT, "model": model}), model="gpt-4o")
    [event] = recorder.events
    assert (event["request_model"], event["flags"]) == ("gpt-4o-mini", ["downgraded"])
    # Another model within it is no cheaper one.
    recorder.answer = {"decision": "allow", "state": "live"}
    recorder.guarded_call(lambda model: client.chat.completions.create(**CHAT), model="gpt-4o")
    assert "flags" not in recorder.events[1]


def test_only_the_first_call_within_a_guarded_one_takes_over_what_it_holds(recorder: Any, clients: Any) -> None:
    client = recorder.wrap(clients.openai(), reserve=True)
    recorder.answer["reservation_id"] = "h.0-1"

    def twice() -> None:
        client.chat.completions.create(**CHAT)
        recorder.answer["reservation_id"] = "h.0-2"
        client.chat.completions.create(**CHAT)

    recorder.guarded_call(twice, reserve=True)
    assert [event["reservation_id"] for event in recorder.events] == ["h.0-1", "h.0-2"]
    assert len(recorder.questions) == 2
    assert released(recorder) == []


def test_an_answer_without_an_id_is_told_once_by_client_and_by_hand(recorder: Any, clients: Any) -> None:
    client = recorder.wrap(clients.openai())

    def call() -> Any:
        return client.embeddings.create(model="text-embedding-3-small", input="x" * 400)

    recorder.add_usage(call())
    recorder.guarded_call(call)
    assert len(recorder.events) == 2


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
