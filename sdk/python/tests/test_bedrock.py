"""boto3's client for Bedrock's runtime, wrapped, against a server that speaks its language."""

from __future__ import annotations

import binascii
import gc
import json
import struct
import threading
from http.server import BaseHTTPRequestHandler
from typing import Any, Iterator
from urllib.parse import unquote

import pytest
import spendfuse
from stub import Server
from test_delivery import run

boto3 = pytest.importorskip("boto3")
from botocore.config import Config  # noqa: E402

HAIKU = "anthropic.claude-haiku-4-5-20251001-v1:0"
NOVA = "amazon.nova-lite-v1:0"
SECRET = "the secret prompt"
USAGE = {"inputTokens": 1000, "outputTokens": 100, "totalTokens": 1900, "cacheReadInputTokens": 800}
CONVERSE = {
    "modelId": HAIKU,
    "messages": [{"role": "user", "content": [{"text": SECRET}]}],
    "inferenceConfig": {"maxTokens": 200},
}
MESSAGE = {
    "type": "message", "id": "msg_1", "model": "claude-haiku-4-5-20251001", "role": "assistant",
    "content": [{"type": "text", "text": "Hello"}],
    "usage": {"input_tokens": 200, "output_tokens": 100, "cache_read_input_tokens": 800},
}


def frame(event: dict[str, Any]) -> bytes:
    """A message of an event stream of Amazon's."""
    [(kind, payload)] = event.items()
    headers = b""
    for name, value in ((":message-type", "event"), (":event-type", kind), (":content-type", "application/json")):
        headers += bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
    body = json.dumps(payload).encode()
    begin = struct.pack(">II", 16 + len(headers) + len(body), len(headers))
    begin += struct.pack(">I", binascii.crc32(begin))
    whole = begin + headers + body
    return whole + struct.pack(">I", binascii.crc32(whole))


def chunk(piece: dict[str, Any]) -> dict[str, Any]:
    return {"chunk": {"bytes": binascii.b2a_base64(json.dumps(piece).encode(), newline=False).decode()}}


CONVERSED = [
    {"messageStart": {"role": "assistant"}},
    {"contentBlockStart": {"start": {"toolUse": {"toolUseId": "t", "name": "search"}}, "contentBlockIndex": 1}},
    {"contentBlockDelta": {"delta": {"text": "Hello" * 8}, "contentBlockIndex": 0}},
    {"messageStop": {"stopReason": "end_turn"}},
    {"metadata": {"usage": USAGE, "metrics": {"latencyMs": 5}}},
]
INVOKED = [
    chunk({"type": "message_start", "message": {**MESSAGE, "content": [], "usage": {**MESSAGE["usage"], "output_tokens": 1}}}),
    chunk({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}}),
    chunk({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 100}}),
    chunk({"type": "message_stop", "amazon-bedrock-invocationMetrics": {"inputTokenCount": 200, "outputTokenCount": 100}}),
]


