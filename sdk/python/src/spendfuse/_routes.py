"""Which requests are calls that cost money, of whom they are asked, and how their answers are read.

The same calls as the proxy meters: `crates/proxy/src/route.rs`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Optional
from urllib.parse import unquote

#: Whose address it is, as the price book names providers: those whose ids are identities.
_HOSTS = (
    (r"(.+\.)?api\.openai\.com", "openai"),
    (r".+\.(openai|cognitiveservices)\.azure\.com", "azure"),
    (r".+\.services\.ai\.azure\.com", "azure_ai"),
    (r"api\.anthropic\.com", "anthropic"),
    (r"generativelanguage\.googleapis\.com", "gemini"),
    (r"(.+-)?aiplatform\.googleapis\.com", "vertex_ai"),
    # Of the multi-regions `us` and `eu`.
    (r"aiplatform\.\w+\.rep\.googleapis\.com", "vertex_ai"),
    # By IPv4 or both, by FIPS, in China and in the European sovereign cloud, and from a private network. And
    # not a balancer of one's own: bedrock-1.us-east-1.elb.amazonaws.com.
    (
        r"(.+\.)?bedrock-(agent-runtime|mantle|runtime)(-fips)?\.[\w-]+\.(vpce\.)?"
        r"(amazonaws\.(com|com\.cn|eu)|api\.aws|api\.amazonwebservices\.(com\.cn|eu))",
        "bedrock",
    ),
    (r"api\.mistral\.ai", "mistral"),
    (r"api\.deepseek\.com", "deepseek"),
    (r"api\.groq\.com", "groq"),
    (r"api\.x\.ai", "xai"),
    (r"api\.together\.(xyz|ai)", "together_ai"),
    (r"api\.fireworks\.ai", "fireworks_ai"),
    (r"api\.perplexity\.ai", "perplexity"),
    (r"api\.cerebras\.ai", "cerebras"),
    (r"api\.moonshot\.(ai|cn)", "moonshot"),
    (r"api\.deepinfra\.com", "deepinfra"),
    (r"openrouter\.ai", "openrouter"),
    (r"dashscope-intl\.aliyuncs\.com", "dashscope"),
)
_PROVIDERS = tuple((re.compile(host), provider) for host, provider in _HOSTS)
#: Other names of providers, with `_` for every separator: OpenTelemetry's and SDKs'.
_OTHER_NAMES = {
    "amazon_bedrock": "bedrock", "aws_bedrock": "bedrock", "bedrock_converse": "bedrock",
    "az_ai_inference": "azure_ai", "azure_ai_inference": "azure_ai",
    "az_ai_openai": "azure", "azure_ai_openai": "azure", "azure_openai": "azure",
    "gcp_gemini": "gemini", "gcp_gen_ai": "gemini", "google": "gemini", "google_genai": "gemini",
    "google_generative_ai": "gemini", "gcp_vertex_ai": "vertex_ai", "google_vertex": "vertex_ai",
    "vertex": "vertex_ai", "vertexai": "vertex_ai", "vertex_anthropic": "vertex_ai",
    "fireworks": "fireworks_ai", "mistral_ai": "mistral", "mistralai": "mistral", "moonshotai": "moonshot",
    "perplexity_ai": "perplexity", "text_completion_openai": "openai", "together": "together_ai",
    "togetherai": "together_ai", "x_ai": "xai",
}
#: What stands behind a provider's name for the API that is called: `openai.responses`.
_APIS = frozenset("chat completion completions converse embedding embeddings messages responses".split())


@dataclass(frozen=True)
class Route:
    """A call that costs money."""

    operation: str
    usage_format: str
    #: Where the address does not say whose it is: the one who invented the protocol.
    inventor: Optional[str]
    #: The model, where it stands in the path.
    model: Optional[str] = None
    #: A stream by its path.
    streams: bool = False
    #: Asks for an answer that was made before, and costs nothing by itself.
    retrieves: bool = False

    @property
    def language(self) -> str:
        """What is spoken, as the other SDK names it."""
        return "completions" if self.operation in ("chat", "completion") else self.operation

    @property
    def is_chat_completion(self) -> bool:
        """Of a kind whose streams tell their usage only where they are asked to."""
        return self.model is None and self.operation in ("chat", "completion") and self.usage_format == "openai.chat"


_CHAT = Route("chat", "openai.chat", None)
_COMPLETION = Route("completion", "openai.chat", None)
_RESPONSES = Route("responses", "openai.responses", None)
_RETRIEVED = Route("responses", "openai.responses", None, retrieves=True)
_EMBEDDINGS = Route("embeddings", "openai.chat", None)
_MESSAGES = Route("chat", "anthropic.messages", "anthropic")
_INTERACTION = Route("generate_content", "gemini.interactions", "gemini")
#: By the ends of their paths, the longer ones first.
_ENDS = (
    ("chat/completions", _CHAT),
    ("completions", _COMPLETION),
    ("responses", _RESPONSES),
    # A compaction is an answer like any other.
    ("responses/compact", _RESPONSES),
    ("embeddings", _EMBEDDINGS),
    ("messages", _MESSAGES),
    ("interactions", _INTERACTION),
)
_GEMINI = {
    "generateContent": ("generate_content", False),
    "streamGenerateContent": ("generate_content", True),
    "embedContent": ("embeddings", False),
    "batchEmbedContents": ("embeddings", False),
}
#: Other makers' models at Vertex AI, and whether an answer is a stream.
_PREDICT = {"rawPredict": False, "streamRawPredict": True}
#: As Anthropic's clients count tokens there, which costs nothing.
_COUNTS_TOKENS = "count-tokens"
#: OpenAI's Assistants: a message is put into a thread, which costs nothing.
_OF_A_THREAD = re.compile(r"(^|/)threads/[^/]+/messages$", re.IGNORECASE)


@lru_cache(maxsize=256)
def route_of(method: str, path: str) -> Optional[Route]:
    """The call that a request makes, however its path is written; `None` where it costs nothing, or nobody
    can say what."""
    path = _plain(path)
    if method == "GET":
        return _RETRIEVED if _ends(path.rpartition("/")[0], "responses") else None
    if method != "POST" or _OF_A_THREAD.search(path):
        return None
    return _by_method(path) or next((route for end, route in _ENDS if _ends(path, end)), None)


def _plain(path: str) -> str:
    """As servers may read it: escapes undone, without empty parts, `.` and `..`."""
    parts: list[str] = []
    for part in unquote(path).split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def _ends(path: str, end: str) -> bool:
    """Azure takes them in any case."""
    return f"/{path}".lower().endswith(f"/{end}")


def _by_method(path: str) -> Optional[Route]:
    """The call that the method behind a model's name makes of it, as Google's paths end. Tuned models, and
    endpoints of Vertex AI, stand in the place of models."""
    before, found, last = path.rpartition("models/")
    model, colon, method = (last if found else path.rpartition("/")[2]).rpartition(":")
    if not colon:
        return None
    if method in _GEMINI:
        operation, streams = _GEMINI[method]
        return Route(operation, "gemini", "gemini", model, streams)
    if method not in _PREDICT or model == _COUNTS_TOKENS:
        return None
    if before.endswith("publishers/anthropic/"):
        return Route("chat", "anthropic.messages", "anthropic", model, _PREDICT[method])
    return Route("chat", "openai.chat", None, model, _PREDICT[method])


@lru_cache(maxsize=256)
def host_provider(host: str, path: str) -> Optional[str]:
    """Whose address it is; `None` for gateways and servers of one's own."""
    host = host.lower()
    provider = next((provider for known, provider in _PROVIDERS if known.fullmatch(host)), None)
    # The models of OpenAI are those of `*.openai.azure.com`, which is another name of the same resource.
    return "azure" if provider == "azure_ai" and _plain(path).lower().startswith("openai/") else provider


def provider_of(host: str, path: str, route: Route) -> Optional[str]:
    """Whose prices hold; `None` where nobody can tell."""
    return host_provider(host, path) or route.inventor


def source_of(provider: str) -> str:
    """Under what source all of spendfuse tells of a provider's answers, which its own ids name:
    `schemas/source-vectors.json`."""
    name = provider.lower()
    while True:
        known = _OTHER_NAMES.get(re.sub("[-. ]", "_", name))
        before, _, api = name.rpartition(".")
        if known or not before or api not in _APIS:
            return f"llm:{known or name}"
        name = before
