"""What SDKs of this kind are commonly reported for, each once: it does not happen here."""

from __future__ import annotations

import asyncio
import gc
import json
import multiprocessing
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, AsyncIterator, Iterator

import pytest
import spendfuse
from fake import FakeSidecar
from spendfuse import Spendfuse

MESSAGES = [{"role": "user", "content": "x" * 400}]
CHAT = {"model": "gpt-4o", "messages": MESSAGES}
USAGE = {"model": "gpt-4o", "usage": {"input_tokens": 10, "output_tokens": 5}}


@pytest.fixture
def sidecar() -> Iterator[FakeSidecar]:
    sidecar = FakeSidecar()
    yield sidecar
    sidecar.stop()


def run(program: str, url: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "SPENDFUSE_URL": url, "SPENDFUSE_WORKSPACE": "acme"}
    code = textwrap.dedent(program)
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=30)


# -- Types, streams, contexts


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


def test_a_server_that_refuses_to_be_asked_for_usage_is_asked_without_and_not_again(recorder: Any, clients: Any, provider: Any) -> None:
    provider.refuses_stream_options = True
    client = recorder.wrap(clients.openai(max_retries=0))
    for _ in range(2):
        stream = client.chat.completions.create(**CHAT, stream=True)
        assert "".join(part.choices[0].delta.content for part in stream) == "Hello"
    assert len(provider.requests) == 3
    assert [event["usage_format"] for event in recorder.events] == ["estimated", "estimated"]


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


# -- Threads, forks, ends


def test_no_thread_starts_before_the_first_event(sidecar: FakeSidecar, clients: Any) -> None:
    sf = Spendfuse(sidecar.url)
    sf.wrap(clients.openai())
    sf.check(customer="c-1")
    assert sf.delivery._thread is None and sf.sidecar._asking is None
    assert sf.flush(1)
    sf.track(**USAGE)
    assert sf.delivery._thread is not None and sf.delivery._thread.is_alive()


def test_forked_children_tell_their_own_and_not_what_waits_in_the_parent(sidecar: FakeSidecar) -> None:
    sf = Spendfuse(sidecar.url)
    sf.check()
    sf.track(**USAGE, id="before")
    assert sf.flush(5)
    # Waits in the parent while it forks; its lock is held by another thread, as with logging.
    sf.delivery._changed.acquire()
    child = os.fork()
    if child == 0:
        sf.track(**USAGE, id="of-the-child")
        os._exit(0 if sf.check().state == "live" and sf.flush(5) else 1)
    sf.delivery._changed.release()
    sf.track(**USAGE, id="of-the-parent")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert sf.flush(5)
    assert sorted(sidecar.ids) == ["before", "of-the-child", "of-the-parent"]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_children_of_multiprocessing_deliver_at_their_end(method: str, sidecar: FakeSidecar) -> None:
    context = multiprocessing.get_context(method)
    child = context.Process(target=_track_in_child, args=(sidecar.url,))
    child.start()
    child.join(30)
    assert child.exitcode == 0
    assert sidecar.ids == ["of-the-child"]


def _track_in_child(url: str) -> None:
    Spendfuse(url).track(**USAGE, id="of-the-child")


def test_what_waits_at_the_end_of_a_process_is_delivered(sidecar: FakeSidecar) -> None:
    program = """
        import spendfuse, sys
        for n in range(700):
            spendfuse.track(model="gpt-4o", usage={"input_tokens": 1}, id=f"e-{n}")
        sys.exit(3)
    """
    done = run(program, sidecar.url)
    assert (done.returncode, done.stderr) == (3, "")
    assert sorted(sidecar.ids) == sorted(f"e-{n}" for n in range(700))


def test_the_end_of_a_process_waits_two_seconds_for_a_sidecar_that_is_away_and_says_what_is_lost() -> None:
    began = time.monotonic()
    done = run('import spendfuse; spendfuse.track(model="m", usage={"input_tokens": 1})', "http://127.0.0.1:1")
    assert done.returncode == 0 and time.monotonic() - began < 15
    assert "1 events could not be delivered" in done.stderr


