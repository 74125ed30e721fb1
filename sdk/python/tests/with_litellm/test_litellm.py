"""The callback in LiteLLM's own SDK: guarded, held, downgraded, counted once, and no prompt in it."""

from __future__ import annotations

import asyncio
import json
import re
import time
from pathlib import Path
from typing import Any, Awaitable, Callable, Iterator

import pytest

litellm = pytest.importorskip("litellm")

import spendfuse  # noqa: E402
import spendfuse.litellm as callbacks  # noqa: E402
from spendfuse.testing import Recorder  # noqa: E402

SECRET = "what only the model may read"
README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
MESSAGES = [{"role": "user", "content": SECRET}]
BROKEN = (500, {"error": {"message": "broken"}})


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    # LiteLLM's first calls import for seconds, while a check waits.
    recorder = Recorder(workspace="acme", check_timeout=30.0)
    yield recorder
    recorder.shutdown(5)


@pytest.fixture
def installed(recorder: Recorder, provider: Any, monkeypatch: Any) -> Iterator[Callable[..., Any]]:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    monkeypatch.setattr(litellm, "suppress_debug_info", True)

    def install(**options: Any) -> Any:
        return callbacks.install(recorder, **options)

    yield install
    callbacks.uninstall()
    told = json.dumps([recorder.events, recorder.questions])
    assert SECRET not in told


def run(work: Callable[[], Awaitable[Any]]) -> Any:
    async def settled() -> Any:
        try:
            return await work()
        finally:
            # LiteLLM logs in the background of this loop.
            from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER

            await asyncio.sleep(0.1)
            await GLOBAL_LOGGING_WORKER.flush()

    return asyncio.run(settled())


def events_of(recorder: Recorder, count: int) -> list[dict[str, Any]]:
    deadline = time.monotonic() + 5
    while len(recorder.events) < count and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert len(recorder.events) == count, recorder.events
    return recorder.events


def at(provider: Any, **more: Any) -> dict[str, Any]:
    return {"model": "gpt-4o", "messages": MESSAGES, "api_base": provider.url + "/v1", **more}


def test_the_lines_of_the_readme_install_it(recorder: Recorder, provider: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setattr(spendfuse, "_default", recorder)
    programs = re.findall(r"```py\n(.*?)```", README, re.DOTALL)
    try:
        exec(programs[0], {})
        run(lambda: litellm.acompletion(**at(provider)))
    finally:
        callbacks.uninstall()
    assert [event["feature"] for event in events_of(recorder, 1)] == ["chat"]
    own: dict[str, Any] = {}
    exec(programs[1], own)
    assert isinstance(own["callback"], callbacks.SpendfuseCallback)
    assert f'callbacks: ["{callbacks.__name__}.callback"]' in README


def test_calls_are_asked_about_and_counted_with_whom_they_count_against(
    installed: Any, recorder: Recorder, provider: Any
) -> None:
    installed(feature="chat")

    async def work() -> None:
        with spendfuse.context(customer="c-42"):
            await litellm.acompletion(**at(provider, user="someone", metadata={"tags": ["team:growth"]}))
        await litellm.acompletion(**at(provider, user="c-7", litellm_session_id="s-1"))

    run(work)
    first, second = events_of(recorder, 2)
    assert first["customer"] == "c-42" and first["tags"] == {"team": "growth"} and first["feature"] == "chat"
    assert (second["customer"], second["session"], second["workspace"]) == ("c-7", "s-1", "acme")
    assert first["source"] == "litellm" and first["id"].endswith("-of-call-1") and first["usage_format"] == "openai.chat"
    assert first["usage"]["prompt_tokens"] == 1000 and (first["provider"], first["model"]) == ("openai", "gpt-4o")
    assert [question["customer"] for question in recorder.questions] == ["c-42", "c-7"]
    assert recorder.questions[0]["model"] == "gpt-4o"


@pytest.mark.parametrize("kind", ["stream", "responses", "embedding", "messages", "sync", "sync-stream"])
def test_every_kind_of_call_is_counted_once(kind: str, installed: Any, recorder: Recorder, provider: Any) -> None:
    installed()
    base = provider.url + "/v1"

    async def work() -> None:
        if kind == "stream":
            pieces = [piece async for piece in await litellm.acompletion(**at(provider, stream=True))]
            assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == "Hello"
        if kind == "responses":
            await litellm.aresponses(model="gpt-4o", input=SECRET, api_base=base)
        if kind == "embedding":
            await litellm.aembedding(model="text-embedding-3-small", input=SECRET, api_base=base)
        if kind == "messages":
            await litellm.anthropic_messages(
                model="anthropic/claude-opus-4-8", max_tokens=9, messages=MESSAGES, api_base=provider.url
            )

    run(work)
    if kind == "sync":
        litellm.completion(**at(provider))
    if kind == "sync-stream":
        list(litellm.completion(**at(provider, stream=True, stream_options={"include_usage": True})))
    [event] = events_of(recorder, 1)
    assert event["usage"].get("prompt_tokens") == 1000, event
    assert event["usage_format"] == "openai.chat"


SEARCHED = {"type": "web_search_call", "id": "w", "status": "completed", "action": {"type": "search", "query": SECRET}}
CHAT_ANSWER = {"id": "c-1", "object": "chat.completion", "created": 1, "model": "m"}
CHAT_ANSWER["choices"] = [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}]
CHAT_USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


