"""A provider that answers as OpenAI, Anthropic and Gemini do: 1,000 tokens in, 100 out, "Hello"."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Optional

OPENAI_USAGE = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
RESPONSE_USAGE = {
    "input_tokens": 1000,
    "output_tokens": 100,
    "total_tokens": 1100,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens_details": {"reasoning_tokens": 0},
}
GEMINI_USAGE = {"promptTokenCount": 1000, "candidatesTokenCount": 100, "totalTokenCount": 1100}


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


class Provider:
    """Listens until `stop`; what it was sent is in `requests`."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        #: Answers that come first: (status, body).
        self.first: list[tuple[int, dict[str, Any]]] = []
        #: Breaks the connection after so many pieces of a stream.
        self.breaks_after: Optional[int] = None
        #: Refuses to be asked for a stream's usage, as some servers do.
        self.refuses_stream_options = False
        #: With this status.
        self.refusal_status = 400
        #: Seconds between the pieces of a stream.
        self.pause = 0.0
        #: Seconds before an answer begins.
        self.slow = 0.0
        #: Whether answers want a tool, and which.
        self.tools = False
        self.tool = "f"
        self._count = 0
        self._began = int(time.time())
        self._lock = threading.Lock()
        provider = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *_: Any) -> None:
                pass

            def do_POST(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                provider.answer(self, self.rfile.read(length))

            def do_GET(self) -> None:
                provider.answer(self, b"")

        self._server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def last(self) -> dict[str, Any]:
        return self.requests[-1]

    def answer(self, caller: BaseHTTPRequestHandler, content: bytes) -> None:
        try:
            body = json.loads(content or b"{}")
        except ValueError:
            body = {}
        headers = {name.lower(): value for name, value in caller.headers.items()}
        with self._lock:
            self._count += 1
            name = f"of-call-{self._count}"
            self.requests.append({"path": caller.path, "headers": headers, "body": body, "raw": content})
            first = self.first.pop(0) if self.first else None
        if first is not None:
            return self._whole(caller, first[1], status=first[0])
        if self.refuses_stream_options and "stream_options" in body:
            return self._whole(caller, {"error": {"message": "unknown field stream_options"}}, status=self.refusal_status)
        time.sleep(self.slow)
        path = caller.path.partition("?")[0]
        if path.endswith("/chat/completions"):
            asks = (body.get("stream_options") or {}).get("include_usage") is True
            pieces = self._chat(name, body.get("model"), bool(body.get("stream")), asks)
        elif "/responses" in path:
            pieces = self._response(name, body, caller.command == "GET")
        elif path.endswith("/embeddings"):
            return self._whole(caller, self._embeddings(body), packs=True)
        elif path.endswith("/messages"):
            pieces = self._message(name, body.get("model"), bool(body.get("stream")))
        else:
            model = path.rpartition("/")[2].partition(":")[0]
            pieces = self._generated(name, model)
        if body.get("stream") or "streamGenerateContent" in path:
            return self._stream(caller, pieces, ends=path.endswith("/chat/completions"))
        return self._whole(caller, pieces[0], packs=True)

    def _whole(self, caller: BaseHTTPRequestHandler, answer: Any, status: int = 200, packs: bool = False) -> None:
        body = json.dumps(answer).encode()
        caller.send_response(status)
        if packs and "gzip" in caller.headers.get("accept-encoding", ""):
            body = gzip.compress(body)
            caller.send_header("content-encoding", "gzip")
        caller.send_header("content-type", "application/json")
        caller.send_header("content-length", str(len(body)))
        caller.send_header("x-request-id", f"req-{self._count}")
        caller.end_headers()
        caller.wfile.write(body)

    def _stream(self, caller: BaseHTTPRequestHandler, pieces: list[Any], ends: bool) -> None:
        caller.send_response(200)
        caller.send_header("content-type", "text/event-stream")
        caller.send_header("transfer-encoding", "chunked")
        caller.end_headers()

        def write(text: str) -> None:
            caller.wfile.write(b"%x\r\n%s\r\n" % (len(text.encode()), text.encode()))

        try:
            for place, piece in enumerate(pieces):
                if place == self.breaks_after:
                    caller.close_connection = True
                    caller.connection.shutdown(socket.SHUT_RDWR)
                    return
                kind = f"event: {piece['type']}\n" if "type" in piece else ""
                write(f"{kind}data: {json.dumps(piece)}\n\n")
                time.sleep(self.pause)
            if ends:
                write("data: [DONE]\n\n")
            caller.wfile.write(b"0\r\n\r\n")
        except OSError:
            caller.close_connection = True

    def _chat(self, name: str, model: Any, streams: bool, asks: bool) -> list[Any]:
        def of(kind: str, choices: list[Any], usage: Any) -> dict[str, Any]:
            return {"id": name, "object": kind, "created": 1, "model": model, "choices": choices, "usage": usage}

        message: dict[str, Any] = {"role": "assistant", "content": "Hello"}
        if self.tools:
            call = {"id": "t", "index": 0, "type": "function", "function": {"name": self.tool, "arguments": "{}"}}
            message["tool_calls"] = [call]
        if not streams:
            return [of("chat.completion", [{"index": 0, "finish_reason": "stop", "message": message}], OPENAI_USAGE)]
        texts = ["Hel", "lo"]
        chunks = [
            of("chat.completion.chunk", [{"index": 0, "finish_reason": None, "delta": {"content": text}}], None)
            for text in texts
        ]
        return chunks + ([of("chat.completion.chunk", [], OPENAI_USAGE)] if asks else [])

    def _response(self, name: str, body: dict[str, Any], is_asked_later: bool) -> list[Any]:
        part = {"type": "output_text", "text": "Hello", "annotations": []}
        whole = {
            "id": "resp_bg" if is_asked_later or body.get("background") else name,
            "object": "response",
            "created_at": self._began,
            "model": body.get("model", "gpt-4o"),
            "status": "completed",
            "output": [
                {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [part]}
            ],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "usage": RESPONSE_USAGE,
            "background": is_asked_later,
        }
        if body.get("background"):
            return [{**whole, "status": "queued", "output": [], "usage": None, "background": True}]
        if not body.get("stream"):
            return [whole]
        begun = {**whole, "status": "in_progress", "output": [], "usage": None}
        return [
            {"type": "response.created", "sequence_number": 0, "response": begun},
            {
                "type": "response.output_text.delta", "sequence_number": 1, "item_id": "m", "output_index": 0,
                "content_index": 0, "delta": "Hello", "logprobs": [],
            },
            {"type": "response.completed", "sequence_number": 2, "response": whole},
        ]

    def _embeddings(self, body: dict[str, Any]) -> Any:
        inputs = body.get("input")
        count = len(inputs) if isinstance(inputs, list) else 1
        vector = [0.123456789] * 1536
        data = [{"object": "embedding", "index": index, "embedding": vector} for index in range(count)]
        usage = {"prompt_tokens": 1000, "total_tokens": 1000}
        return {"object": "list", "data": data, "model": body.get("model"), "usage": usage}

    def _message(self, name: str, model: Any, streams: bool) -> list[Any]:
        def of(content: list[Any], stop: Optional[str], output: int) -> dict[str, Any]:
            usage = {"input_tokens": 1000, "output_tokens": output}
            return {
                "id": name, "type": "message", "role": "assistant", "model": model, "content": content,
                "stop_reason": stop, "stop_sequence": None, "usage": usage,
            }

        if not streams:
            return [of([{"type": "text", "text": "Hello"}], "end_turn", 100)]
        return [
            {"type": "message_start", "message": of([], None, 1)},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hel"}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "lo"}},
            {"type": "content_block_stop", "index": 0},
            {
                "type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None},
                "usage": {"output_tokens": 100},
            },
            {"type": "message_stop"},
        ]

    def _generated(self, name: str, model: str) -> list[Any]:
        content = {"role": "model", "parts": [{"text": "Hello"}]}
        candidate = {"index": 0, "finishReason": "STOP", "content": content}
        return [
            {"responseId": name, "modelVersion": model, "candidates": [candidate], "usageMetadata": GEMINI_USAGE}
        ]


if __name__ == "__main__":
    provider = Provider()
    print(provider.url, flush=True)
    threading.Event().wait()
