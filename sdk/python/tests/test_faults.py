"""What SDKs of this kind are commonly reported for, each once: types, streams, contexts, odd answers."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any, AsyncIterator, Iterator

import pytest
import spendfuse

MESSAGES = [{"role": "user", "content": "x" * 400}]
CHAT = {"model": "gpt-4o", "messages": MESSAGES}
USAGE = {"model": "gpt-4o", "usage": {"input_tokens": 10, "output_tokens": 5}}


def test_a_stream_keeps_its_type(recorder: Any, clients: Any) -> None:
    import openai

    plain = clients.openai()
    for client in (plain, recorder.wrap(clients.openai())):
        with client.chat.completions.create(**CHAT, stream=True) as stream:
            assert type(stream) is openai.Stream
        raw = client.chat.completions.with_raw_response.create(**CHAT, stream=True)
        assert type(raw.parse()) is openai.Stream


def test_a_stream_that_is_left_is_charged_by_what_was_seen(recorder: Any, clients: Any, provider: Any) -> None:
    client = recorder.wrap(clients.openai())
    for part in client.chat.completions.create(**CHAT, stream=True):
        break
    del part
    gc.collect()
    with client.chat.completions.create(**CHAT, stream=True):
        pass
    provider.breaks_after = 1
    with pytest.raises(Exception):
        list(client.chat.completions.create(**CHAT, stream=True))
    provider.breaks_after = None
    events = recorder.events
    # Each of them once. What was left may have come whole by then.
    assert len(events) == 3
    assert [event["usage_format"] for event in events[1:]] == ["estimated", "estimated"]
    for event in events[1:]:
        assert event["usage"]["input_tokens"] >= 100


def test_an_anthropic_stream_that_is_left_has_its_exact_input(recorder: Any, clients: Any, provider: Any) -> None:
    provider.breaks_after = 3
    client = recorder.wrap(clients.anthropic())
    message = {"model": "claude-opus-4-8", "max_tokens": 9, "messages": MESSAGES}
    with pytest.raises(Exception):
        list(client.messages.create(**message, stream=True))
    [event] = recorder.events
    assert event["usage_format"] == "estimated"
    assert event["usage"]["input_tokens"] == 1000 and event["usage"]["output_tokens"] >= 1


@pytest.mark.parametrize("status", [400, 422])
def test_a_server_that_refuses_to_be_asked_for_usage_is_asked_without_and_not_again(
    status: int, recorder: Any, clients: Any, provider: Any
) -> None:
    provider.refuses_stream_options, provider.refusal_status = True, status
    client = recorder.wrap(clients.openai(max_retries=0))
    for _ in range(2):
        stream = client.chat.completions.create(**CHAT, stream=True)
        assert "".join(part.choices[0].delta.content for part in stream) == "Hello"
    assert len(provider.requests) == 3
    assert [event["usage_format"] for event in recorder.events] == ["estimated", "estimated"]


@pytest.mark.parametrize("is_async", [False, True])
def test_a_refusal_of_something_else_that_mentions_the_question_for_usage_does_not_end_it(
    is_async: bool, recorder: Any, clients: Any, provider: Any
) -> None:
    import openai

    # The repeat without the question is refused as well: the question was not at fault.
    refused = (400, {"error": {"message": "no such model; stream_options was ignored"}})
    provider.first = [refused, refused]
    client = recorder.wrap(clients.openai(max_retries=0))
    async_client = recorder.wrap(clients.async_openai(max_retries=0))

    async def called() -> Any:
        async with async_client:
            return [part async for part in await async_client.chat.completions.create(**CHAT, stream=True)]

    with pytest.raises(openai.BadRequestError):
        asyncio.run(called()) if is_async else client.chat.completions.create(**CHAT, stream=True)
    assert "stream_options" not in provider.last["body"]
    asked_by = (async_client if is_async else client)._client._transport.meter
    assert asked_by.refusing_hosts == set()
    list(client.chat.completions.create(**CHAT, stream=True))
    assert provider.last["body"]["stream_options"] == {"include_usage": True}
    assert [event["usage_format"] for event in recorder.events] == ["openai.chat"]


def answered(recorder: Any, path: str, *pieces: Any, sent: Any = None) -> Any:
    """What is told of a call that is answered with `pieces`: as a stream, where there are several."""
    httpx = pytest.importorskip("httpx")
    streams = len(pieces) > 1
    body = "".join(f"data: {json.dumps(piece)}\n\n" for piece in pieces) if streams else json.dumps(pieces[0])
    kind = "text/event-stream" if streams else "application/json"

    def answer(_: Any) -> Any:
        return httpx.Response(200, content=iter([body.encode()]), headers={"content-type": kind})

    client = recorder.wrap(httpx.Client(transport=httpx.MockTransport(answer)))
    before = len(recorder.events)
    asked = {"model": "gpt-4o", "input": "x" * 400, "stream": streams} if sent is None else sent
    assert client.post(f"https://api.openai.com{path}", json=asked).text == body
    [event] = recorder.events[before:]
    return event


def test_a_response_that_ends_after_it_was_created_is_charged_by_estimate_and_keeps_its_hold(recorder: Any) -> None:
    recorder.answer["reservation_id"] = "h.0-1"
    begun = {"id": "resp_1", "model": "gpt-4o", "status": "in_progress", "output": [], "usage": None, "background": False}
    created = {"type": "response.created", "response": begun}
    event = answered(recorder, "/v1/responses", created, created)
    assert (event["id"], event["usage_format"], event["reservation_id"]) == ("resp_1", "estimated", "h.0-1")
    assert event["usage"]["input_tokens"] >= 100
    assert recorder.released == []


def test_tools_that_openai_runs_are_told_once_where_its_usage_does_not_count_them(recorder: Any) -> None:
    usage = {"input_tokens": 1000, "output_tokens": 100}
    output = [
        {"type": "web_search_call", "id": "ws_1", "action": {"type": "search", "query": "secret"}},
        {"type": "web_search_call", "id": "ws_2", "action": {"type": "open_page", "url": "secret"}},
        {"type": "web_search_call", "id": "ws_3", "action": {"type": "find_in_page"}},
        {"type": "web_search_call", "id": "ws_4"},
        {"type": "file_search_call", "id": "fs_1"},
        {"type": "code_interpreter_call", "id": "ci_1", "container_id": "c-1"},
        {"type": "code_interpreter_call", "id": "ci_2", "container_id": "c-1"},
        {"type": "message", "id": "m"},
    ]
    whole = {"id": "resp_1", "model": "gpt-4o", "status": "completed", "output": output, "usage": usage}
    found = {"web_search_calls": "2", "file_search_calls": "1", "code_interpreter_calls": "1"}
    assert answered(recorder, "/v1/responses", whole)["units"] == found
    added = [{"type": "response.output_item.added", "output_index": place, "item": item} for place, item in enumerate(output)]
    done = [{**piece, "type": "response.output_item.done"} for piece in added]
    # Some servers name their items anew at the end.
    named_anew = [{**item, "id": f"other-{place}"} for place, item in enumerate(output)]
    completed = {"type": "response.completed", "response": {**whole, "id": "resp_2", "output": named_anew}}
    assert answered(recorder, "/v1/responses", *added, *done, completed)["units"] == found
    # Cut before its end: what was searched by then is billed.
    cut = answered(recorder, "/v1/responses", added[0], done[0], added[3])
    assert (cut["usage_format"], cut["units"]) == ("estimated", {"web_search_calls": "1"})
    for name in ("server_side_tool_usage_details", "server_tool_use"):
        counted = {**whole, "id": name, "usage": {**usage, name: {"web_search_calls": 2}}}
        assert "units" not in answered(recorder, "/v1/responses", counted)
    assert "units" not in answered(recorder, "/v1/responses", {**whole, "id": "resp_3", "output": output[-1:]})
    recorder.track({**whole, "id": "resp_4"})
    assert recorder.events[-1]["units"] == found
    assert "secret" not in json.dumps(recorder.events)


@pytest.mark.parametrize(
    ("model", "expected"),
    [("gemini-2.5-flash", "1"), ("gemini-1.5-pro-002", "1"), ("gemini-3-pro-preview", "2"), ("gemini-3.5-flash", "2")],
)
def test_searches_that_gemini_runs_are_told_by_the_query_or_once_for_an_answer(model: str, expected: str, recorder: Any) -> None:
    path = f"/v1beta/models/{model}:generateContent"
    content = {"role": "model", "parts": [{"text": "Hello"}]}

    def piece(name: str, *queries: str) -> Any:
        grounding = {"groundingMetadata": {"webSearchQueries": list(queries)}}
        usage = {"promptTokenCount": 1000, "candidatesTokenCount": 100}
        return {"responseId": name, "modelVersion": model, "candidates": [{"content": content, **grounding}], "usageMetadata": usage}

    assert answered(recorder, path, piece("r-1", "secret", "other"), sent={})["units"] == {"web_search_calls": expected}
    stream = path.replace("generateContent", "streamGenerateContent")
    pieces = [piece("r-2"), piece("r-2", "secret"), piece("r-2", "secret", "other")]
    assert answered(recorder, stream, *pieces, sent={})["units"] == {"web_search_calls": expected}
    assert "units" not in answered(recorder, path, piece("r-3"), sent={})
    recorder.track(piece("r-4", "secret", "other"))
    assert recorder.events[-1]["units"] == {"web_search_calls": expected}
    assert "secret" not in json.dumps(recorder.events)


def test_searches_of_anthropics_that_a_cut_stream_shows_are_told(recorder: Any) -> None:
    def block(index: int, name: str) -> Any:
        return {"type": "content_block_start", "index": index, "content_block": {"type": "server_tool_use", "name": name}}

    usage = {"input_tokens": 9, "output_tokens": 1, "server_tool_use": {"web_search_requests": 0}}
    begun = {"type": "message_start", "message": {"id": "msg_1", "model": "claude", "usage": usage}}
    cut = [begun, block(1, "web_search"), block(2, "web_fetch"), block(3, "web_search")]
    event = answered(recorder, "/v1/messages", *cut)
    assert (event["usage_format"], event["units"]) == ("estimated", {"web_search_calls": "2"})
    end = {"type": "message_delta", "usage": {"output_tokens": 5, "server_tool_use": {"web_search_requests": 2}}}
    assert "units" not in answered(recorder, "/v1/messages", *cut, end)


def test_a_stream_of_what_is_made_in_the_background_is_not_charged_where_it_is_cut(recorder: Any) -> None:
    recorder.answer["reservation_id"] = "h.0-1"
    whole = {"id": "resp_1", "background": True, "model": "m", "status": "in_progress", "usage": None}
    begun = {"type": "response.created", "response": whole}
    with pytest.raises(ValueError, match="not enough values"):
        answered(recorder, "/v1/responses", begun, {"type": "response.output_text.delta", "delta": "Hello"})
    assert (recorder.events, recorder.released) == ([], ["h.0-1"])


def test_answers_of_a_gateway_are_not_one_for_having_one_id(recorder: Any) -> None:
    httpx = pytest.importorskip("httpx")
    chat = {"id": "chatcmpl-1", "model": "m", "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
    client = recorder.wrap(httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200, json=chat))))
    for _ in range(2):
        client.post("https://gateway.example.com/v1/chat/completions", json={"model": "m"})
    first, second = recorder.events
    assert first["source"] == second["source"] == "spendfuse-python:completions" and first["id"] != second["id"]
    assert first["id"].endswith("-chatcmpl-1")


def test_interactions_with_gemini_are_guarded_and_told(recorder: Any) -> None:
    usage = {"total_input_tokens": 1000, "total_output_tokens": 100, "total_thought_tokens": 20}
    whole = {"id": "i-1", "model": "gemini-3-flash", "status": "completed", "outputs": [{"text": "Hello"}], "usage": usage}
    sent = {"model": "gemini-3-flash", "input": "x" * 400}
    event = answered(recorder, "/v1beta/interactions", whole, sent=sent)
    assert (event["id"], event["usage_format"], event["usage"]) == ("i-1", "gemini.interactions", usage)
    begun = {"event_type": "interaction.created", "interaction": {**whole, "id": "i-2", "usage": None}}
    piece = {"event_type": "step.delta", "delta": {"type": "text", "text": "Hello"}}
    ended = {"event_type": "interaction.completed", "interaction": {**whole, "id": "i-2"}}
    event = answered(recorder, "/v1beta/interactions", begun, piece, ended, sent={**sent, "stream": True})
    assert (event["id"], event["usage_format"], event["usage"]) == ("i-2", "gemini.interactions", usage)
    event = answered(recorder, "/v1beta/interactions", begun, piece, sent={**sent, "stream": True})
    assert (event["usage_format"], event["usage"]["output_tokens"]) == ("estimated", 3)
    # An agent in the place of a model, whose work goes on in the background.
    asked = {"agent": "deep-research", "input": "x" * 400, "background": True}
    event = answered(recorder, "/v1beta/interactions", {"id": "i-4", "status": "in_progress"}, sent=asked)
    assert (event["model"], event["usage_format"]) == ("deep-research", "estimated")
    assert [question["model"] for question in recorder.questions] == ["gemini-3-flash"] * 3 + ["deep-research"]


def test_a_session_with_a_budget_does_not_hold_up_the_loop_while_the_sidecar_does_not_answer() -> None:
    # Takes connections and says nothing.
    with socket.create_server(("127.0.0.1", 0), backlog=128) as black_hole:
        sf = spendfuse.Spendfuse(f"http://127.0.0.1:{black_hole.getsockname()[1]}", check_timeout=0.5, exit_timeout=0)
        lags: list[float] = []

        async def tick() -> None:
            while True:
                began = time.monotonic()
                await asyncio.sleep(0.01)
                lags.append(time.monotonic() - began)

        async def main() -> None:
            ticker = asyncio.create_task(tick())
            with sf.session(budget="0.50"):
                for call in range(20):
                    if call == 3:
                        lags.clear()
                    await sf.guarded_call(answering, model="gpt-4o")
            await asyncio.sleep(0.02)
            ticker.cancel()

        began = time.monotonic()
        asyncio.run(main())
    # Three that wait, beside the loop, and none after that.
    assert time.monotonic() - began < 4
    assert max(lags) < 0.3


async def answering(model: str) -> Any:
    await asyncio.sleep(0.01)
    return {"id": uuid.uuid4().hex, "model": model, "usage": {"prompt_tokens": 1, "completion_tokens": 1}}


def test_answers_without_usage_or_that_are_cut_are_charged_by_estimate(recorder: Any, clients: Any, provider: Any) -> None:
    client = recorder.wrap(clients.openai())
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "y" * 391}}
    provider.first = [
        (200, {"id": "c", "object": "chat.completion", "created": 1, "model": "gpt-4o", "choices": [choice]}),
        (200, {"object": "list", "model": "e", "data": [{"object": "embedding", "index": 0, "embedding": [0.1] * 999}]}),
    ]
    client.chat.completions.create(**CHAT)
    client.embeddings.create(model="e", input="x" * 400)
    chat, embedding = recorder.events
    assert (chat["usage_format"], chat["usage"]["output_tokens"]) == ("estimated", 100)
    assert embedding["usage"]["input_tokens"] >= 100 and embedding["usage"]["output_tokens"] == 0


ODD = [
    7, [], {"choices": [7]}, {"choices": {"a": 1}, "usage": 7}, {"choices": [{"delta": 1, "message": [1]}]}, {"output": [1]},
    {"choices": [{"message": {"tool_calls": [1]}}]}, {"content": 7, "usage": []}, {"usage": {"input_tokens": "many"}},
    {"candidates": [1], "usageMetadata": 3}, {"response": {"output": 7}}, {"content_block": 1, "message": 2},
    {"id": 1, "model": 2, "usage": {"prompt_tokens": float("inf")}}, {"usage": {"cache_creation": 5, "input_tokens": 1}},
]


@pytest.mark.parametrize("odd", ODD, ids=str)
@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1/models/m:generateContent"])
def test_an_answer_of_an_unknown_form_reaches_the_app_as_it_is(path: str, streams: bool, odd: Any, recorder: Any) -> None:
    httpx = pytest.importorskip("httpx")
    body = json.dumps(odd)
    body = f"data: {body}\n\ndata: {body}\n\n" if streams else body
    kind = "text/event-stream" if streams else "application/json"

    def answer(_: Any) -> Any:
        return httpx.Response(200, content=iter([body.encode()]), headers={"content-type": kind})

    transport = httpx.MockTransport(answer)
    client = recorder.wrap(httpx.Client(transport=transport))
    for sent in ({"model": "m", "stream": streams}, [], {"model": 7, "messages": 7, "generationConfig": 7}):
        assert client.post(f"https://api.example.com{path}", json=sent).text == body
    assert len(recorder.questions) == 3


def test_an_answer_that_a_transport_has_read_already_is_told(recorder: Any) -> None:
    httpx = pytest.importorskip("httpx")
    answer = {"id": "c", "model": "gpt-4o", "choices": [], "usage": {"prompt_tokens": 7}}
    client = recorder.wrap(httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200, json=answer))))
    assert client.post("https://api.openai.com/v1/chat/completions", json=CHAT).json() == answer
    [event] = recorder.events
    assert (event["source"], event["id"], event["usage"]) == ("llm:openai", "c", {"prompt_tokens": 7})


def test_a_context_ends_where_an_async_generator_is_closed_by_somebody_else(recorder: Any) -> None:
    async def parts() -> AsyncIterator[int]:
        with recorder.context(customer="c-1"):
            for part in range(3):
                yield part

    async def main() -> None:
        generator = parts()
        async for _ in generator:
            break
        # "Token was created in a different Context", where this is not expected.
        await asyncio.create_task(generator.aclose())  # type: ignore[attr-defined]

    asyncio.run(main())


def test_a_guarded_generator_keeps_its_context_from_its_consumer(recorder: Any) -> None:
    @recorder.guard(customer=lambda name: name)
    def parts(name: str) -> Iterator[int]:
        recorder.track(**USAGE)
        got = yield 1
        assert got == "sent"
        recorder.track(**USAGE)
        yield 2

    @recorder.guard(customer=lambda name: name)
    async def async_parts(name: str) -> AsyncIterator[int]:
        recorder.track(**USAGE)
        yield 1
        recorder.track(**USAGE)
        yield 2

    async def consume() -> None:
        async for _ in async_parts("b"):
            recorder.track(**USAGE)

    generator = parts("a")
    assert next(generator) == 1
    recorder.track(**USAGE)
    assert generator.send("sent") == 2
    with pytest.raises(StopIteration):
        next(generator)
    asyncio.run(consume())
    assert [event.get("customer") for event in recorder.events] == ["a", None, "a", "b", None, "b", None]
    recorder.refuse("cap")
    with pytest.raises(spendfuse.BudgetExceededError):
        next(parts("a"))


def test_tasks_inherit_a_context_and_threads_get_it_by_copy_context(recorder: Any) -> None:
    async def task() -> None:
        recorder.track(**USAGE)

    async def main() -> None:
        with recorder.context(customer="c-1"):
            await asyncio.gather(task(), asyncio.create_task(task()))

    asyncio.run(main())
    with recorder.context(customer="c-2"), ThreadPoolExecutor(2) as pool:
        pool.submit(recorder.track, **USAGE).result()
        pool.submit(spendfuse.copy_context(recorder.track), **USAGE).result()
    assert [event.get("customer") for event in recorder.events] == ["c-1", "c-1", None, "c-2"]