def grounded(model: str) -> dict[str, Any]:
    grounding = {"webSearchQueries": ["a", SECRET, "a"], "groundingChunks": []}
    content = {"role": "model", "parts": [{"text": "Hello"}]}
    candidate = {"index": 0, "content": content, "finishReason": "STOP", "groundingMetadata": grounding}
    usage = {"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 15}
    return {"responseId": "r-1", "modelVersion": model, "candidates": [candidate], "usageMetadata": usage}


@pytest.mark.parametrize(
    ("model", "answer", "units"),
    [
        ("gemini/gemini-3-flash", grounded("gemini-3-flash"), {"web_search_calls": "2"}),
        # Searched once for an answer.
        ("gemini/gemini-2.5-flash", grounded("gemini-2.5-flash"), {"web_search_calls": "1"}),
        # Its own count stands in the usage object.
        (
            "xai/grok-4",
            {**CHAT_ANSWER, "usage": {**CHAT_USAGE, "server_side_tool_usage_details": {"web_search_calls": 2}}},
            None,
        ),
        ("perplexity/sonar", {**CHAT_ANSWER, "usage": {**CHAT_USAGE, "num_search_queries": 2}}, None),
    ],
)
def test_searches_that_a_provider_runs_are_told(
    model: str, answer: Any, units: Any, installed: Any, recorder: Recorder, provider: Any
) -> None:
    installed()
    provider.first = [(200, answer)]
    base = f"{provider.url}/v1beta/models/{model.partition('/')[2]}:generateContent" if "gemini" in model else provider.url
    run(lambda: litellm.acompletion(model=model, messages=MESSAGES, api_key="k", api_base=base))
    [event] = events_of(recorder, 1)
    assert event.get("units") == units
    assert "web_search_requests" not in (event["usage"].get("prompt_tokens_details") or {})


def test_tools_of_responses_are_told(installed: Any, recorder: Recorder, provider: Any) -> None:
    installed()
    message = {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": []}
    opened = {**SEARCHED, "action": {"type": "open_page", "url": "https://example.com"}}
    usage = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
    answer = {"id": "resp_1", "object": "response", "created_at": 1, "status": "completed", "model": "gpt-4o"}
    answer.update(output=[SEARCHED, opened, message], usage=usage, parallel_tool_calls=True, tool_choice="auto", tools=[])
    provider.first = [(200, answer)]
    run(lambda: litellm.aresponses(model="openai/gpt-4o", input=SECRET, api_base=provider.url + "/v1"))
    [event] = events_of(recorder, 1)
    assert event["units"] == {"web_search_calls": "1"}


def test_a_picture_in_a_request_costs_by_its_size_on_the_screen(installed: Any, recorder: Recorder, provider: Any) -> None:
    installed(reserve=True)
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 400_000}}
    run(lambda: litellm.acompletion(**{**at(provider), "messages": [{"role": "user", "content": [picture]}]}))
    assert 5_000 < recorder.questions[0]["estimate"]["input_tokens"] < 5_100


def test_a_stream_whose_usage_nobody_asked_for_is_told_as_an_estimate(
    installed: Any, recorder: Recorder, provider: Any
) -> None:
    installed()
    list(litellm.completion(**at(provider, stream=True)))
    [event] = events_of(recorder, 1)
    assert event["usage_format"] == "estimated" and event["usage"]["output_tokens"] > 0


@pytest.mark.parametrize("is_sync", [False, True])
def test_a_refused_call_is_not_sent_and_not_tried_again(
    is_sync: bool, installed: Any, recorder: Recorder, provider: Any
) -> None:
    installed()
    recorder.refuse("per-customer", "acme/customer=c-1", "0.06", "0.05")
    with spendfuse.context(customer="c-1"), pytest.raises(spendfuse.BudgetExceededError) as raised:
        if is_sync:
            litellm.completion(**at(provider, num_retries=2))
        else:
            run(lambda: litellm.acompletion(**at(provider, num_retries=2)))
    assert (raised.value.budget, str(raised.value.limit)) == ("per-customer", "0.05")
    assert not provider.requests and not recorder.events
    assert len(recorder.questions) == 1 and recorder.questions[0]["customer"] == "c-1"


