"""Whom calls count against, where threads, nested sessions, copies of clients and late settings mix."""

from __future__ import annotations

import os
import threading
from decimal import Decimal
from typing import Any, Iterator

import pytest
import spendfuse
from spendfuse.testing import Recorder

MESSAGES = [{"role": "user", "content": "Say hello"}]
CHAT = {"model": "gpt-4o", "messages": MESSAGES}
USAGE = {"model": "gpt-4o", "usage": {"input_tokens": 10, "output_tokens": 5}}


def test_a_context_that_two_threads_have_entered_ends_in_each_of_them(recorder: Any) -> None:
    shared = recorder.context(customer="c-1")
    both_are_in = threading.Barrier(2)
    first_is_out = threading.Event()

    def first() -> None:
        with shared:
            both_are_in.wait(5)
        recorder.track(**USAGE, id="after-first")
        first_is_out.set()

    def second() -> None:
        with shared:
            both_are_in.wait(5)
            first_is_out.wait(5)
            recorder.track(**USAGE, id="in-second")
        recorder.track(**USAGE, id="after-second")

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    found = {event["id"]: event.get("customer") for event in recorder.events}
    assert found == {"after-first": None, "in-second": "c-1", "after-second": None}


def test_contexts_of_two_generators_that_take_turns_end_with_their_own(recorder: Any) -> None:
    def part(**fields: str) -> Iterator[None]:
        with recorder.context(**fields):
            yield

    one, other = part(customer="c-1"), part(feature="f")
    next(one)
    next(other)
    one.close()
    recorder.track(**USAGE)
    other.close()
    recorder.track(**USAGE)
    first, second = recorder.events
    assert (first.get("customer"), first["feature"]) == (None, "f")
    assert "customer" not in second and "feature" not in second


def test_a_session_within_a_session_counts_in_the_budget_of_both(recorder: Any) -> None:
    with recorder.session(budget="0.002", agent="planner") as outer:
        for _ in range(2):
            with recorder.session(agent="worker") as inner:
                inner.step(**USAGE)
        assert (inner.total_cost, outer.total_cost, outer.step().remaining) == (Decimal("0.001"), 0, 0)
        with pytest.raises(spendfuse.BudgetExceededError) as refused, recorder.session(budget="9"):
            recorder.guarded_call(lambda: None)
    assert (refused.value.budget, refused.value.limit) == ("session", Decimal("0.002"))


def test_a_step_with_the_answer_of_a_wrapped_client_tells_it_once(recorder: Any, clients: Any) -> None:
    client = recorder.wrap(clients.openai())
    with recorder.session(budget="1") as run:
        step = run.step(client.chat.completions.create(**CHAT))
    assert step.total_cost == Decimal("0.001")
    assert [event.get("operation") for event in recorder.events] == ["chat", None]


def test_a_session_in_a_forked_child_does_not_wait_for_a_thread_of_the_parent(recorder: Any) -> None:
    with recorder.session(budget="1") as run:
        run._lock.acquire()
        child = os.fork()
        if child == 0:
            done = threading.Thread(target=spendfuse.copy_context(recorder.guarded_call), args=(lambda: None,), daemon=True)
            done.start()
            done.join(5)
            os._exit(1 if done.is_alive() else 0)
        run._lock.release()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_the_state_of_a_session_whose_name_scopes_write_in_another_way(recorder: Any) -> None:
    run = recorder.session("chat:7", budget="1")
    line = {"budget": "b", "scope": "acme/session=chat%3A7", "verdict": "ok", "spent_usd": "0.40", "limit_usd": "1"}
    recorder.sidecar.state = lambda **_: {"budgets": [line]}
    assert run.state().total_cost == Decimal("0.40")


def test_clients_that_share_one_of_httpx_keep_each_its_own(recorder: Any, clients: Any) -> None:
    import openai

    shared = clients.openai()._client
    one = recorder.wrap(clients.openai(http_client=shared), customer="c-1")
    other = recorder.wrap(clients.openai(http_client=shared), customer="c-2")
    for client in (one, other, one.with_options(timeout=9), other.copy()):
        assert isinstance(client, openai.OpenAI)
        client.chat.completions.create(**CHAT)
    assert [event["customer"] for event in recorder.events] == ["c-1", "c-2", "c-1", "c-2"]
    # Wrapped again, the last one holds.
    recorder.wrap(one, customer="c-3").chat.completions.create(**CHAT)
    assert recorder.events[-1]["customer"] == "c-3"


def test_a_copy_of_a_wrapped_client_leaves_it_as_it_is_beside_instrument(recorder: Any, clients: Any) -> None:
    from spendfuse import _instrument

    _instrument.instrument(recorder)
    try:
        client = recorder.wrap(clients.openai(), customer="c-1")
        client.with_options(timeout=9).chat.completions.create(**CHAT)
        client.chat.completions.create(**CHAT)
    finally:
        _instrument.uninstrument()
    assert [event.get("customer") for event in recorder.events] == ["c-1", "c-1"]


def test_what_was_wrapped_and_guarded_before_configure_goes_by_it(
    monkeypatch: pytest.MonkeyPatch, clients: Any, sidecar: Any
) -> None:
    monkeypatch.setattr(spendfuse, "_default", None)
    monkeypatch.setattr(spendfuse, "_is_implicit", True)
    client = spendfuse.wrap(clients.openai())
    work = spendfuse.guard(lambda: None, feature="report")
    sf = spendfuse.configure(sidecar.url, workspace="acme", reserve=True)
    client.chat.completions.create(**CHAT)
    work()
    assert spendfuse.flush(5)
    assert [check["workspace"] for check in sidecar.checks] == ["acme", "acme"]
    assert sidecar.checks[0]["reserve"] is True
    assert [event["workspace"] for event in sidecar.events] == ["acme"]
    # What was said on purpose stays.
    assert spendfuse.configure(workspace="other") is not sf
    assert sf.config.workspace == "acme"


def test_names_that_are_no_text_to_others_are_asked_about_and_told(recorder: Any, sidecar: Any) -> None:
    name = os.fsdecode(b"caf\xe9")
    recorder.check(customer=name, tags={name: name})
    recorder.track(**USAGE, customer=name, tags={name: name})
    for told in (recorder.questions[0], recorder.events[0]):
        assert (told["customer"], told["tags"]) == ("caf?", {"caf?": "caf?"})


def test_amounts_are_written_without_an_exponent(recorder: Any) -> None:
    recorder.check(estimated_cost_usd=0.00001)
    recorder.check(estimated_cost_usd=Decimal("1E-7"))
    with recorder.session(budget=Decimal("1E+2")):
        recorder.check()
    recorder.track(revenue_usd=Decimal("1E-7"), id="r")
    recorder.track(**USAGE, reported_cost_usd=0.00002, id="c")
    assert [question.get("estimated_cost_usd") for question in recorder.questions] == ["0.00001", "0.0000001", None]
    assert recorder.questions[2]["session_limit_usd"] == "100"
    events = {event["id"]: event for event in recorder.events}
    assert events["r"]["revenue_usd"] == "0.0000001"
    assert events["c"]["reported_cost_usd"] == "0.00002"
