"""The callback in LiteLLM's own proxy, by the lines of the README."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

pytest.importorskip("litellm.proxy.proxy_cli", reason="the proxy of LiteLLM is not installed")

import openai  # noqa: E402
import spendfuse  # noqa: E402
from fake import FakeSidecar  # noqa: E402
from stub import Provider  # noqa: E402

REAL = os.environ.get("SPENDFUSE_TEST_URL")
SECRET = "what only the model may read"
MESSAGES = [{"role": "user", "content": SECRET}]
BROKEN = (500, {"error": {"message": "broken"}})
#: Seconds until it answers; it imports for ten.
START_PATIENCE = 120
KEY = "sk-" + uuid.uuid4().hex

CONFIG = """
model_list:
  - {{model_name: smart, litellm_params: {{model: openai/gpt-4o, api_key: k, api_base: "{url}/v1"}}}}
  - {{model_name: other, litellm_params: {{model: openai/gpt-4o-mini, api_key: k, api_base: "{url}/v1"}}}}
  - {{model_name: claude, litellm_params: {{model: anthropic/claude-opus-4-8, api_key: k, api_base: "{url}"}}}}
router_settings: {{num_retries: 1, retry_after: 0, fallbacks: [{{smart: [other]}}]}}
general_settings: {{always_include_stream_usage: true}}
litellm_settings:
  callbacks: ["{callback}"]
