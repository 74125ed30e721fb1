"""Events on their way: threads, forks, ends of processes, a sidecar that fails."""

from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess
import sys
import textwrap
import threading
import time
from typing import Any

import pytest
from fake import FakeSidecar
from spendfuse import Spendfuse, _delivery

MESSAGES = [{"role": "user", "content": "x" * 400}]
CHAT = {"model": "gpt-4o", "messages": MESSAGES}
USAGE = {"model": "gpt-4o", "usage": {"input_tokens": 10, "output_tokens": 5}}


def run(program: str, url: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "SPENDFUSE_URL": url, "SPENDFUSE_WORKSPACE": "acme"}
    code = textwrap.dedent(program)
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=30)


def test_no_thread_starts_before_the_first_event(sidecar: FakeSidecar, clients: Any) -> None:
    sf = Spendfuse(sidecar.url)
    sf.wrap(clients.openai())
    sf.check(customer="c-1")
    assert sf.delivery._thread is None and not sf.sidecar._asking
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


def test_a_stream_may_be_collected_as_garbage_just_before_the_delivery_waits(sidecar: FakeSidecar, monkeypatch: Any) -> None:
    sf = Spendfuse(sidecar.url)
    wait = threading.Condition.wait
    put = threading.Event()

    def wait_after_put(condition: threading.Condition, timeout: Any = None) -> bool:
        if condition is sf.delivery._changed and threading.current_thread() is sf.delivery._thread and not put.is_set():
            if not sf.delivery._queue:
                put.set()
                sf.track(**USAGE, id="unheard")
        return wait(condition, timeout)

    monkeypatch.setattr(threading.Condition, "wait", wait_after_put)
    sf.track(**USAGE, id="first")
    deadline = time.monotonic() + 3
    while "unheard" not in sidecar.ids and time.monotonic() < deadline:
        time.sleep(0.02)
    assert sidecar.ids == ["first", "unheard"]


def test_a_flush_does_not_wait_for_the_end_of_a_long_pause(sidecar: FakeSidecar, monkeypatch: Any) -> None:
    monkeypatch.setattr(_delivery, "_FIRST_PAUSE", 30.0)
    sidecar.failures = [503]
    sf = Spendfuse(sidecar.url)
    sf.track(**USAGE, id="e-1")
    while sidecar.failures:
        time.sleep(0.01)
    time.sleep(0.1)
    # It works again, and the process ends.
    assert sf.shutdown(2)
    assert sidecar.ids == ["e-1"]


def test_long_answers_that_wait_to_be_read_are_bounded(clients: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(_delivery, "_MOST_UNREAD", 5 * 64 * 1024)
    sf = Spendfuse("http://127.0.0.1:1", exit_timeout=0)
    client = sf.wrap(clients.openai())
    # Nothing is taken from the queue: its thread waits for this.
    with sf.delivery._changed:
        for _ in range(10):
            client.embeddings.create(model="text-embedding-3-small", input=["x"] * 9, encoding_format="float")
        waiting = list(sf.delivery._queue)
        unread = [one.unread for one in waiting if one.make is not None]
    assert len(waiting) == 10 and 0 < sum(unread) <= 5 * 64 * 1024
    # The others were read where they came.
    assert all(b"prompt_tokens" in one.event for one in waiting if one.event is not None)
    assert [one.event for one in waiting].count(None) == len(unread) < 10


def test_a_name_that_is_not_resolved_costs_no_more_than_a_sidecar_that_is_away(monkeypatch: Any) -> None:
    resolve = socket.getaddrinfo
    asked = []

    def hanging(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host != "sidecar.test":
            return resolve(host, *args, **kwargs)
        asked.append(host)
        time.sleep(3)
        raise socket.gaierror("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", hanging)
    sf = Spendfuse("http://sidecar.test:4117", exit_timeout=0)
    began = time.monotonic()
    for _ in range(10):
        assert sf.check().state == "unavailable"
    assert time.monotonic() - began < 1
    # One question at a time, however many wait for its answer.
    assert len(asked) == 1


@pytest.mark.parametrize("forks", [False, True])
def test_a_stream_that_is_open_when_the_process_ends_is_told_once_and_does_not_hold_it_up(
    forks: bool, sidecar: FakeSidecar, provider: Any
) -> None:
    program = f"""
        import os, sys, openai, spendfuse
        client = spendfuse.wrap(openai.OpenAI(api_key="k", base_url="{provider.url}/v1"))
        stream = client.chat.completions.create(model="gpt-4o", messages=[], stream=True)
        next(stream)
        child = os.fork() if {forks} else None
        if child == 0:
            sys.exit(0)
        if child:
            os.waitpid(child, 0)
    """
    provider.pause = 2.0
    done = run(program, sidecar.url)
    assert (done.returncode, done.stderr) == (0, "")
    assert [event["usage_format"] for event in sidecar.events] == ["estimated"]


def test_a_batch_that_is_too_large_for_somebody_on_the_way_is_sent_in_parts(sidecar: Any) -> None:
    sf = Spendfuse(sidecar.url, workspace="acme")
    answered = sidecar.answer

    def small(path: str, body: Any) -> Any:
        if path == "/v1/usage" and len(body) > 3:
            return 413, {"error": {"code": "too_large", "message": "send less"}}
        return answered(path, body)

    sidecar.answer = small
    sent = [sf.track(model="gpt-4o", usage={"input_tokens": 1}) for _ in range(40)]
    assert sf.flush(5)
    assert sidecar.ids == sent
    assert (sf.delivery.delivered, sf.delivery.rejected) == (40, 0)


def test_one_event_that_is_too_large_stands_in_the_way_of_no_other(sidecar: Any) -> None:
    sf = Spendfuse(sidecar.url, workspace="acme")
    answered = sidecar.answer

    def small(path: str, body: Any) -> Any:
        if path == "/v1/usage" and any(event["model"] == "large" for event in body):
            return 413, {"error": {"code": "too_large", "message": "send less"}}
        return answered(path, body)

    sidecar.answer = small
    for model in ("a", "large", "b"):
        sf.track(model=model, usage={"input_tokens": 1})
    assert sf.flush(5)
    assert [event["model"] for event in sidecar.events] == ["a", "b"]
    assert sf.delivery.rejected == 1


@pytest.mark.parametrize("status", [200, 302, 405])
def test_events_wait_where_the_address_is_not_a_sidecars(status: int, sidecar: Any) -> None:
    sf = Spendfuse(sidecar.url, workspace="acme")
    answered = sidecar.answer
    sidecar.answer = lambda path, body: (status, {}) if path == "/v1/usage" else answered(path, body)
    sf.track(**USAGE)
    assert not sf.flush(0.3)
    sidecar.answer = answered
    assert sf.flush(5)
    assert (sf.delivery.delivered, sf.delivery.rejected) == (1, 0)
