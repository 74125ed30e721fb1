"""The providers' own packages, wrapped: every way of calling is guarded and told of, and notices nothing."""

from __future__ import annotations

import asyncio
from typing import Any, Callable

import pytest
import spendfuse
from stub import GEMINI_USAGE, OPENAI_USAGE, RESPONSE_USAGE

MESSAGES = [{"role": "user", "content": "the secret prompt"}]
CHAT = {"model": "gpt-4o", "messages": MESSAGES}
MESSAGE = {"model": "claude-opus-4-8", "max_tokens": 200, "messages": MESSAGES}
GENERATE = {"model": "gemini-2.5-flash", "contents": "the secret prompt"}

# Each a call that returns "Hello", in every way in which these packages are used.


def chat(c: Any) -> str:
    return c.openai().chat.completions.create(**CHAT).choices[0].message.content


def chat_stream(c: Any) -> str:
    # As apps do that never asked for usage: every piece has a choice.
    stream = c.openai().chat.completions.create(**CHAT, stream=True)
    return "".join(part.choices[0].delta.content for part in stream)


def chat_stream_with_usage(c: Any) -> str:
    stream = c.openai().chat.completions.create(**CHAT, stream=True, stream_options={"include_usage": True})
    parts = list(stream)
    # Who asks for it gets it.
    assert parts[-1].usage.prompt_tokens == 1000
    return "".join(part.choices[0].delta.content for part in parts if part.choices)


def chat_helper_stream(c: Any) -> str:
    client = c.openai()
    helper = client.chat.completions if hasattr(client.chat.completions, "stream") else client.beta.chat.completions
    with helper.stream(**CHAT) as stream:
        return stream.get_final_completion().choices[0].message.content


def chat_raw(c: Any) -> str:
    raw = c.openai().chat.completions.with_raw_response.create(**CHAT)
    assert raw.headers["x-request-id"]
    return raw.parse().choices[0].message.content


def chat_raw_stream(c: Any) -> str:
    raw = c.openai().chat.completions.with_raw_response.create(**CHAT, stream=True)
    return "".join(part.choices[0].delta.content for part in raw.parse())


def chat_streaming_response(c: Any) -> str:
    with c.openai().chat.completions.with_streaming_response.create(**CHAT) as response:
        return response.parse().choices[0].message.content


def chat_with_options(c: Any) -> str:
    client = c.openai().with_options(timeout=9).copy(max_retries=1)
    return client.chat.completions.create(**CHAT).choices[0].message.content


def responses(c: Any) -> str:
    return c.openai().responses.create(model="gpt-4o", input="x").output_text


def responses_stream(c: Any) -> str:
    events = list(c.openai().responses.create(model="gpt-4o", input="x", stream=True))
    return events[-1].response.output_text


def message(c: Any) -> str:
    return c.anthropic().messages.create(**MESSAGE).content[0].text


def message_stream(c: Any) -> str:
    events = c.anthropic().messages.create(**MESSAGE, stream=True)
    return "".join(event.delta.text for event in events if event.type == "content_block_delta")


def message_helper_stream(c: Any) -> str:
    with c.anthropic().messages.stream(**MESSAGE) as stream:
        return stream.get_final_text()


def message_raw(c: Any) -> str:
    return c.anthropic().messages.with_raw_response.create(**MESSAGE).parse().content[0].text


# Google's clients close themselves where nobody holds them.


def generate(c: Any) -> str:
    client = c.gemini()
    return client.models.generate_content(**GENERATE).text


def generate_stream(c: Any) -> str:
    client = c.gemini()
    return "".join(part.text for part in client.models.generate_content_stream(**GENERATE))


def gemini_chat(c: Any) -> str:
    client = c.gemini()
    return client.chats.create(model="gemini-2.5-flash").send_message("x").text


async def async_chat(c: Any) -> str:
    async with c.async_openai() as client:
        return (await client.chat.completions.create(**CHAT)).choices[0].message.content


async def async_chat_stream(c: Any) -> str:
    async with c.async_openai() as client:
        stream = await client.chat.completions.create(**CHAT, stream=True)
        return "".join([part.choices[0].delta.content async for part in stream])


async def async_chat_with_options(c: Any) -> str:
    client = c.async_openai().with_options(timeout=9)
    return (await client.chat.completions.create(**CHAT)).choices[0].message.content


async def async_message(c: Any) -> str:
    async with c.async_anthropic() as client:
        return (await client.messages.create(**MESSAGE)).content[0].text


async def async_message_helper_stream(c: Any) -> str:
    async with c.async_anthropic() as client, client.messages.stream(**MESSAGE) as stream:
        return await stream.get_final_text()


async def async_generate(c: Any) -> str:
    client = c.gemini()
    return (await client.aio.models.generate_content(**GENERATE)).text


async def async_generate_stream(c: Any) -> str:
    client = c.gemini()
    parts = await client.aio.models.generate_content_stream(**GENERATE)
    return "".join([part.text async for part in parts])


