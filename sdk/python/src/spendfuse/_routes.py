"""Which requests are calls that cost money, of whom they are asked, and how their answers are read.

The same calls as the proxy meters: `crates/proxy/src/route.rs`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Optional

#: Whose address it is, as the price book names providers. A host or the end of one.
_HOSTS = (
    ("api.openai.com", "openai"),
    (".api.openai.com", "openai"),
    (".openai.azure.com", "azure"),
    (".cognitiveservices.azure.com", "azure"),
    (".services.ai.azure.com", "azure_ai"),
    ("api.anthropic.com", "anthropic"),
    ("generativelanguage.googleapis.com", "gemini"),
    ("aiplatform.googleapis.com", "vertex_ai"),
    ("-aiplatform.googleapis.com", "vertex_ai"),
    (".amazonaws.com", "bedrock"),
    ("api.groq.com", "groq"),
    ("api.mistral.ai", "mistral"),
    ("api.deepseek.com", "deepseek"),
    ("api.x.ai", "xai"),
    ("openrouter.ai", "openrouter"),
    ("api.together.xyz", "together_ai"),
    ("api.fireworks.ai", "fireworks_ai"),
    ("api.perplexity.ai", "perplexity"),
    ("api.cerebras.ai", "cerebras"),
    ("api.deepinfra.com", "deepinfra"),
    ("api.moonshot.ai", "moonshot"),
    ("dashscope-intl.aliyuncs.com", "dashscope"),
)


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
    def is_chat_completion(self) -> bool:
        """Of a kind whose streams tell their usage only where they are asked to."""
        return self.operation in ("chat", "completion") and self.usage_format == "openai.chat"


_CHAT = Route("chat", "openai.chat", None)
_COMPLETION = Route("completion", "openai.chat", None)
_RESPONSES = Route("responses", "openai.responses", None)
_RETRIEVED = Route("responses", "openai.responses", None, retrieves=True)
_EMBEDDINGS = Route("embeddings", "openai.chat", None)
_MESSAGES = Route("chat", "anthropic.messages", "anthropic")
#: OpenAI's Assistants: a message is put into a thread, which costs nothing.
_OF_A_THREAD = re.compile(r"/threads/[^/]+/messages$")
_GEMINI = {
    "generateContent": ("generate_content", "gemini", False),
    "streamGenerateContent": ("generate_content", "gemini", True),
    "embedContent": ("embeddings", "gemini", False),
    "batchEmbedContents": ("embeddings", "gemini", False),
    # Anthropic's models at Vertex AI.
    "rawPredict": ("chat", "anthropic.messages", False),
    "streamRawPredict": ("chat", "anthropic.messages", True),
}


def route_of(method: str, path: str) -> Optional[Route]:
    """The call that a request makes; `None` where it costs nothing, or nobody can say what."""
    path = path.rstrip("/")
    if method == "GET":
        before, _, name = path.rpartition("/")
        return _RETRIEVED if before.endswith("/responses") and name else None
    if method != "POST":
        return None
    if path.endswith("/chat/completions"):
        return _CHAT
    if path.endswith("/completions"):
        return _COMPLETION
    if path.endswith("/responses"):
        return _RESPONSES
    if path.endswith("/embeddings"):
        return _EMBEDDINGS
    if path.endswith("/messages"):
        return None if _OF_A_THREAD.search(path) else _MESSAGES
    _, found, last = path.rpartition("models/")
    model, colon, verb = last.rpartition(":")
    if found and colon and verb in _GEMINI:
        operation, usage_format, streams = _GEMINI[verb]
        inventor = "gemini" if usage_format == "gemini" else "anthropic"
        return Route(operation, usage_format, inventor, model, streams)
    return None


def provider_of(host: str, route: Route) -> Optional[str]:
    """Whose prices hold; `None` where nobody can tell."""
    host = host.lower()
    for known, provider in _HOSTS:
        if host == known or (known[0] in ".-" and host.endswith(known)):
            return provider
    return route.inventor