"""


class Proxy:
    def __init__(self, folder: Path, provider: Provider, sidecar_url: str, callback: str) -> None:
        (folder / "config.yaml").write_text(CONFIG.format(url=provider.url, callback=callback))
        (folder / "holding.py").write_text(
            "from spendfuse.litellm import SpendfuseCallback\ncallback = SpendfuseCallback(reserve=True)\n"
        )
        port = free_port()
        environment = {
            **os.environ,
            "PYTHONPATH": str(Path(spendfuse.__file__).parents[1]),
            "LITELLM_MASTER_KEY": KEY,
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "SPENDFUSE_URL": sidecar_url,
            "SPENDFUSE_WORKSPACE": "acme",
            "PYTHONWARNINGS": "ignore",
        }
        self.log = folder / "log"
        command = [sys.executable, "-c", "import litellm; litellm.run_server()", "--config", "config.yaml"]
        command += ["--host", "127.0.0.1", "--port", str(port)]
        with self.log.open("w") as log:
            self._process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        self.url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + START_PATIENCE
        while not answers(self.url + "/health/liveliness"):
            assert self._process.poll() is None and time.monotonic() < deadline, self.log.read_text()[-4000:]
            time.sleep(0.2)

    def client(self) -> openai.OpenAI:
        return openai.OpenAI(api_key=KEY, base_url=self.url, max_retries=2)

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def free_port() -> int:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def eventually(holds: Callable[[], Any], what: Callable[[], Any], patience: float = 20.0) -> None:
    deadline = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < deadline, what()
        time.sleep(0.05)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: Any) -> Iterator[tuple[Proxy, Provider, FakeSidecar]]:
    provider, sidecar = Provider(), FakeSidecar()
    proxy = Proxy(tmp_path_factory.mktemp("proxy"), provider, sidecar.url, "holding.callback")
    yield proxy, provider, sidecar
    proxy.stop()
    assert SECRET not in json.dumps([sidecar.events, sidecar.checks])
    sidecar.stop()
    provider.stop()


@pytest.fixture
def quiet(parts: Any) -> Any:
    """As at the start: everything is allowed, and each call holds something."""
    proxy, provider, sidecar = parts
    for kept in (sidecar.events, sidecar.checks, sidecar.released, provider.requests, provider.first):
        kept.clear()
    sidecar.decision = {"decision": "allow", "state": "live", "reservation_id": f"r-{uuid.uuid4().hex}"}
    return parts


def told(sidecar: FakeSidecar, count: int = 1) -> list[dict[str, Any]]:
    eventually(lambda: len(sidecar.events) >= count, lambda: sidecar.events)
    time.sleep(0.3)
    assert len(sidecar.events) == count, sidecar.events
    return sidecar.events


@pytest.mark.parametrize("kind", ["chat", "stream", "responses", "embeddings", "messages"])
def test_a_call_is_asked_about_once_and_counted_once(kind: str, quiet: Any) -> None:
    proxy, provider, sidecar = quiet
    client = proxy.client()
    if kind == "chat":
        client.chat.completions.create(model="smart", messages=MESSAGES, user="c-42", max_tokens=50)
    if kind == "stream":
        stream = client.chat.completions.create(model="smart", messages=MESSAGES, user="c-42", stream=True)
        texts = [choice.delta.content or "" for piece in stream for choice in piece.choices]
        assert "".join(texts) == "Hello"
    if kind == "responses":
        client.responses.create(model="smart", input=SECRET, user="c-42")
    if kind == "embeddings":
        client.embeddings.create(model="smart", input=SECRET, user="c-42")
    if kind == "messages":
        body = {"model": "claude", "max_tokens": 9, "messages": MESSAGES, "user": "c-42"}
        headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
        headers["x-litellm-end-user-id"] = "c-42"
        request = urllib.request.Request(proxy.url + "/v1/messages", json.dumps(body).encode(), headers)
        urllib.request.urlopen(request).read()
    [event] = told(sidecar)
    assert (event["workspace"], event["customer"], event["source"]) == ("acme", "c-42", "litellm")
    assert event["reservation_id"] == sidecar.decision["reservation_id"]
    assert event["usage"].get("prompt_tokens") == 1000 and event["usage_format"] == "openai.chat", event
    model = "claude-opus-4-8" if kind == "messages" else "gpt-4o"
    [asked] = sidecar.checks
    assert (asked["customer"], asked["model"], event["model"]) == ("c-42", model, model)
    assert asked["estimate"]["model"] == model and asked["estimate"]["input_tokens"] > 0
    assert not sidecar.released


def test_a_refusal_is_a_429_that_names_budget_and_figures_and_is_not_tried_again(quiet: Any) -> None:
    proxy, provider, sidecar = quiet
    line = {"budget": "per-customer", "scope": "acme/customer=c-1", "verdict": "block", "spent_usd": "0.06"}
    line.update(limit_usd="0.05", resets_at="2026-11-30T00:00:00Z")
    sidecar.decision = {"decision": "block", "budgets": [line], "state": "live", "retry_after_seconds": 60}
    with pytest.raises(openai.RateLimitError) as raised:
        proxy.client().chat.completions.create(model="smart", messages=MESSAGES, user="c-1")
    shown = json.dumps(raised.value.body)
    for part in ("budget_exceeded", "per-customer", "acme/customer=c-1", "$0.06", "$0.05", "2026-11-30T00:00:00Z"):
        assert part in shown, shown
    assert "is used up" in str(raised.value)
    headers = raised.value.response.headers
    assert (headers["x-should-retry"], headers["retry-after"]) == ("false", "60")
    assert len(sidecar.checks) == 1 and not provider.requests
    sidecar.decision = {"decision": "allow", "state": "live"}
    proxy.client().chat.completions.create(model="smart", messages=MESSAGES, user="c-2")
    told(sidecar)


def test_a_check_may_take_a_while_in_a_busy_proxy(quiet: Any) -> None:
    proxy, provider, sidecar = quiet
    sidecar.decision = {"decision": "block", "state": "live", "budgets": [{"budget": "b", "verdict": "block", "limit_usd": "1"}]}
    sidecar.hangs = 0.3
    try:
        with pytest.raises(openai.RateLimitError):
            proxy.client().chat.completions.create(model="smart", messages=MESSAGES)
    finally:
        sidecar.hangs = 0.0
    assert not provider.requests


def test_a_request_whose_retries_and_fallback_succeed_counts_once_and_keeps_its_hold(quiet: Any) -> None:
    proxy, provider, sidecar = quiet
    provider.first = [BROKEN, BROKEN]
    proxy.client().chat.completions.create(model="smart", messages=MESSAGES, user="c-42")
    [event] = told(sidecar)
    assert len(provider.requests) == 3 and provider.last["body"]["model"] == "gpt-4o-mini"
    assert event["model"] == "gpt-4o-mini" and event["reservation_id"] == sidecar.decision["reservation_id"]
    assert len(sidecar.checks) == 1 and not sidecar.released


def test_a_request_that_fails_for_good_gives_its_hold_back(quiet: Any) -> None:
    proxy, provider, sidecar = quiet
    provider.first = [BROKEN] * 20
    with pytest.raises(openai.APIError):
        proxy.client().with_options(max_retries=0).chat.completions.create(model="smart", messages=MESSAGES)
    eventually(lambda: sidecar.released, lambda: "nothing is given back")
    assert sidecar.released == [sidecar.decision["reservation_id"]] and not sidecar.events


@pytest.mark.parametrize("other", ["gpt-4o-mini", "other"])
def test_beyond_a_step_the_cheaper_model_is_called(other: str, quiet: Any) -> None:
    proxy, provider, sidecar = quiet
    line = {"budget": "cap", "scope": "acme", "verdict": "downgrade", "spent_usd": "1", "limit_usd": "1"}
    sidecar.decision = {"decision": "downgrade", "downgrade_to": other, "budgets": [line], "state": "live"}
    proxy.client().chat.completions.create(model="smart", messages=MESSAGES)
    assert provider.last["body"]["model"] == "gpt-4o-mini"
    assert [event["model"] for event in told(sidecar)] == ["gpt-4o-mini"]


@pytest.mark.skipif(REAL is None, reason="SPENDFUSE_TEST_URL names no sidecar")
def test_on_the_real_parts_a_customer_is_refused_at_its_limit_and_each_call_has_its_price(tmp_path: Path) -> None:
    provider = Provider()
    sf = spendfuse.Spendfuse(REAL, workspace="acme", check_timeout=5.0)
    proxy = Proxy(tmp_path, provider, str(REAL), "spendfuse.litellm.callback")
    customer = f"c-litellm-{uuid.uuid4().hex[:8]}"
    made = 0

    def refused() -> bool:
        nonlocal made
        try:
            proxy.client().chat.completions.create(model="smart", messages=MESSAGES, user=customer)
            made += 1
            return False
        except openai.RateLimitError as error:
            assert "per-customer" in json.dumps(error.body)
            return True

    try:
        eventually(refused, lambda: f"{made} calls, and none is refused", 60)
        # gpt-4o: 1,000 tokens at $2.50 a million and 100 at $10. The limit is $0.05.
        expected = made * Decimal("0.0035")
        assert made >= 15
        line = lambda: next(line for line in sf.check(customer=customer).budgets if line.budget == "per-customer")  # noqa: E731
        eventually(lambda: line().spent == expected, lambda: (made, line()))
    finally:
        proxy.stop()
        provider.stop()