OPENAI_CHAT = [
    chat, chat_stream, chat_stream_with_usage, chat_helper_stream, chat_raw, chat_raw_stream,
    chat_streaming_response, chat_with_options, async_chat, async_chat_stream, async_chat_with_options,
]
RESPONSES = [responses, responses_stream]
ANTHROPIC = [
    message, message_stream, message_helper_stream, message_raw, async_message, async_message_helper_stream,
]
GEMINI = [generate, generate_stream, gemini_chat, async_generate, async_generate_stream]
EVERY = [*OPENAI_CHAT, *RESPONSES, *ANTHROPIC, *GEMINI]
USAGE = {
    **{call: ("openai.chat", OPENAI_USAGE) for call in OPENAI_CHAT},
    **{call: ("openai.responses", RESPONSE_USAGE) for call in RESPONSES},
    **{call: ("anthropic.messages", {"input_tokens": 1000, "output_tokens": 100}) for call in ANTHROPIC},
    **{call: ("gemini", GEMINI_USAGE) for call in GEMINI},
}


class Wrapped:
    """Clients as `clients` makes them, wrapped."""

    def __init__(self, clients: Any, sf: spendfuse.Spendfuse, **options: Any) -> None:
        self._clients = clients
        self._sf = sf
        self._options = options

    def __getattr__(self, name: str) -> Callable[..., Any]:
        make = getattr(self._clients, name)
        return lambda **more: self._sf.wrap(make(**more), **self._options)


def made(call: Callable[[Any], Any], clients: Any) -> Any:
    result = call(clients)
    return asyncio.run(result) if asyncio.iscoroutine(result) else result


@pytest.mark.parametrize("call", EVERY, ids=lambda call: call.__name__)
def test_every_way_of_calling_is_told_once_and_notices_nothing(call: Any, recorder: Any, clients: Any, provider: Any) -> None:
    assert made(call, clients) == "Hello"
    with recorder.context(customer="c-42", tags={"team": "growth"}):
        assert made(call, Wrapped(clients, recorder)) == "Hello"
    assert len(recorder.questions) == 1
    question = recorder.questions[0]
    assert (question["workspace"], question["customer"], question["tags"]) == ("acme", "c-42", {"team": "growth"})
    [event] = recorder.events
    usage_format, usage = USAGE[call]
    assert (event["usage_format"], event["usage"]) == (usage_format, usage)
    assert (event["customer"], event["workspace"], event["model"]) == ("c-42", "acme", question["model"])
    # Only what is of use leaves the process.
    assert "secret" not in str(recorder.questions) + str(recorder.events)
    # The provider saw the same request, but for the question for usage and what it may be compressed by.
    plain, wrapped = provider.requests
    asked = {**wrapped["body"]}
    if call in (chat_stream, chat_raw_stream, async_chat_stream, chat_helper_stream):
        assert asked.pop("stream_options") == {"include_usage": True}
    assert asked == plain["body"]
    assert not [name for name in wrapped["headers"] if name.startswith("x-spendfuse")]


@pytest.mark.parametrize("call", EVERY, ids=lambda call: call.__name__)
def test_a_refused_call_raises_what_it_is_and_nothing_is_sent(call: Any, recorder: Any, clients: Any, provider: Any) -> None:
    recorder.refuse("per-customer", "acme/customer=c-42", "5.0001", "5.00")
    with pytest.raises(spendfuse.BudgetExceededError) as refused:
        made(call, Wrapped(clients, recorder))
    assert (refused.value.budget, refused.value.scope) == ("per-customer", "acme/customer=c-42")
    assert str(refused.value.spent) == "5.0001" and str(refused.value.limit) == "5.00"
    assert provider.requests == []
    # Asked once: the client does not try again.
    assert len(recorder.questions) == 1
    assert recorder.events == []


@pytest.mark.parametrize("call", EVERY, ids=lambda call: call.__name__)
def test_a_downgrade_calls_the_cheaper_model(call: Any, recorder: Any, clients: Any, provider: Any) -> None:
    cheaper = {"gemini": "gemini-2.5-flash-lite", "anthropic.messages": "claude-haiku-4-5"}.get(USAGE[call][0], "gpt-4o-mini")
    recorder.downgrade(cheaper)
    assert made(call, Wrapped(clients, recorder)) == "Hello"
    sent = provider.last
    assert cheaper in (sent["body"].get("model"), sent["path"].rpartition("/")[2].partition(":")[0])
    [event] = recorder.events
    assert (event["model"], event["request_model"], event["flags"]) == (cheaper, cheaper, ["downgraded"])


