"""By which source and id a call is known, whichever part of spendfuse sees it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from spendfuse._routes import source_of

VECTORS = json.loads((Path(__file__).resolve().parents[3] / "schemas" / "source-vectors.json").read_text(encoding="utf-8"))
CALLS, ANSWERS = VECTORS["calls"], VECTORS["answers"]
#: In every provider's language at once.
USAGE = {
    "model": "m", "status": "completed", "background": True, "created_at": 1_700_000_000,
    "usage": {"prompt_tokens": 1, "input_tokens": 1, "output_tokens": 1}, "usageMetadata": {"promptTokenCount": 1},
}
BODY = {"model": "m", "messages": [], "background": True}


@pytest.mark.parametrize("call", CALLS, ids=[call["name"] for call in CALLS])
def test_a_call_has_the_source_and_id_that_all_parts_of_spendfuse_give_it(call: dict[str, Any], recorder: Any) -> None:
    httpx = pytest.importorskip("httpx")
    answer = {**USAGE, **({"id": call["answer_id"], "responseId": call["answer_id"]} if call["answer_id"] else {})}
    headers = {"x-request-id": call["request_id"]} if call["request_id"] else {}
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=answer, headers=headers))
    client = recorder.wrap(httpx.Client(transport=transport), provider=call["provider"])
    client.request(call["method"], call["url"], json=BODY if call["method"] == "POST" else None)
    [event] = recorder.events
    assert event["source"] == call["source"].replace("{tool}", VECTORS["tools"]["python"])
    own = re.escape(call["id"]).replace(re.escape("{call}"), "[0-9a-f]{32}")
    assert re.fullmatch(own, event["id"]), event["id"]


def test_a_name_that_the_app_has_given_its_requests_is_none_of_the_answers(recorder: Any) -> None:
    httpx = pytest.importorskip("httpx")
    # As some servers do, and gateways.
    transport = httpx.MockTransport(lambda sent: httpx.Response(200, json=USAGE, headers={"x-request-id": sent.headers["x-request-id"]}))
    client = recorder.wrap(httpx.Client(transport=transport))
    for _ in range(2):
        client.post("https://api.openai.com/v1/embeddings", json=BODY, headers={"x-request-id": "of-one-web-request"})
    first, second = recorder.events
    assert first["source"] == "llm:openai" and first["id"] != second["id"]


@pytest.mark.parametrize("case", ANSWERS, ids=[case["name"] for case in ANSWERS])
def test_an_answer_that_is_told_has_the_source_and_id_of_its_call(case: dict[str, Any], recorder: Any) -> None:
    recorder.add_usage(case["answer"], **case["told"])
    [event] = recorder.events
    assert (event["source"], event["id"]) == (case["source"] or recorder.config.source, case["id"])


@pytest.mark.parametrize("name", VECTORS["names"])
def test_a_provider_has_one_source_whatever_telemetry_calls_it(name: str) -> None:
    assert source_of(name) == VECTORS["names"][name]


def test_litellms_callback_tells_under_the_source_of_its_logger() -> None:
    from spendfuse._litellm import SOURCE

    assert SOURCE == VECTORS["sources"]["litellm"]


def test_a_call_that_a_budget_has_made_cheaper_is_flagged(recorder: Any) -> None:
    answer = ANSWERS[0]["answer"]
    recorder.guarded_call(lambda model: answer, model="gpt-4o")
    recorder.downgrade("gpt-4o-mini")
    recorder.guarded_call(lambda model: {**answer, "id": "chatcmpl-2"}, model="gpt-4o")
    first, second = recorder.events
    assert "flags" not in first and second["flags"] == ["downgraded"]