def test_a_crash_loses_nothing_that_was_flushed(sidecar: FakeSidecar) -> None:
    program = """
        import os, signal, spendfuse
        for n in range(100):
            spendfuse.track(model="m", usage={"input_tokens": 1}, id=f"e-{n}")
        assert spendfuse.flush(5)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    assert run(program, sidecar.url).returncode == -9
    assert len(sidecar.ids) == 100


def test_importing_starts_nothing_and_needs_nothing() -> None:
    program = """
        import sys, threading, logging
        before = set(sys.modules)
        import spendfuse
        assert threading.active_count() == 1
        assert not logging.getLogger("spendfuse").handlers
        new = {name.partition(".")[0] for name in set(sys.modules) - before}
        outside = {name for name in new if name not in sys.stdlib_module_names and name != "spendfuse"}
        assert not outside, outside
    """
    if sys.version_info < (3, 10):
        pytest.skip("the names of the standard library are known from Python 3.10 on")
    done = run(program, "http://127.0.0.1:1")
    assert done.returncode == 0, done.stderr


# -- Delivery


def test_an_event_is_sent_again_with_its_id_until_it_is_safe(sidecar: FakeSidecar) -> None:
    sidecar.failures = [503, 429, 500]
    sidecar.loses_answers = 1
    sf = Spendfuse(sidecar.url)
    sf.track(**USAGE, id="e-1")
    assert sf.flush(10)
    # The batch whose answer was lost came again; the sidecar knows it by its id.
    assert sidecar.ids == ["e-1", "e-1"]
    assert (sf.delivery.delivered, sf.delivery.dropped) == (1, 0)


def test_a_bad_event_does_not_hold_up_the_others(sidecar: FakeSidecar, caplog: Any) -> None:
    sidecar.failures = [400]
    sf = Spendfuse(sidecar.url)
    sf.track(**USAGE)
    sf.flush(5)
    sf.track(**USAGE, id="good")
    assert sf.flush(5)
    assert (sidecar.ids, sf.delivery.rejected) == (["good"], 1)
    assert "rejected" in caplog.text


def test_a_full_queue_drops_new_events_counts_and_says_so(caplog: Any) -> None:
    sf = Spendfuse("http://127.0.0.1:1", queue_size=10, exit_timeout=0)
    began = time.monotonic()
    for _ in range(1000):
        assert sf.track(**USAGE)
    assert time.monotonic() - began < 5
    assert sf.delivery.dropped == 990
    assert caplog.text.count("10 events wait already") == 1
    assert sf.flush(0.2) is False


def test_tracking_raises_nothing_whatever_it_is_given(recorder: Any, caplog: Any) -> None:
    assert recorder.track() is None
    assert recorder.track(**USAGE, custommer="c-1") is None
    assert recorder.track(revenue_usd="a lot", customer="c-1") is None
    assert recorder.track(object()) is None
    assert recorder.add_usage(None) is None
    assert recorder.add_usage({"usage": {"input_tokens": 1}}) is None
    assert recorder.track(**USAGE, tags=7) is None
    assert recorder.track(model="m", usage={"input_tokens": float("nan")}) is None
    assert "did you mean customer" in caplog.text
    assert recorder.events == []


def test_an_answer_told_by_wrap_and_by_add_usage_is_told_once(recorder: Any, clients: Any) -> None:
    client = recorder.wrap(recorder.wrap(clients.openai()), feature="agent")
    answer = client.chat.completions.create(**CHAT)
    recorder.add_usage(answer)
    recorder.guarded_call(lambda: answer)
    [event] = recorder.events
    assert event["feature"] == "agent"


def test_a_stream_may_be_collected_as_garbage_while_an_event_is_put_into_the_queue(sidecar: FakeSidecar) -> None:
    sf = Spendfuse(sidecar.url)

    def put_within_put() -> None:
        with sf.delivery._changed:
            sf.track(**USAGE, id="within")

    thread = threading.Thread(target=put_within_put, daemon=True)
    thread.start()
    thread.join(5)
    assert not thread.is_alive()
    assert sf.flush(5) and sidecar.ids == ["within"]


# -- Decisions


def test_the_error_says_which_budget_and_survives_other_processes(recorder: Any) -> None:
    recorder.answer = {
        "decision": "block",
        "retry_after_seconds": 60,
        "state": "live",
        "budgets": [
            {
                "budget": "cap", "scope": "acme/customer=c-42", "verdict": "block", "spent_usd": "5.000123",
                "limit_usd": "5.00", "resets_at": "2026-11-23T05:00:00Z", "message": None, "help_url": "https://h",
            }
        ],
    }
    with pytest.raises(spendfuse.BudgetExceededError) as refused:
        recorder.guarded_call(lambda: 1 / 0)
    for error in (refused.value, pickle.loads(pickle.dumps(refused.value))):
        assert (error.budget, error.scope, error.unit) == ("cap", "acme/customer=c-42", "usd")
        assert (str(error.spent), str(error.limit)) == ("5.000123", "5.00")
        assert error.resets_at.isoformat() == "2026-11-23T05:00:00+00:00"
        assert (error.retry_after, error.help_url, error.decision.decision) == (60, "https://h", "block")
        assert str(error) == (
            "budget cap of acme/customer=c-42 is used up "
            "($5.000123 of $5.00 spent; resets 2026-11-23T05:00:00Z)"
        )


def test_a_stopped_session_and_an_unknown_state_have_errors_of_their_own(recorder: Any) -> None:
    line = {"budget": "loops", "scope": "acme/session=s-1", "verdict": "block", "spent_usd": None, "limit_usd": None}
    recorder.answer = {"decision": "block", "budgets": [line], "state": "live"}
    with pytest.raises(spendfuse.SessionBlockedError, match="loops"):
        recorder.check().raise_for_block()
    warning = {"type": "cold", "severity": "warning", "message": "not caught up", "wasted_usd": None}
    recorder.answer = {"decision": "block", "budgets": [], "warnings": [warning], "state": "cold"}
    with pytest.raises(spendfuse.StateUnknownError, match="not caught up"):
        recorder.check().raise_for_block()


def test_a_sidecar_that_is_away_or_hangs_costs_50_ms_at_most_and_soon_nothing(sidecar: FakeSidecar, caplog: Any) -> None:
    for url, hangs in (("http://127.0.0.1:1", 0.0), (sidecar.url, 0.5)):
        sidecar.hangs = hangs
        sf = Spendfuse(url)
        began = time.monotonic()
        for _ in range(100):
            assert sf.check().decision == "allow"
        # Three that wait, and none after that.
        assert time.monotonic() - began < 2
        assert sf.sidecar.undecided == 100
    assert caplog.text.count("does not answer") == 2
    sidecar.hangs = 0
    time.sleep(1.1)
    assert sf.check().state == "live"
    assert sf.check().state == "live"


def test_without_a_sidecar_calls_are_refused_where_one_says_so(clients: Any, provider: Any) -> None:
    sf = Spendfuse("http://127.0.0.1:1", on_unavailable="block", exit_timeout=0)
    with pytest.raises(spendfuse.StateUnknownError, match="cannot be reached"):
        sf.wrap(clients.openai()).chat.completions.create(**CHAT)
    assert provider.requests == []
    assert Spendfuse("http://127.0.0.1:1").wrap(clients.openai()).chat.completions.create(**CHAT)


def test_coroutines_are_not_held_up_by_a_sidecar_that_hangs(sidecar: FakeSidecar) -> None:
    # Far from what a busy machine does to a loop.
    sidecar.hangs = 3.0
    sf = Spendfuse(sidecar.url, check_timeout=2.0)
    longest = 0.0

    async def tick() -> None:
        nonlocal longest
        for _ in range(20):
            began = time.monotonic()
            await asyncio.sleep(0.005)
            longest = max(longest, time.monotonic() - began)

    async def main() -> None:
        await asyncio.gather(tick(), sf.acheck(), sf.acheck())

    asyncio.run(main())
    assert longest < 1.0


def test_a_unix_socket_a_token_and_a_restart(tmp_path: Any) -> None:
    path = str(tmp_path / "sidecar.sock")
    sidecar = FakeSidecar(path)
    sf = Spendfuse(f"unix:{path}", token="secret")
    assert sf.check(customer="c-1").state == "live"
    assert sidecar.headers[0]["x-spendfuse-token"] == "secret"
    sidecar.stop()
    os.unlink(path)
    again = FakeSidecar(path)
    # The kept connection is dead; the call does not notice.
    assert sf.check(customer="c-1").state == "live"
    again.stop()


def test_disabled_asks_and_tells_nothing(sidecar: FakeSidecar, clients: Any) -> None:
    sf = Spendfuse(sidecar.url, disabled=True)
    client = clients.openai()
    assert sf.wrap(client) is client
    client.chat.completions.create(**CHAT)
    assert sf.check().allowed
    sf.track(**USAGE)
    assert sf.guarded_call(lambda: 7) == 7
    assert sf.flush(1) and sidecar.checks == [] and sidecar.events == []


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (400, {"error": {"code": "bad_request", "message": "session_limit_usd is not supported yet"}}),
        (200, {"decision": "allow", "warnings": [{"type": "unknown_field", "severity": "warning", "message": "x"}]}),
    ],
)
def test_a_sidecar_that_knows_no_limits_of_sessions_is_not_told_of_them_and_this_process_keeps_them(
    status: int, answer: Any, sidecar: FakeSidecar
) -> None:
    sidecar.check_status, sidecar.decision = status, answer
    sf = Spendfuse(sidecar.url)
    with sf.session(budget="0.02") as run:
        for _ in range(3):
            sidecar.check_status, sidecar.decision = status, answer
            sf.check()
            sidecar.check_status, sidecar.decision = 200, {"decision": "allow", "state": "live"}
            run.step(**USAGE)
        with pytest.raises(spendfuse.BudgetExceededError):
            sf.guarded_call(lambda: None)
    assert sf.flush(5)
    assert ["session_limit_usd" in check for check in sidecar.checks].count(True) == 1
    assert not [event for event in sidecar.events if "session_limit_usd" in event]
