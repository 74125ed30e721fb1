"""What a provider's response object says about its cost, for calls that no wrapped client makes."""

from __future__ import annotations

import re
from typing import Any, Mapping, Optional, Sequence

from ._tools import ToolRuns

#: The formats by the members that only their usage objects have.
_FORMATS = (
    ("gemini", ("promptTokenCount", "candidatesTokenCount", "totalTokenCount")),
    ("gemini.interactions", ("total_input_tokens", "total_output_tokens")),
    ("openai.chat", ("prompt_tokens", "completion_tokens")),
    ("anthropic.messages", ("cache_creation_input_tokens", "cache_read_input_tokens", "server_tool_use")),
    ("bedrock.converse", ("inputTokens", "outputTokens")),
    ("openai.responses", ("input_tokens_details", "output_tokens_details", "total_tokens")),
)
_PROVIDERS = {
    "openai.chat": "openai", "openai.responses": "openai", "gemini": "gemini", "gemini.interactions": "gemini",
    "anthropic.messages": "anthropic", "bedrock.converse": "bedrock",
}
#: Models that OpenAI does not sell, although their answers speak its language.
_OF_OTHERS = re.compile(
    ".*/|"
    "bge-|chatglm|claude|codestral|command|deepseek|devstral|dolphin|doubao|embed-|ernie|gemini|gemma|glm|"
    "gpt-oss|granite|grok|hermes|hunyuan|jamba|jina|kimi|lfm|llama|longcat|magistral|mercury|mimo|minimax|"
    "ministral|mistral|mixtral|moonshot|nemotron|nomic|nova|olmo|open-mi[sx]tral|phi|pixtral|qwen|qwq|r1|"
    "reka|seed-|solar|sonar|step-|voyage|wizardlm|yi-",
    re.IGNORECASE,
)


def plain(value: Any) -> Any:
    """`value` as JSON has it; SDKs' objects are asked for their own form."""
    for dump in ("model_dump", "to_dict"):
        method = getattr(value, dump, None)
        if callable(method):
            # Google's objects have other names in Python than on the wire; the others ignore this.
            return method(mode="json", by_alias=True) if dump == "model_dump" else method()
    return value


def read(response: Any) -> Optional[dict[str, Any]]:
    """Members of an event, from a response object or its JSON; `None` where it tells no usage."""
    told: Mapping[str, Any]
    if isinstance(response, Mapping):
        told = response
        usage = told.get("usage") or told.get("usageMetadata") or told.get("usage_metadata")
    else:
        usage = getattr(response, "usage", None) or getattr(response, "usage_metadata", None)
        names = ("id", "response_id", "model", "model_version", "service_tier", "type")
        told = {name: value for name in names if isinstance(value := getattr(response, name, None), str)}
    usage = plain(usage)
    if not isinstance(usage, Mapping):
        return None
    event: dict[str, Any] = {"usage": {name: value for name, value in usage.items() if value is not None}}
    event["usage_format"] = format_of(event["usage"], told.get("type") == "message")
    metadata = told.get("ResponseMetadata")
    request_id = metadata.get("RequestId") if isinstance(metadata, Mapping) else getattr(response, "_request_id", None)
    if isinstance(request_id, str) and request_id:
        # As boto3 and clients of OpenAI and Anthropic keep it; it names what has no other name, embeddings.
        event["id"] = request_id
    for name, members in (
        ("id", ("id", "responseId", "response_id")),
        ("model", ("model", "modelVersion", "model_version")),
        ("service_tier", ("service_tier",)),
    ):
        value = next((told[member] for member in members if isinstance(told.get(member), str)), None)
        if value:
            event[name] = value
    provider = _PROVIDERS.get(event["usage_format"])
    if provider == "openai":
        provider = _seller(response, event.get("model", ""))
    if provider:
        event["provider"] = provider
    units = tools_of(response).units(event.get("model", ""), event["usage"])
    if units:
        event["units"] = units
    return event


def names_itself(response: Any) -> bool:
    """Whether a response has an id, by which it is known that it was told."""
    event = read(response)
    return event is not None and "id" in event


def _seller(response: Any, model: str) -> Optional[str]:
    """Who sold an answer in OpenAI's language; `None` where it may be anybody."""
    filtered = "prompt_filter_results"
    if filtered in response if isinstance(response, Mapping) else hasattr(response, filtered):
        return "azure"
    return None if _OF_OTHERS.match(model) else "openai"


def tools_of(response: Any) -> ToolRuns:
    """The tools that an answer lists."""

    def listed(name: str) -> Sequence[Any]:
        found = response.get(name) if isinstance(response, Mapping) else getattr(response, name, None)
        return found if isinstance(found, (list, tuple)) else ()

    runs = ToolRuns()
    runs.take_output(listed("output"))
    for candidate in listed("candidates"):
        runs.take_candidate(candidate)
    return runs


def format_of(usage: Mapping[str, Any], is_message: bool = False) -> str:
    """How `usage` is to be read, by the names in it."""
    if is_message:
        return "anthropic.messages"
    return next((name for name, members in _FORMATS if any(member in usage for member in members)), "spendfuse")
