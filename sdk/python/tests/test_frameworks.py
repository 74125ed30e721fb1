"""Frameworks on top of the providers' packages: guarded and metered by the client inside.

LangChain with OpenAI always; the others where they are installed, as `make compat` does it.
"""

from __future__ import annotations

import asyncio
from typing import Any, Callable

import pytest
import spendfuse


def langchain_openai(sf: Any, url: str) -> Any:
    module = pytest.importorskip("langchain_openai")
    model = sf.wrap(module.ChatOpenAI(model="gpt-4o", api_key="k", base_url=url + "/v1"))

    def calls() -> list[str]:
        streamed = "".join(part.content for part in model.stream("Hi"))
        return [model.invoke("Hi").content, streamed, asyncio.run(model.ainvoke("Hi")).content]

    return calls


def langchain_anthropic(sf: Any, url: str) -> Any:
    module = pytest.importorskip("langchain_anthropic")
    model = sf.wrap(module.ChatAnthropic(model="claude-opus-4-8", api_key="k", base_url=url, max_tokens=99))
    return lambda: [model.invoke("Hi").content, asyncio.run(model.ainvoke("Hi")).content]


def langchain_google_genai(sf: Any, url: str) -> Any:
    module = pytest.importorskip("langchain_google_genai")
    model = sf.wrap(module.ChatGoogleGenerativeAI(model="gemini-2.5-flash", google_api_key="k", base_url=url))
    return lambda: [model.invoke("Hi").content, "".join(part.text for part in model.stream("Hi"))]


def llama_index(sf: Any, url: str) -> Any:
    module = pytest.importorskip("llama_index.llms.openai")
    model = sf.wrap(module.OpenAI(model="gpt-4o", api_key="k", api_base=url + "/v1"))

    def calls() -> list[str]:
        streamed = [part.delta for part in model.stream_complete("Hi")]
        return [str(model.complete("Hi")), "".join(streamed), str(asyncio.run(model.acomplete("Hi")))]

    return calls


def openai_agents(sf: Any, url: str) -> Any:
    agents = pytest.importorskip("agents")
    import openai

    agents.set_tracing_disabled(True)
    client = sf.wrap(openai.AsyncOpenAI(api_key="k", base_url=url + "/v1"))
    models = [kind("gpt-4o", client) for kind in (agents.OpenAIResponsesModel, agents.OpenAIChatCompletionsModel)]
    return lambda: [
        agents.Runner.run_sync(agents.Agent(name="a", model=model), "Hi").final_output for model in models
    ]


def pydantic_ai(sf: Any, url: str) -> Any:
    module = pytest.importorskip("pydantic_ai")
    import openai
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    client = sf.wrap(openai.AsyncOpenAI(api_key="k", base_url=url + "/v1"))
    agent = module.Agent(OpenAIChatModel("gpt-4o", provider=OpenAIProvider(openai_client=client)))
    return lambda: [agent.run_sync("Hi").output]


FRAMEWORKS = [langchain_openai, langchain_anthropic, langchain_google_genai, llama_index, openai_agents, pydantic_ai]


@pytest.mark.parametrize("framework", FRAMEWORKS, ids=lambda framework: framework.__name__)
def test_a_framework_is_guarded_and_metered(framework: Callable[..., Any], recorder: Any, provider: Any) -> None:
    calls = framework(recorder, provider.url)
    with recorder.context(customer="c-1"):
        answers = calls()
    assert set(answers) == {"Hello"}
    assert [event["customer"] for event in recorder.events] == ["c-1"] * len(answers)
    assert "estimated" not in {event["usage_format"] for event in recorder.events}
    sent = len(provider.requests)
    recorder.refuse("cap")
    with pytest.raises(spendfuse.BudgetExceededError):
        calls()
    assert len(provider.requests) == sent