class Bedrock:
    def __init__(self) -> None:
        self.paths: list[str] = []
        #: Statuses that come first.
        self.first: list[int] = []
        bedrock = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                bedrock.paths.append(unquote(self.path))
                headers = {"x-amzn-RequestId": f"req-{len(bedrock.paths)}", "content-type": "application/json"}
                status = bedrock.first.pop(0) if bedrock.first else 200
                if status != 200:
                    body = b'{"message": "not now"}'
                elif self.path.endswith("-stream"):
                    events = CONVERSED if "converse" in self.path else INVOKED
                    headers["content-type"] = "application/vnd.amazon.eventstream"
                    body = b"".join(map(frame, events))
                elif "converse" in self.path:
                    content = [{"text": "Hello"}, {"toolUse": {"toolUseId": "t", "name": "search", "input": {}}}]
                    output = {"message": {"role": "assistant", "content": content}}
                    body = json.dumps({"output": output, "stopReason": "end_turn", "usage": USAGE}).encode()
                elif "anthropic" in self.path:
                    body = json.dumps(MESSAGE).encode()
                else:
                    headers.update({"X-Amzn-Bedrock-Input-Token-Count": "7", "X-Amzn-Bedrock-Output-Token-Count": "3"})
                    body = b'{"results": [{"outputText": "Hello"}]}'
                self.send_response(status)
                for name, value in {**headers, "content-length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def client(self, **config: Any) -> Any:
        keys = {"aws_access_key_id": "a", "aws_secret_access_key": "s", "region_name": "us-east-1"}
        retries = {"total_max_attempts": 2, "mode": "standard"}
        return boto3.client("bedrock-runtime", endpoint_url=self.url, config=Config(retries=retries, **config), **keys)

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def bedrock() -> Iterator[Bedrock]:
    bedrock = Bedrock()
    yield bedrock
    bedrock.stop()


def converse(client: Any) -> str:
    return client.converse(**CONVERSE)["output"]["message"]["content"][0]["text"]


def converse_stream(client: Any) -> str:
    events = list(client.converse_stream(**CONVERSE)["stream"])
    assert events[-1]["metadata"]["usage"]["inputTokens"] == 1000
    return next(event["contentBlockDelta"]["delta"]["text"] for event in events if "contentBlockDelta" in event)[:5]


def invoke(client: Any) -> str:
    answer = client.invoke_model(modelId=HAIKU, body=json.dumps({"max_tokens": 9, "messages": []}))
    return json.loads(answer["body"].read())["content"][0]["text"]


def invoke_stream(client: Any) -> str:
    answer = client.invoke_model_with_response_stream(modelId=HAIKU, body=json.dumps({"messages": []}))
    pieces = [json.loads(event["chunk"]["bytes"]) for event in answer["body"]]
    return pieces[1]["delta"]["text"]


CONVERSE_EVENT = ("bedrock.converse", USAGE)
MESSAGE_EVENT = ("anthropic.messages", MESSAGE["usage"])


@pytest.mark.parametrize("call, told", [
    (converse, CONVERSE_EVENT), (converse_stream, CONVERSE_EVENT), (invoke, MESSAGE_EVENT), (invoke_stream, MESSAGE_EVENT),
])
def test_every_call_is_asked_about_and_told_and_notices_nothing(call: Any, told: Any, recorder: Any, bedrock: Bedrock) -> None:
    client = bedrock.client()
    kind = type(client)
    wrapped = recorder.wrap(client, customer="c-42")
    assert wrapped is client and type(wrapped) is kind
    assert call(wrapped) == "Hello"
    [question], [event] = recorder.questions, recorder.events
    assert (question["model"], question["provider"], question["customer"]) == (HAIKU, "bedrock", "c-42")
    assert (event["provider"], event["model"], event["request_model"], event["status"]) == ("bedrock", HAIKU, HAIKU, "ok")
    assert (event["usage_format"], event["usage"]) == told
    assert event["id"].endswith("req-1") and event["region"] == "us-east-1"
    assert event.get("tool_calls", 0) == (1 if told is CONVERSE_EVENT else 0)
    assert SECRET not in json.dumps([question, event])


def test_an_answer_told_by_hand_too_is_counted_once(recorder: Any, bedrock: Bedrock) -> None:
    answer = recorder.wrap(bedrock.client()).converse(**CONVERSE)
    recorder.add_usage(answer)
    assert recorder.add_usage(answer, model=HAIKU) == "req-1"
    recorder.guarded_call(lambda: recorder.add_usage(answer, model=HAIKU))
    assert len(recorder.events) == 1
    unwrapped = bedrock.client().converse(**CONVERSE)
    recorder.add_usage(unwrapped, model=HAIKU)
    event = recorder.events[1]
    assert (event["source"], event["id"], event["usage_format"]) == ("llm:bedrock", "req-2", "bedrock.converse")


def test_what_bedrock_counts_in_headers_is_told_of_models_that_say_nothing_known(recorder: Any, bedrock: Bedrock) -> None:
    recorder.wrap(bedrock.client()).invoke_model(modelId="amazon.titan-text-lite-v1", body="{}")
    [event] = recorder.events
    assert (event["usage_format"], event["usage"]) == ("bedrock.converse", {"inputTokens": 7, "outputTokens": 3})


def test_a_refused_call_is_not_sent_and_not_tried_again(recorder: Any, bedrock: Bedrock) -> None:
    client = recorder.wrap(bedrock.client())
    recorder.refuse("cap")
    for call in (converse, converse_stream, invoke, invoke_stream):
        with pytest.raises(spendfuse.BudgetExceededError):
            call(client)
    assert len(recorder.questions) == 4
    assert bedrock.paths == [] and recorder.events == []


def test_a_stream_that_is_left_or_thrown_away_is_charged_by_estimate(recorder: Any, bedrock: Bedrock) -> None:
    client = recorder.wrap(bedrock.client())
    left = client.converse_stream(**CONVERSE)["stream"]
    for _ in range(3):
        next(iter(left))
    left.close()
    [event] = recorder.events
    assert event["usage_format"] == "estimated" and event["usage"]["output_tokens"] == 10
    client.converse_stream(**CONVERSE)
    gc.collect()
    assert [event["usage_format"] for event in recorder.events] == ["estimated", "estimated"]


@pytest.mark.parametrize("forks", [False, True])
def test_a_stream_that_is_open_when_the_process_ends_is_told_once(forks: bool, sidecar: Any, bedrock: Bedrock) -> None:
    program = f"""
        import os, sys, weakref
        # Whose end of a process comes after this package's, because somebody else has used it before.
        weakref.finalize(weakref.WeakSet(), print)
        import boto3, spendfuse
        client = boto3.client(
            "bedrock-runtime", endpoint_url="{bedrock.url}", region_name="us-east-1",
            aws_access_key_id="a", aws_secret_access_key="s",
        )
        stream = spendfuse.wrap(client).converse_stream(modelId="{HAIKU}", messages=[])["stream"]
        next(iter(stream))
        child = os.fork() if {forks} else None
        if child == 0:
            sys.exit(0)
        if child:
            os.waitpid(child, 0)
    """
    done = run(program, sidecar.url)
    assert (done.returncode, done.stderr) == (0, "")
    assert [event["usage_format"] for event in sidecar.events] == ["estimated"]


def test_retries_are_one_call_and_a_call_that_fails_holds_nothing(recorder: Any, bedrock: Bedrock) -> None:
    recorder.answer["reservation_id"] = "h.0-1"
    client = recorder.wrap(bedrock.client(), reserve=True)
    bedrock.first = [503]
    assert converse(client) == "Hello"
    [question], [event] = recorder.questions, recorder.events
    assert question["estimate"]["max_output_tokens"] == 200
    assert event["reservation_id"] == "h.0-1"
    bedrock.first = [400]
    with pytest.raises(client.exceptions.ClientError):
        converse(client)
    recorder.flush(5)
    assert recorder.released == ["h.0-1"] and len(recorder.events) == 1
    bedrock.stop()
    with pytest.raises(Exception, match="Could not connect"):
        converse(recorder.wrap(bedrock.client(), reserve=True))
    recorder.flush(5)
    assert recorder.released == ["h.0-1", "h.0-1"] and len(recorder.events) == 1


def test_a_cheaper_model_is_asked_where_it_is_bedrocks_and_has_the_same_form(recorder: Any, bedrock: Bedrock) -> None:
    client = recorder.wrap(bedrock.client())
    recorder.downgrade(NOVA)
    converse(client)
    assert bedrock.paths == [f"/model/{NOVA}/converse"]
    assert (recorder.events[0]["model"], recorder.events[0]["flags"]) == (NOVA, ["downgraded"])
    invoke(client)
    recorder.downgrade("gpt-4.1-mini")
    converse(client)
    assert bedrock.paths[1:] == [f"/model/{HAIKU}/invoke", f"/model/{HAIKU}/converse"]
    assert all("flags" not in event for event in recorder.events[1:])


def test_wrapped_twice_is_told_once_as_said_last_and_other_services_are_refused(recorder: Any, bedrock: Bedrock) -> None:
    client = recorder.wrap(recorder.wrap(bedrock.client(), feature="first"), feature="second")
    converse(client)
    assert [event["feature"] for event in recorder.events] == ["second"]
    with pytest.raises(TypeError, match="cannot be wrapped"):
        recorder.wrap(boto3.client("s3", region_name="us-east-1"))


def test_of_calls_by_httpx_the_log_says_that_they_are_not_metered(recorder: Any, caplog: Any) -> None:
    httpx = pytest.importorskip("httpx")
    client = recorder.wrap(httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200, json={}))))
    client.post(f"https://bedrock-runtime.us-east-1.amazonaws.com/model/{HAIKU}/invoke", json={})
    assert recorder.events == []
    assert "neither guarded nor told" in caplog.text
