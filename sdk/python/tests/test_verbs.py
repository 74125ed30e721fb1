"""guarded_call, guard, check, track, sessions; settings; LangChain."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest
import spendfuse
from spendfuse import _config

USAGE = {"model": "gpt-4o", "usage": {"input_tokens": 10, "output_tokens": 5}}
ANSWER = {"id": "chatcmpl-1", "model": "gpt-4o-2024-08-06", "usage": {"prompt_tokens": 10, "completion_tokens": 5}}


def test_a_guarded_call_asks_calls_and_tells(recorder: Any) -> None:
    recorder.answer["reservation_id"] = "h.0-1"
    answer = recorder.guarded_call(lambda model: ANSWER, model="gpt-4o", provider="openai", customer="c-1", reserve=True, estimated_cost_usd="0.01")
    assert answer is ANSWER
    [question] = recorder.questions
    assert question == {
        "workspace": "acme", "customer": "c-1", "model": "gpt-4o", "provider": "openai",
        "estimated_cost_usd": "0.01", "reserve": True,
    }
    [event] = recorder.events
    assert (event["id"], event["source"], event["model"], event["request_model"]) == (
        "chatcmpl-1", "llm:openai", "gpt-4o-2024-08-06", "gpt-4o",
    )
    assert (event["usage_format"], event["customer"], event["reservation_id"]) == ("openai.chat", "c-1", "h.0-1")


def test_a_guarded_call_of_a_coroutine_is_awaited(recorder: Any) -> None:
    async def call() -> Any:
        await asyncio.sleep(0)
        return {**ANSWER, "id": "chatcmpl-2"}

    async def main() -> None:
        assert (await recorder.guarded_call(call, customer="c-1"))["id"] == "chatcmpl-2"
        # A function that returns an awaitable, as `lambda: client.create(…)` does.
        assert (await recorder.guarded_call(lambda: call(), customer="c-2"))["id"] == "chatcmpl-2"
        recorder.refuse("cap")
        with pytest.raises(spendfuse.BudgetExceededError):
            await recorder.guarded_call(call)

    asyncio.run(main())
    assert [event["customer"] for event in recorder.events] == ["c-1"]


def test_a_call_that_fails_or_tells_nothing_frees_what_it_held(recorder: Any) -> None:
    recorder.answer["reservation_id"] = "h.0-1"
    with pytest.raises(ZeroDivisionError):
        recorder.guarded_call(lambda: 1 / 0, reserve=True)
    recorder.guarded_call(lambda: "no usage", reserve=True)
    recorder.flush(5)
    assert recorder.released == ["h.0-1", "h.0-1"]


@pytest.mark.parametrize("is_async", [False, True])
def test_a_call_that_its_session_refuses_frees_what_the_sidecar_holds_for_it(is_async: bool, sidecar: Any) -> None:
    sidecar.decision = {"decision": "allow", "state": "live", "reservation_id": "h.0-1"}
    sf = spendfuse.Spendfuse(sidecar.url, workspace="acme")

    async def call() -> None:
        raise AssertionError("it is refused")

    with sf.session(budget="0.01") as run:
        run.step(**USAGE)
        with pytest.raises(spendfuse.BudgetExceededError):
            asyncio.run(sf.guarded_call(call, reserve=True)) if is_async else sf.guarded_call(lambda: None, reserve=True)
    assert sf.flush(5)
    assert sidecar.released == ["h.0-1"]


def test_a_coroutine_function_that_raises_before_it_is_awaited_frees_what_is_held(sidecar: Any) -> None:
    sidecar.decision = {"decision": "allow", "state": "live", "reservation_id": "h.0-1"}
    sf = spendfuse.Spendfuse(sidecar.url, workspace="acme")

    async def call() -> None:
        """Takes no model."""

    async def main() -> None:
        with pytest.raises(TypeError):
            await sf.guarded_call(call, model="gpt-4o", reserve=True)  # type: ignore[arg-type]

    asyncio.run(main())
    assert sf.flush(5)
    assert sidecar.released == ["h.0-1"]


def test_a_downgrade_is_applied_raised_or_ignored(recorder: Any) -> None:
    recorder.downgrade("gpt-4o-mini")
    called: list[str] = []
    recorder.guarded_call(called.append, model="gpt-4o")
    assert called == ["gpt-4o-mini"]
    for mode, expected in (("ignore", ["gpt-4o"]), ("raise", None)):
        called.clear()
        other = spendfuse_testing().Recorder(downgrade=mode)
        other.downgrade("gpt-4o-mini")
        if expected is None:
            with pytest.raises(spendfuse.BudgetExceededError):
                other.guarded_call(called.append, model="gpt-4o")
        else:
            other.guarded_call(called.append, model="gpt-4o")
            assert called == expected


def spendfuse_testing() -> Any:
    import spendfuse.testing

    return spendfuse.testing


def test_the_decorator_guards_functions_and_coroutines(recorder: Any) -> None:
    @recorder.guard(customer=lambda user, **_: user.upper(), feature="agent", model="gpt-4o")
    def work(user: str, deep: bool = False) -> str:
        """Works."""
        recorder.track(**USAGE)
        return user

    @recorder.guard
    async def awork() -> str:
        recorder.track(**USAGE)
        return "done"

    assert work("ada", deep=True) == "ada" and (work.__name__, work.__doc__) == ("work", "Works.")
    assert asyncio.run(awork()) == "done"
    assert [event.get("customer") for event in recorder.events] == ["ADA", None]
    assert recorder.questions[0]["model"] == "gpt-4o"
    recorder.refuse("cap")
    for call in (lambda: work("ada"), lambda: asyncio.run(awork())):
        with pytest.raises(spendfuse.BudgetExceededError):
            call()
    assert len(recorder.events) == 2
    with pytest.raises(TypeError, match="did you mean feature"):
        recorder.guard(featur="x")(work)


def test_usage_of_every_providers_objects_is_read() -> None:
    from spendfuse._usage import read

    class Usage:
        def __init__(self, **fields: Any) -> None:
            self.fields = fields

        def model_dump(self, mode: str, by_alias: bool) -> dict[str, Any]:
            return self.fields

    class Message:
        id, type, model = "msg_1", "message", "claude-opus-4-8"
        usage = Usage(input_tokens=1, output_tokens=2, cache_read_input_tokens=None)

    class Generated:
        response_id, model_version = "r-1", "gemini-2.5-flash"
        usage_metadata = Usage(promptTokenCount=1, candidatesTokenCount=2)

    assert read(Message()) == {
        "usage": {"input_tokens": 1, "output_tokens": 2}, "usage_format": "anthropic.messages",
        "id": "msg_1", "model": "claude-opus-4-8", "provider": "anthropic",
    }
    assert read(Generated()) == {
        "usage": {"promptTokenCount": 1, "candidatesTokenCount": 2}, "usage_format": "gemini",
        "id": "r-1", "model": "gemini-2.5-flash", "provider": "gemini",
    }
    told = read({"id": "resp_1", "model": "gpt-5", "usage": {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}})
    assert told is not None and told["usage_format"] == "openai.responses"
    assert read({"id": "x"}) is None and read("text") is None and read(None) is None


def test_revenue_is_told_with_an_id_of_ones_own(recorder: Any) -> None:
    assert recorder.track(revenue_usd="4.99", customer="c-1", id="invoice-7") == "invoice-7"
    recorder.track(**USAGE, revenue_usd=Decimal("0.5"), customer="c-1")
    first, call, second = recorder.events
    assert (first["type"], first["id"], first["revenue_usd"], first["customer"]) == (
        "spendfuse.revenue", "invoice-7", "4.99", "c-1",
    )
    assert "type" not in call and call["customer"] == "c-1" and second["revenue_usd"] == "0.5"


def test_a_context_nests_and_a_misspelt_name_is_said_at_once(recorder: Any) -> None:
    with recorder.context(customer="c-1", tags={"team": "a"}), recorder.context(feature="f", customer=None, tags={"x": 1}):
        recorder.track(**USAGE, feature="g")
    recorder.track(**USAGE)
    inner, outer = recorder.events
    assert (inner["customer"], inner["feature"], inner["tags"]) == ("c-1", "g", {"team": "a", "x": "1"})
    assert "customer" not in outer
    with pytest.raises(TypeError, match="'custommer' is no field of a context; did you mean customer"):
        recorder.context(custommer="c-1")
    with pytest.raises(TypeError, match="did you mean"):
        recorder.check(sesion="s")


def test_a_session_adds_up_warns_and_refuses_beyond_its_budget(recorder: Any) -> None:
    recorder.cost_usd = "0.20"
    finding = {"type": "retry_loop", "severity": "warning", "message": "3 times the same", "wasted_usd": "0.01"}
    with recorder.session("s-1", budget="0.50", customer="c-1") as run:
        first = run.step(**USAGE)
        assert (first.cost, first.total_cost, first.remaining) == (Decimal("0.20"), Decimal("0.20"), Decimal("0.30"))
        assert first.warnings == ()
        recorder.answer["warnings"] = [finding, {"type": "not_evaluated", "severity": "info", "message": "x"}]
        second = run.step({**ANSWER, "id": "chatcmpl-3"})
        assert [warning.type for warning in second.warnings] == ["retry_loop"]
        third = run.step(**USAGE)
        assert [warning.type for warning in third.warnings] == ["retry_loop", "budget_exceeded"]
        assert (third.total_cost, third.remaining) == (Decimal("0.60"), Decimal(0))
        with pytest.raises(spendfuse.BudgetExceededError) as refused:
            recorder.guarded_call(lambda: None)
        assert (refused.value.budget, refused.value.spent) == ("session", Decimal("0.60"))
        assert run.state().total_cost == Decimal("0.60")
        with recorder.session() as part:
            part.step(**USAGE)
        end = run.end(settle=0)
    assert end.total_cost == Decimal("0.60") and len(end.warnings) == 2
    sessions = [(event.get("type"), event["session"], event.get("root_session")) for event in recorder.events]
    assert sessions == [
        (None, "s-1", None), (None, "s-1", None), (None, "s-1", None), (None, part.id, "s-1"),
        ("spendfuse.session_end", part.id, "s-1"), ("spendfuse.session_end", "s-1", None),
    ]
    # A sidecar that knows such limits is told of it, and refuses in every process.
    assert {question.get("session_limit_usd") for question in recorder.questions} == {"0.50", None}


def test_calls_of_wrapped_clients_count_in_the_session_around_them(recorder: Any, clients: Any) -> None:
    recorder.cost_usd = "0.30"
    client = recorder.wrap(clients.openai())
    with recorder.session(budget="0.50") as run:
        for _ in range(2):
            client.chat.completions.create(model="gpt-4o", messages=[])
            run.step()
        with pytest.raises(spendfuse.BudgetExceededError, match="has reached its budget"):
            client.chat.completions.create(model="gpt-4o", messages=[])
    assert run.total_cost == Decimal("0.60")


def test_settings_come_from_arguments_then_the_environment() -> None:
    environment = {
        "SPENDFUSE_URL": "http://sidecar:1", "SPENDFUSE_TOKEN": "t", "SPENDFUSE_WORKSPACE": "acme",
        "SPENDFUSE_DISABLED": "0", "SPENDFUSE_ON_UNAVAILABLE": "block", "SPENDFUSE_FINGERPRINT_KEY": "k",
    }
    config = _config.from_environment(environment, workspace="other")
    assert (config.url, config.token, config.workspace) == ("http://sidecar:1", "t", "other")
    assert (config.disabled, config.on_unavailable, config.fingerprint_key) == (False, "block", b"k")
    assert _config.from_environment({"SPENDFUSE_DISABLED": "1"}).disabled
    assert _config.from_environment({"SPENDFUSE_SIDECAR_URL": "http://x"}).url == "http://x"
    with pytest.raises(ValueError, match="on_unavailable is 'perhaps'; write 'allow' or 'block'"):
        _config.from_environment({}, on_unavailable="perhaps")
    with pytest.raises(ValueError, match="is no address of a sidecar"):
        spendfuse.Spendfuse("ftp://x")
