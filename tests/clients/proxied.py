"""Calls by SDKs through a proxy, and once past it, and prints what they made of it.

    python proxied.py PROXY UPSTREAM

A line of JSON for each client and each of: whole, streamed, refused (customer c-2 may spend nothing),
downgraded (customer d-OF_WHOM has a budget that says so), cut (the upstream breaks off in the middle of
a stream; "direct" is what the client makes of it without a proxy).
"""

import importlib.metadata
import json
import os
import sys

# LiteLLM asks the network for prices where nobody says otherwise.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import anthropic
import litellm
import openai
from google import genai
from google.genai.types import HttpOptions
from langchain_anthropic import ChatAnthropic
from langchain_openai import ChatOpenAI

proxy, upstream = sys.argv[1:]
# Else it writes advice among the lines.
litellm.suppress_debug_info = True
KEY = "sk-of-the-provider"


def messages(content):
    return [{"role": "user", "content": content}]


def customer(name):
    return {"x-spendfuse-customer": name}


class OpenAi:
    package, whose = "openai", "openai"

    def client(self, base, name):
        return openai.OpenAI(api_key=KEY, base_url=base + "/openai/v1", default_headers=customer(name))

    def whole(self, base, name):
        chat = self.client(base, name).chat.completions.create(model="gpt-4o", messages=messages("x"))
        return chat.choices[0].message.content, chat.model

    def streamed(self, base, name, content="x"):
        stream = self.client(base, name).chat.completions.create(
            model="gpt-4o", messages=messages(content), stream=True
        )
        # As apps do that never asked for usage: every piece has a choice.
        return "".join(part.choices[0].delta.content or "" for part in stream)


class Responses(OpenAi):
    def whole(self, base, name):
        response = self.client(base, name).responses.create(model="gpt-4o", input="x")
        return response.output_text, response.model

    def streamed(self, base, name, content="x"):
        stream = self.client(base, name).responses.create(model="gpt-4o", input=content, stream=True)
        return "".join(event.delta for event in stream if event.type == "response.output_text.delta")


class Azure(OpenAi):
    whose = "azure"

    def client(self, base, name):
        return openai.AzureOpenAI(
            api_key=KEY, azure_endpoint=base + "/azure/my-resource", api_version="2024-10-21",
            default_headers=customer(name),
        )


class Anthropic:
    package, whose = "anthropic", "anthropic"

    def client(self, base, name):
        return anthropic.Anthropic(
            api_key=KEY, base_url=base + "/anthropic", default_headers=customer(name)
        )

    def asked(self, content):
        return {"model": "claude-sonnet-4-5", "max_tokens": 200, "messages": messages(content)}

    def whole(self, base, name):
        message = self.client(base, name).messages.create(**self.asked("x"))
        return message.content[0].text, message.model

    def streamed(self, base, name, content="x"):
        with self.client(base, name).messages.stream(**self.asked(content)) as stream:
            return stream.get_final_text()


class Gemini:
    package, whose = "google-genai", "gemini"

    def models(self, base, name):
        options = HttpOptions(base_url=base + "/gemini", headers=customer(name))
        # Kept, for a client that is gone closes its connections.
        self.kept = genai.Client(api_key=KEY, http_options=options)
        return self.kept.models

    def whole(self, base, name):
        answer = self.models(base, name).generate_content(model="gemini-2.5-flash", contents="x")
        return answer.text, answer.model_version

    def streamed(self, base, name, content="x"):
        stream = self.models(base, name).generate_content_stream(
            model="gemini-2.5-flash", contents=content
        )
        return "".join(part.text for part in stream)


class LangChain:
    package, whose = "langchain-openai", "openai"

    def client(self, base, name):
        return ChatOpenAI(
            model="gpt-4o", api_key=KEY, base_url=base + "/openai/v1", default_headers=customer(name)
        )

    def whole(self, base, name):
        answer = self.client(base, name).invoke("x")
        return answer.content, answer.response_metadata["model_name"]

    def streamed(self, base, name, content="x"):
        return "".join(part.content for part in self.client(base, name).stream(content))


class LangChainAnthropic(LangChain):
    package, whose = "langchain-anthropic", "anthropic"

    def client(self, base, name):
        return ChatAnthropic(
            model="claude-sonnet-4-5", api_key=KEY, base_url=base + "/anthropic", max_tokens=200,
            default_headers=customer(name),
        )

    def streamed(self, base, name, content="x"):
        parts = self.client(base, name).stream(content)
        return "".join(part.text for part in parts)


class LiteLlm:
    package, whose = "litellm", "openai"

    def asked(self, base, name, content):
        return {
            "model": "openai/gpt-4o", "api_key": KEY, "api_base": base + "/openai/v1",
            "extra_headers": customer(name), "messages": messages(content),
        }

    def whole(self, base, name):
        answer = litellm.completion(**self.asked(base, name, "x"))
        return answer.choices[0].message.content, answer.model

    def streamed(self, base, name, content="x"):
        stream = litellm.completion(stream=True, **self.asked(base, name, content))
        return "".join(part.choices[0].delta.content or "" for part in stream)


CLIENTS = {
    "openai-python": OpenAi(),
    "openai-python-responses": Responses(),
    "azure-openai-python": Azure(),
    "anthropic-python": Anthropic(),
    "genai-python": Gemini(),
    "langchain-openai": LangChain(),
    "langchain-anthropic": LangChainAnthropic(),
    "litellm": LiteLlm(),
}


def tried(call):
    try:
        made = call()
    except Exception as error:
        return {
            "error": type(error).__name__,
            "status": getattr(error, "status_code", None) or getattr(error, "code", None),
            "message": str(error),
        }
    text, model = made if isinstance(made, tuple) else (made, None)
    return {"text": text, "model": model}


for name, client in CLIENTS.items():
    cells = {
        "whole": lambda: client.whole(proxy, "c-1"),
        "streamed": lambda: client.streamed(proxy, "c-1"),
        "refused": lambda: client.whole(proxy, "c-2"),
        "downgraded": lambda: client.whole(proxy, "d-" + client.whose),
        "cut": lambda: client.streamed(proxy, "c-4", "cut"),
    }
    for case, call in cells.items():
        seen = tried(call)
        if case == "cut":
            seen["direct"] = tried(lambda: client.streamed(upstream, "c-4", "cut"))
        version = importlib.metadata.version(client.package)
        print(json.dumps({"client": name, "version": version, "case": case, **seen}), flush=True)
