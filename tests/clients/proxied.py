"""Calls OpenAI, Anthropic and Gemini by their own SDKs through a proxy, and prints what they made of it.

    python proxied.py PROXY

Customer c-1 calls each, whole and streamed; customer c-2 may spend nothing. A line of JSON for each.
"""

import json
import sys

import anthropic
import openai
from google import genai
from google.genai.types import HttpOptions

MESSAGES = [{"role": "user", "content": "x"}]
proxy = sys.argv[1]


def tell(call, client, result):
    print(json.dumps({"call": call, "version": client.__version__, **result}), flush=True)


def customer(name):
    return {"x-spendfuse-customer": name}


def of_openai(name):
    return openai.OpenAI(
        api_key="sk-of-the-provider", base_url=proxy + "/openai/v1", default_headers=customer(name)
    )


def of_anthropic(name):
    return anthropic.Anthropic(
        api_key="sk-of-the-provider", base_url=proxy + "/anthropic", default_headers=customer(name)
    )


def of_gemini(name):
    options = HttpOptions(base_url=proxy + "/gemini", headers=customer(name))
    return genai.Client(api_key="sk-of-the-provider", http_options=options)


# The cheapest first: what little is spent last is told late.
client = of_gemini("c-1")
answer = client.models.generate_content(model="gemini-2.5-flash", contents="x")
tell("gemini", genai, {"text": answer.text})
stream = client.models.generate_content_stream(model="gemini-2.5-flash", contents="x")
tell("gemini-stream", genai, {"text": "".join(part.text for part in stream)})

client = of_openai("c-1")
chat = client.chat.completions.with_raw_response.create(model="gpt-4o", messages=MESSAGES)
tell("openai", openai, {
    "text": chat.parse().choices[0].message.content,
    "cost": chat.headers["x-spendfuse-cost-usd"],
})
stream = client.chat.completions.create(model="gpt-4o", messages=MESSAGES, stream=True)
# As apps do that never asked for usage: every piece has a choice.
tell("openai-stream", openai, {"text": "".join(part.choices[0].delta.content or "" for part in stream)})
response = client.responses.create(model="gpt-4o", input="x")
tell("openai-responses", openai, {"text": response.output_text})

client = of_anthropic("c-1")
message = client.messages.create(model="claude-sonnet-4-5", max_tokens=200, messages=MESSAGES)
tell("anthropic", anthropic, {"text": message.content[0].text})
with client.messages.stream(model="claude-sonnet-4-5", max_tokens=200, messages=MESSAGES) as stream:
    tell("anthropic-stream", anthropic, {"text": stream.get_final_text()})

for name, module, call in [
    ("openai", openai, lambda: of_openai("c-2").chat.completions.create(model="gpt-4o", messages=MESSAGES)),
    ("anthropic", anthropic, lambda: of_anthropic("c-2").messages.create(
        model="claude-sonnet-4-5", max_tokens=200, messages=MESSAGES)),
    ("gemini", genai, lambda client=of_gemini("c-2"): client.models.generate_content(
        model="gemini-2.5-flash", contents="x")),
]:
    try:
        call()
        refused = {"error": None}
    except Exception as error:
        refused = {
            "error": type(error).__name__,
            "code": getattr(error, "status_code", None) or getattr(error, "code", None),
            "text": str(error),
        }
    tell(name + "-refused", module, refused)