@pytest.mark.parametrize("call", EVERY, ids=lambda call: call.__name__)
def test_what_a_call_holds_is_settled_by_its_event_and_freed_by_an_error(call: Any, recorder: Any, clients: Any, provider: Any) -> None:
    recorder.answer["reservation_id"] = "host.0-1"
    assert made(call, Wrapped(clients, recorder, reserve=True)) == "Hello"
    question = recorder.questions[0]
    assert question["reserve"] is True and question["estimate"]["input_tokens"] > 0
    assert [event["reservation_id"] for event in recorder.events] == ["host.0-1"]
    assert recorder.released == []

    provider.first = [(400, {"error": {"message": "no such thing", "code": 400, "status": "INVALID_ARGUMENT"}})]
    with pytest.raises(Exception, match="no such thing"):
        made(call, Wrapped(clients, recorder, reserve=True))
    assert len(recorder.events) == 1
    assert recorder.released == ["host.0-1"]


def test_a_reserving_client_is_guarded_where_a_call_names_no_model(clients: Any, provider: Any, sidecar: Any) -> None:
    sidecar.limit = "0"
    sf = spendfuse.Spendfuse(sidecar.url, workspace="acme")
    client = sf.wrap(clients.openai(), reserve=True, customer="c-1")
    with pytest.raises(spendfuse.BudgetExceededError):
        client.responses.create(prompt={"id": "pmpt_1"})
    assert provider.requests == []
    # Of a call whose model is known something is held, as ever.
    with pytest.raises(spendfuse.BudgetExceededError):
        client.responses.create(model="gpt-4o", prompt={"id": "pmpt_1"})
    assert [check.get("reserve") for check in sidecar.checks] == [None, True]


def test_each_attempt_of_a_clients_own_retries_is_asked_about_and_only_the_answered_one_told(recorder: Any, clients: Any, provider: Any) -> None:
    provider.first = [(500, {"error": {"message": "try again"}})]
    client = recorder.wrap(clients.openai())
    client.chat.completions.create(**CHAT)
    assert (len(provider.requests), len(recorder.questions)) == (2, 2)
    [event] = recorder.events
    assert event["attempt"] == 2


def test_a_wrapped_client_is_the_same_object_of_the_same_class(recorder: Any, clients: Any) -> None:
    for client in (clients.openai(), clients.async_anthropic(), clients.gemini()):
        kind = type(client)
        assert recorder.wrap(client) is client and type(client) is kind
    with pytest.raises(TypeError, match="cannot be wrapped"):
        recorder.wrap(object())


def test_embeddings_are_told_and_long_answers_are_read_in_the_background(recorder: Any, clients: Any) -> None:
    client = recorder.wrap(clients.openai())
    answer = client.embeddings.create(model="text-embedding-3-small", input=["x"] * 50, encoding_format="float")
    assert len(answer.data) == 50
    [event] = recorder.events
    assert (event["operation"], event["usage"]) == ("embeddings", {"prompt_tokens": 1000, "total_tokens": 1000})


def test_no_model_that_writes_is_asked_to_embed(recorder: Any, clients: Any, provider: Any) -> None:
    recorder.downgrade("gpt-4o-mini")
    recorder.wrap(clients.openai()).embeddings.create(model="text-embedding-3-small", input=["x"], encoding_format="float")
    assert provider.last["body"]["model"] == "text-embedding-3-small"
    assert "flags" not in recorder.events[0]


def test_a_response_in_the_background_is_told_when_it_is_asked_for_and_always_as_the_same(recorder: Any, clients: Any) -> None:
    client = recorder.wrap(clients.openai())
    queued = client.responses.create(model="gpt-4o", input="x", background=True)
    assert recorder.events == []
    client.responses.retrieve(queued.id)
    client.responses.retrieve(queued.id)
    assert len(recorder.questions) == 1
    first, second = recorder.events
    assert (first["source"], first["id"], first["time"]) == (second["source"], second["id"], second["time"])


def test_tool_calls_and_prompts_are_told_as_counts_and_fingerprints(clients: Any, provider: Any) -> None:
    recorder = spendfuse_testing().Recorder(fingerprint_key=b"workspace-key-1")
    provider.tools = True
    client = recorder.wrap(clients.openai())
    messages = [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": [{"type": "text", "text": "What is the weather in Paris?"}]},
    ]
    client.chat.completions.create(model="gpt-4o", messages=messages)
    [event] = recorder.events
    assert (event["tool_calls"], event["prompt_fingerprint"]) == (1, "c6ae7367fc5b744c")


def spendfuse_testing() -> Any:
    import spendfuse.testing

    return spendfuse.testing


def test_clients_made_after_instrument_are_wrapped(recorder: Any, clients: Any) -> None:
    from spendfuse import _instrument

    found = _instrument.instrument(recorder, feature="chat")
    try:
        assert {"openai", "anthropic", "google.genai"} <= set(found)
        for call in (chat, async_chat, message, async_message, generate, async_generate):
            assert made(call, clients) == "Hello"
    finally:
        _instrument.uninstrument()
    assert made(chat, clients) == "Hello"
    assert [event["feature"] for event in recorder.events] == ["chat"] * 6
