"""The small parts: bodies and their edits, pieces of streams, HTTP, fingerprints by the shared vectors."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from spendfuse import _litellm, _usage
from spendfuse._fingerprint import of_request, prompt_fingerprint
from spendfuse._http import Server, Unreachable
from spendfuse._pieces import Elements, Events
from spendfuse._pictures import tokens_of
from spendfuse._request import Body
from spendfuse._routes import host_provider, provider_of, route_of
from spendfuse._seen import Seen
from spendfuse._telling import encoded

VECTORS = Path(__file__).resolve().parents[3] / "schemas" / "fingerprint-vectors.json"


def test_fingerprints_are_those_of_the_shared_vectors() -> None:
    vectors = json.loads(VECTORS.read_text(encoding="utf-8"))["prompt"]
    assert vectors
    for one in vectors:
        assert prompt_fingerprint(one["key"].encode(), one["system"], one["last_user"]) == one["fingerprint"]


def test_fingerprints_of_requests_are_those_of_the_shared_vectors() -> None:
    vectors = json.loads(VECTORS.read_text(encoding="utf-8"))["request"]
    assert len(vectors) > 10
    for one in vectors:
        assert of_request(one["key"].encode(), one["request"]) == one["fingerprint"], one


def _choice(member: str, message: Any, index: int = 0) -> Any:
    return {"choices": [{"index": index, member: message}]}


def _done(kind: str, place: int) -> Any:
    return {"type": "response.output_item.done", "output_index": place, "item": {"type": kind}}


_FIRST, _SECOND = ({"tool_calls": [{"index": index}]} for index in (0, 1))
_OUTPUT = [{"type": kind} for kind in ("function_call", "web_search_call", "custom_tool_call", "mcp_approval_request")]
_SHELLS = [{"type": "shell_call", "environment": {"type": kind}} for kind in ("local", "container_reference")]
_BLOCKS = [{"type": kind} for kind in ("text", "tool_use", "server_tool_use", "tool_use")]
_CUT = [{"functionCall": call} for call in ({"name": "f", "willContinue": True}, {"willContinue": True}, {})]


@pytest.mark.parametrize(
    ("path", "pieces"),
    [
        ("/v1/chat/completions", [_choice("message", {"tool_calls": [{"id": "a"}, {"id": "b"}, 7]})]),
        ("/v1/chat/completions", [_choice("delta", one) for one in (_FIRST, _FIRST, _SECOND)]),
        ("/v1/chat/completions", [_choice("delta", {"function_call": {}}, index) for index in (0, 0, 1)]),
        ("/v1/responses", [{"output": _OUTPUT}]),
        ("/v1/responses", [{"output": [*_SHELLS, {"type": "computer_call"}]}]),
        ("/v1/responses", [_done(one["type"], place) for place, one in enumerate(_OUTPUT)]),
        ("/v1/responses", [_done("function_call", 0), {"response": {"output": _OUTPUT}}]),
        ("/v1/messages", [{"content": _BLOCKS}]),
        ("/v1/messages", [{"index": place, "content_block": one} for place, one in enumerate(_BLOCKS)]),
        ("/v1beta/models/m:generateContent", [{"candidates": [{"content": {"parts": _CUT[2:] * 2}}]}]),
        ("/v1beta/models/m:streamGenerateContent", [{"candidates": [{"content": {"parts": [one]}}]} for one in _CUT * 2]),
    ],
)
def test_two_tools_that_the_app_is_asked_to_run_are_two_whole_or_streamed(path: str, pieces: list[Any]) -> None:
    route, seen = route_of("POST", path), Seen()
    assert route is not None
    for piece in pieces:
        seen.take(route, json.dumps(piece).encode())
    assert seen.tool_calls == 2


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ('{"model":"a","stream":true}', '{"stream_options":{"include_usage":true},"model":"b","stream":true}'),
        ('{ "stream" : true , "stream_options" : null}', '{ "stream" : true , "stream_options" : {"include_usage":true}}'),
        (
            '{"stream":true,"stream_options":{"include_obfuscation":false},"big":12345678901234567890.10}',
            '{"stream":true,"stream_options":{"include_usage":true,"include_obfuscation":false},"big":12345678901234567890.10}',
        ),
        ('{"stream":true,"stream_options":{}}', '{"stream":true,"stream_options":{"include_usage":true}}'),
        (
            '{"stream":true,"stream_options":{"include_usage": false}}',
            '{"stream":true,"stream_options":{"include_usage": true}}',
        ),
        ('{"stream":true,"stream_options":{"include_usage":true}}', None),
        ('{"stream":true,"stream_options":7}', None),
        ('{"x":"{\\"model\\":\\"no\\"}","model":"ä","stream":1}', '{"x":"{\\"model\\":\\"no\\"}","model":"b","stream":1}'),
    ],
)
def test_a_body_is_edited_in_place_and_nothing_else_changes(sent: str, expected: Any) -> None:
    body = Body.read(sent.encode())
    assert body is not None
    edits = body.edits("b", body.can_ask_usage)
    assert (body.edited(edits).decode() if edits else None) == expected


@pytest.mark.parametrize("sent", ["", "[]", "7", '{"a":1', '{"a":1,"a":2}', '{"a" 1}', "{a:1}", "\xff", '{"a":}'])
def test_what_is_no_object_or_can_be_read_in_two_ways_is_not_read(sent: str) -> None:
    assert Body.read(sent.encode("latin-1")) is None


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_cut_at_every_byte_the_events_are_the_same(newline: str) -> None:
    stream = ': ping||data: {"a":1}||event: x|data: 1|data: 2||data: cut'.replace("|", newline).encode()
    for size in range(1, len(stream) + 1):
        events = Events()
        found = [piece for at in range(0, len(stream), size) for piece in events.push(stream[at : at + size])]
        found.append(events.rest())
        assert b"".join(found) == stream
        data = [text for text in map(Events.json, found) if text]
        assert data == [b'{"a":1}', b"1\n2", b"cut"], (newline, size)


def test_cut_at_every_byte_the_elements_of_an_array_are_the_same() -> None:
    stream = b'[{"a":"}\\"]"},\r\n {"b":{"c":[{}]}}\n,{"d":"\\\\"}]'
    for size in range(1, len(stream) + 1):
        elements = Elements()
        found = [piece for at in range(0, len(stream), size) for piece in elements.push(stream[at : at + size])]
        assert b"".join(found) + elements.rest() == stream
        assert list(map(Elements.json, found)) == [b'{"a":"}\\"]"}', b'{"b":{"c":[{}]}}', b'{"d":"\\\\"}']


def test_calls_that_cost_money_are_known_by_their_paths_and_providers_by_their_hosts() -> None:
    for path, operation in [
        ("/v1/chat/completions", "chat"),
        ("/v1/completions", "completion"),
        ("/openai/deployments/d/embeddings", "embeddings"),
        ("/v1/responses", "responses"),
        ("/v1/messages", "chat"),
        ("/v1beta/models/gemini-3:streamGenerateContent", "generate_content"),
        ("/v1beta/models/e:batchEmbedContents", "embeddings"),
        ("/v1/projects/p/locations/l/publishers/anthropic/models/claude:rawPredict", "chat"),
        ("/v1/models", None),
        ("/v1/messages/count_tokens", None),
        ("/v1/messages/batches", None),
        ("/v1/threads/thread_1/messages", None),
        ("/openai/threads/thread_1/messages/", None),
        ("/v1/responses/compact", "responses"),
        ("/v1/responses/resp_1/cancel", None),
        ("/v1beta/interactions", "generate_content"),
        ("/v1beta/tunedModels/mine:generateContent", "generate_content"),
        ("/v1/projects/p/locations/l/endpoints/7:generateContent", "generate_content"),
        ("/v1/projects/p/locations/l/publishers/mistralai/models/mistral:rawPredict", "chat"),
        ("/v1/projects/p/locations/l/publishers/anthropic/models/count-tokens:rawPredict", None),
        # However it is written.
        ("/v1/chat%2Fcompletion%73", "chat"),
        ("//v1//chat///completions/", "chat"),
        ("/v1/chat/completions/x/%2e%2e", "chat"),
        ("/openai/deployments/d/Chat/Completions", "chat"),
        ("/v1beta/models/gemini-3%3AgenerateContent", "generate_content"),
        ("/v1//threads/thread_1/messages", None),
        ("/v1beta/models/gemini-3:countTokens", None),
        ("/v1/my-embeddings", None),
    ]:
        route = route_of("POST", path)
        assert (route and route.operation) == operation, path
    assert [route_of("POST", f"/{path}:generateContent").model for path in ("v1/models/a", "v1/tunedModels/b")] == ["a", "b"]  # type: ignore[union-attr]
    assert route_of("GET", "/v1//responses/resp_1/") and not route_of("GET", "/v1/responses/")
    assert route_of("GET", "/v1/responses/resp_1") and not route_of("GET", "/v1/responses/resp_1/input_items")
    chat = route_of("POST", "/v1/chat/completions")
    assert chat is not None
    for host, provider in [
        ("api.openai.com", "openai"), ("eu.api.openai.com", "openai"), ("me.openai.azure.com", "azure"),
        ("api.groq.com", "groq"), ("notapi.openai.com.evil.org", None), ("localhost", None),
        ("us-central1-aiplatform.googleapis.com", "vertex_ai"), ("aiplatform.eu.rep.googleapis.com", "vertex_ai"),
        ("me.cognitiveservices.azure.com", "azure"), ("bedrock-runtime.us-east-1.amazonaws.com", "bedrock"),
        ("bedrock-runtime-fips.us-gov-west-1.amazonaws.com", "bedrock"),
        ("bedrock-runtime.us-east-1.api.aws", "bedrock"),
        ("bedrock-runtime-fips.us-east-1.api.aws", "bedrock"),
        ("bedrock-mantle.us-east-1.api.aws", "bedrock"),
        ("bedrock-runtime.cn-north-1.amazonaws.com.cn", "bedrock"),
        ("bedrock-runtime.cn-northwest-1.api.amazonwebservices.com.cn", "bedrock"),
        ("bedrock-runtime.eusc-de-east-1.amazonaws.eu", "bedrock"),
        ("vpce-0a1-b2.bedrock-runtime.us-east-1.vpce.amazonaws.com", "bedrock"),
        ("bedrock-1.us-east-1.elb.amazonaws.com", None),
        ("bedrock-runtime.us-east-1.api.aws.evil.org", None),
        ("bedrock-runtime.us-east-1.amazonaws.com.evil.org", None),
        ("bedrock-runtime.api.aws", None),
        ("api.together.ai", "together_ai"), ("api.together.xyz", "together_ai"), ("notapi.openai.com", None),
        ("api.moonshot.ai", "moonshot"), ("api.moonshot.cn", "moonshot"), ("dashscope-intl.aliyuncs.com", "dashscope"),
    ]:
        assert provider_of(host, "/v1/chat/completions", chat) == provider, host
    # Another name of what is at `*.openai.azure.com`, and models of others.
    for path, provider in [("/openai/v1/responses", "azure"), ("/models/chat/completions", "azure_ai"), ("/anthropic/v1/messages", "azure_ai")]:
        assert host_provider("me.services.ai.azure.com", path) == provider, path


def test_a_picture_is_not_counted_as_text() -> None:
    coded = b"A" * 1_000_000
    around = b'{"model":"m","x":"%s"}'
    for picture in (b"data:image/png;base64," + coded, b"iVBORw0KGgo" + coded, b"/9j/" + coded + b"=="):
        assert tokens_of(around % picture) == tokens_of(around % b"") + 5_000
    # Documents have as many words as their bytes may tell.
    for text in (b"data:application/pdf;base64," + coded, b"data:image/png;base64," + coded + b" and words", coded):
        assert tokens_of(around % text) >= 250_000
    assert tokens_of(around % b"iVBORw0KGgo") == 8


def test_half_a_surrogate_pair_is_no_text_to_the_sidecar() -> None:
    half = "\ud83d"
    told = {half: half, "pair": "\U0001f600" + half, "plain": "\\ud83d"}
    assert json.loads(encoded(told)) == {"\ufffd": "\ufffd", "pair": "\U0001f600\ufffd", "plain": "\\ud83d"}
    assert prompt_fingerprint(b"key", half, half)


def answering(*answers: bytes) -> tuple[str, list[bytes]]:
    """A server that sends one of `answers` on each connection, whatever it is asked; what it was asked."""
    listener = socket.create_server(("127.0.0.1", 0))
    asked: list[bytes] = []

    def serve() -> None:
        for answer in answers:
            caller, _ = listener.accept()
            asked.append(caller.recv(65536))
            caller.sendall(answer)
            caller.close()

    threading.Thread(target=serve, daemon=True).start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}", asked


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length:2\r\n\r\nok", b"ok"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;x=y\r\no\r\n1\r\nk\r\n0\r\nA: b\r\n\r\n", b"ok"),
        (b"HTTP/1.0 200 OK\r\n\r\nok", b"ok"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", None),
        (b"SSH-2.0-OpenSSH\r\n\r\n", None),
        (b"", None),
    ],
)
def test_answers_are_read_to_their_end_or_not_at_all(answer: bytes, body: Any) -> None:
    url, _ = answering(answer, answer)
    if body is None:
        with pytest.raises(Unreachable):
            Server(url).ask("GET", "/", timeout=1)
    else:
        assert Server(url).ask("GET", "/", timeout=1).body == body


def test_what_nobody_has_asked_for_is_not_the_answer_to_the_next_question() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for said in (b"ok", b"no"):
            caller, _ = listener.accept()
            caller.recv(65536)
            caller.sendall(answer + said)
            if said == b"ok":
                threading.Timer(0.03, caller.sendall, [answer + b"??"]).start()

    threading.Thread(target=serve, daemon=True).start()
    server = Server(f"http://127.0.0.1:{listener.getsockname()[1]}")
    assert server.ask("GET", "/", timeout=1).body == b"ok"
    threading.Event().wait(0.1)
    assert server.ask("GET", "/", timeout=1).body == b"no"


def test_a_kept_connection_that_was_closed_is_opened_again() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    url, asked = answering(answer, answer)
    server = Server(url + "/prefix", "token")
    assert server.ask("POST", "/v1/check", b"{}", timeout=1).body == b"ok"
    assert server.ask("POST", "/v1/check", b"{}", timeout=1).body == b"ok"
    assert len(asked) == 2 and asked[1].startswith(b"POST /prefix/v1/check HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"x-spendfuse-token: token\r\n" in asked[0]


def test_whoever_sells_a_model_that_is_not_of_openai_is_not_guessed() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 1}
    for model, provider in (("gpt-4o", "openai"), ("moonshot-v1-8k", None), ("MiniMax-M2", None), ("openai/gpt-4o", None)):
        assert (_usage.read({"id": "1", "model": model, "usage": usage}) or {}).get("provider") == provider


def test_of_litellms_log_what_names_no_model_is_no_call() -> None:
    payload = {"id": "resp_1", "call_type": "aget_responses", "model": "", "prompt_tokens": 0, "completion_tokens": 0}
    assert _litellm.event_of({"standard_logging_object": payload, "litellm_call_id": "call-1"}) is None
    called = _litellm.event_of({"standard_logging_object": {**payload, "model": "gpt-4o"}, "litellm_call_id": "call-1"})
    assert called is not None and called["id"] == "call-1-resp_1"


def test_of_litellms_log_a_stream_whose_usage_came_unasked_is_no_estimate() -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}}
    payload = {
        "id": "x", "call_type": "acompletion", "stream": True, "model": "grok-4", "custom_llm_provider": "xai",
        "prompt_tokens": 10, "completion_tokens": 5, "metadata": {"usage_object": usage},
    }
    told = _litellm.event_of({"standard_logging_object": payload})
    assert told is not None and (told["usage_format"], told["usage"]) == ("openai.chat", usage)
    usage["prompt_tokens_details"] = {"cached_tokens": 0}
    told = _litellm.event_of({"standard_logging_object": payload})
    assert told is not None and told["usage_format"] == "estimated"


_CHUNK = '{"id":"c","model":"m","service_tier":"default","choices":[{"index":0,"delta":%s,"finish_reason":null}],"usage":%s}'
_BEGUN = '{"type":"message_start","message":{"id":"c","model":"m","usage":{"input_tokens":9,"output_tokens":1}}}'
_ADDED = '{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":%s}}'
STREAMS = {
    "/v1/chat/completions": [
        _CHUNK % ('{"role":"assistant","content":""}', "null"),
        *(_CHUNK % ('{"content":%s}' % text, "null") for text in ('"Hello"', '"né"', '""', '"\\n\\"usage\\": 7"', '"\\u00e9"', "null")),
        # More than text, in the form of text.
        _CHUNK % ('{"content":"x"}', '{"prompt_tokens":5,"completion_tokens":3}'),
        _CHUNK % ('{"content":"x","tool_calls":[{"index":1,"function":{"arguments":"{}"}}]}', "null"),
        '{"id":"c","model":"n","choices":[{"index":0,"delta":{"content":"two"}},{"index":1,"delta":{"content":"choices"}}]}',
        '{"id":"c","model":"m","choices":[{"index":0,"text":"old","delta":{"content":"x"}}]}',
        _CHUNK % ('{"content":"x"}', "null"),
        '{"id":"c","model":"m","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":4}}',
    ],
    "/v1/responses": [
        '{"type":"response.created","response":{"id":"c","model":"m","status":"in_progress"}}',
        *('{"type":"response.output_text.delta","sequence_number":%d,"item_id":"i","delta":%s}' % pair for pair in ((1, '"Hello"'), (2, '"n\\né"'), (3, '"x"'))),
        '{"type":"response.output_item.done","output_index":1,"item":{"type":"function_call"},"delta":"x"}',
        '{"type":"response.completed","delta":"x","response":{"id":"c","model":"m","status":"completed","usage":{"input_tokens":1,"output_tokens":2}}}',
    ],
    "/v1/messages": [
        _BEGUN,
        *(_ADDED % text for text in ('"Hello"', '"Hello"', '"né"', '"a\\nb"', '"\\"usage\\":{"')),
        '{"type":"content_block_start","index":1,"content_block":{"type":"tool_use","name":"f"},"delta":{"type":"text_delta","text":"x"}}',
        '{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{\\"a\\":1}"}}',
        '{"type":"message_delta","delta":{"type":"text_delta","text":"x"},"usage":{"output_tokens":40}}',
    ],
}


@pytest.mark.parametrize("path", STREAMS)
def test_pieces_that_are_counted_without_being_read_come_to_the_same(path: str) -> None:
    route = route_of("POST", path)
    assert route is not None
    read, counted, unread = Seen(), Seen(), 0
    # Cut anywhere, for what a stream has told so far is what a cut one is charged by.
    for text in STREAMS[path]:
        piece = f"data: {text}\n\n".encode()
        read.take(route, Events.json(piece))
        if counted.take_text(route, piece):
            unread += 1
        else:
            counted.take(route, Events.json(piece))
        for name in ("id", "model", "service_tier", "usage", "generated", "is_final", "is_pending", "tool_calls"):
            assert getattr(counted, name) == getattr(read, name), (name, text)
    assert unread >= 2
