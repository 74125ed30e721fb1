"""Calls each SDK once per mode through a gateway that refuses, and prints what the SDK made of it.

    python refusals.py GATEWAY MODE...

GATEWAY/CLIENT.MODE/ is where a client's calls go. A line of JSON for each; sleeps are noted, not slept.
"""

import json
import sys
import time

sleeps = []
time.sleep = lambda seconds: sleeps.append(round(seconds, 2))

import anthropic
import botocore
import botocore.session
import openai
from botocore.config import Config
from google import genai
from google.genai.types import HttpOptions, HttpRetryOptions

MESSAGES = [{"role": "user", "content": "x"}]


def call_openai(url):
    client = openai.OpenAI(api_key="sk-of-the-provider", base_url=url + "/v1")
    client.chat.completions.create(model="gpt-4o", messages=MESSAGES)


def call_anthropic(url):
    client = anthropic.Anthropic(api_key="sk-of-the-provider", base_url=url)
    client.messages.create(model="claude-opus-4-8", max_tokens=5, messages=MESSAGES)


def call_genai(url, retry_options=None):
    options = HttpOptions(base_url=url, retry_options=retry_options)
    client = genai.Client(api_key="sk-of-the-provider", http_options=options)
    client.models.generate_content(model="gemini-2.5-flash", contents="x")


def call_bedrock(url):
    client = botocore.session.get_session().create_client(
        "bedrock-runtime",
        region_name="us-east-1",
        endpoint_url=url,
        aws_access_key_id="id-of-the-provider",
        aws_secret_access_key="sk-of-the-provider",
        config=Config(retries={"total_max_attempts": 3, "mode": "standard"}),
    )
    client.converse(modelId="model", messages=[{"role": "user", "content": [{"text": "x"}]}])


CLIENTS = {
    "openai-python": (openai.__version__, call_openai),
    "anthropic-python": (anthropic.__version__, call_anthropic),
    "genai-python": (genai.__version__, call_genai),
    "genai-python-with-retries": (
        genai.__version__,
        lambda url: call_genai(url, HttpRetryOptions(attempts=3)),
    ),
    "botocore": (botocore.__version__, call_bedrock),
}


def status_of(error):
    """The HTTP status, wherever the SDK keeps it."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        return response["ResponseMetadata"]["HTTPStatusCode"]
    return getattr(error, "status_code", None) or getattr(error, "code", None)


gateway, *modes = sys.argv[1:]
for name, (version, call) in CLIENTS.items():
    for mode in modes:
        sleeps.clear()
        try:
            call(f"{gateway}/{name}.{mode}")
            seen = {"error": None, "status": None}
        except Exception as error:
            seen = {"error": f"{type(error).__name__}: {error}", "status": status_of(error)}
        print(json.dumps({"client": name, "version": version, "mode": mode, "sleeps": sleeps, **seen}))