def test_a_synchronous_call_on_a_running_loop_is_refused_as_elsewhere(
    installed: Any, recorder: Recorder, provider: Any
) -> None:
    installed()

    async def work() -> None:
        with spendfuse.context(customer="c-1"):
            litellm.completion(**at(provider))
            await litellm.acompletion(**at(provider))
            assert len(recorder.questions) == 2
            recorder.refuse("per-customer", "acme/customer=c-1", "0.06", "0.05")
            with pytest.raises(spendfuse.BudgetExceededError):
                # As notebooks do.
                litellm.completion(**at(provider))

    run(work)
    assert len(provider.requests) == 2 and len(recorder.questions) == 3


def router(provider: Any, **more: Any) -> Any:
    def deployment(name: str, model: str) -> dict[str, Any]:
        return {"model_name": name, "litellm_params": {"model": model, "api_key": "k", "api_base": provider.url + "/v1"}}

    return litellm.Router(model_list=[deployment("first", "openai/gpt-4o"), deployment("other", "openai/gpt-4o-mini")], **more)


def test_a_refusal_leaves_a_routers_deployments_as_they_are(installed: Any, recorder: Recorder, provider: Any) -> None:
    installed()
    routed = router(provider, num_retries=2)

    async def work() -> None:
        recorder.refuse("per-customer")
        with pytest.raises(spendfuse.BudgetExceededError):
            await routed.acompletion(model="first", messages=MESSAGES)
        assert len(recorder.questions) == 1
        recorder.answer = {"decision": "allow", "state": "live"}
        await routed.acompletion(model="first", messages=MESSAGES)

    run(work)
    events_of(recorder, 1)


def test_of_retries_and_fallbacks_what_was_answered_is_counted_and_holds_are_given_back(
    installed: Any, recorder: Recorder, provider: Any
) -> None:
    installed(reserve=True)
    recorder.answer = {"decision": "allow", "state": "live", "reservation_id": "r-1"}
    routed = router(provider, num_retries=1, fallbacks=[{"first": ["other"]}])
    provider.first = [BROKEN, BROKEN]
    run(lambda: routed.acompletion(model="first", messages=MESSAGES, max_tokens=50))
    [event] = events_of(recorder, 1)
    assert event["model"] == "gpt-4o-mini" and event["reservation_id"] == "r-1"
    assert len(provider.requests) == len(recorder.questions) == 3
    assert recorder.released == ["r-1", "r-1"]
    estimate = recorder.questions[0]["estimate"]
    assert estimate["max_output_tokens"] == 50 and estimate["input_tokens"] > 0


def test_beyond_a_step_the_cheaper_model_is_called(installed: Any, recorder: Recorder, provider: Any) -> None:
    installed()
    recorder.downgrade("gpt-4o-mini")
    run(lambda: litellm.acompletion(**at(provider)))
    run(lambda: router(provider).acompletion(model="first", messages=MESSAGES))
    assert [request["body"]["model"] for request in provider.requests] == ["gpt-4o-mini"] * 2
    for event in events_of(recorder, 2):
        assert (event["model"], event["flags"]) == ("gpt-4o-mini", ["downgraded"])


def test_answers_from_litellms_cache_cost_nothing(
    installed: Any, recorder: Recorder, provider: Any, monkeypatch: Any
) -> None:
    installed(reserve=True)
    recorder.answer = {"decision": "allow", "state": "live", "reservation_id": "r-1"}
    monkeypatch.setattr(litellm, "cache", litellm.Cache())

    async def work() -> None:
        for _ in range(2):
            await litellm.acompletion(**at(provider, caching=True))
            await asyncio.sleep(0.1)

    run(work)
    events_of(recorder, 1)
    assert len(provider.requests) == 1 and recorder.released == ["r-1"]


def test_a_session_refuses_beyond_its_own_budget(installed: Any, recorder: Recorder, provider: Any) -> None:
    installed()
    recorder.cost_usd = "0.02"

    async def work() -> None:
        with recorder.session(budget="0.01") as session:
            await litellm.acompletion(**at(provider))
            for _ in range(100):
                if session.step().total_cost:
                    break
                await asyncio.sleep(0.02)
            with pytest.raises(spendfuse.BudgetExceededError):
                await litellm.acompletion(**at(provider))

    run(work)
    assert len(provider.requests) == 1
