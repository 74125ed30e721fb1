"""What a provider's answer says about its cost: read from whole answers and from streams alike.

The same rules as the proxy's: `crates/proxy/src/answer.rs`.
"""

from __future__ import annotations

import json
import re
from typing import Any, Mapping, Optional

from ._pictures import tokens_in
from ._routes import Route
from ._tools import ToolRuns

#: Items of OpenAI's responses that the app runs; what the provider runs is in `_tools`.
_FOR_THE_APP = frozenset(
    "apply_patch_call computer_call custom_tool_call function_call local_shell_call shell_call".split()
)

#: A piece of a stream that adds text without an escape to the answer, and nothing else, by how it is to be
#: read: what is counted of it stands in the groups.
_TEXT = {
    "openai.chat": re.compile(rb'"delta": ?\{"content": ?"([^"\\]*)"()\}'),
    "openai.responses": re.compile(rb'"delta": ?"([^"\\]*)"()'),
    "anthropic.messages": re.compile(rb'"delta": ?\{"type": ?"(\w+_delta)", ?"\w+": ?"([^"\\]*)" ?\}'),
}
#: What else a piece may have that matters. In a text these words are followed by an escaped quote.
_MORE = {
    "openai.chat": (b'"delta"', b"_call", b'"message"', b'"text"'),
    "openai.responses": (b'"response"', b'"item"', b'"output"', b'"status"', b'"background"', b'"created_at"'),
    "anthropic.messages": (b'"message"', b'"content"', b'"content_block"'),
}
_USAGE = re.compile(rb'usage":(?! ?null)')


class Seen:
    """What was seen of an answer so far."""

    def __init__(self) -> None:
        self.id = ""
        self.model = ""
        self.service_tier = ""
        #: The provider's own object; `None` where none has come.
        self.usage: Optional[dict[str, Any]] = None
        #: How it is to be read, where that is not the route's: models behind Bedrock have their own.
        self.usage_format = ""
        #: Bytes of generated text and tool calls, for an estimate where no usage comes.
        self.generated = 0
        #: Whether anything came that can be read.
        self.is_read = False
        #: Whether `usage` says what the whole answer has used, and not only what it began with.
        self.is_final = False
        #: Whether the answer was not made yet when it was last heard of. Where it is made in the
        #: background, it will be asked for.
        self.is_pending = False
        self.was_background = False
        self.created_at: Optional[float] = None
        #: Tools that the app is asked to run, each once.
        self._tools: set[Any] = set()
        #: Whether the last call of Gemini's goes on in the next part.
        self._goes_on = False
        self._tool_runs = ToolRuns()
        #: Of the last piece that had nothing but text.
        self._around_text = (b"", b"")

    @property
    def tool_calls(self) -> int:
        return len(self._tools)

    def units(self, asked_model: str) -> dict[str, str]:
        """What is billed by count and stands in no usage object. What an estimate stands in for counts no
        tools."""
        return self._tool_runs.units(self.model or asked_model, self.usage if self.is_final else None)

    def take(self, route: Route, data: bytes) -> bool:
        """Takes a whole answer, or the data of one piece of a stream; whether that is nothing but a
        usage, as a stream has it that was asked for one. What is no JSON says nothing: `[DONE]`."""
        try:
            told = json.loads(data)
        except ValueError:
            return False
        return isinstance(told, dict) and self.take_told(route, told)

    def take_text(self, route: Route, piece: bytes) -> bool:
        """Counts a piece of a stream that has nothing but text, as most have, without reading it; whether it
        was one. A stream of a thousand pieces would take milliseconds from the app otherwise."""
        known = _TEXT.get(route.usage_format)
        found = known.search(piece) if known is not None and self.id and self.model else None
        if found is None:
            return False
        # Most are all the same around their text.
        around = piece[: found.start()], piece[found.end() :]
        if around != self._around_text:
            if _says_more(route, *around):
                return False
            self._around_text = around
        self.generated += len(found[1]) + len(found[2])
        return True

    def take_told(self, route: Route, told: dict[str, Any]) -> bool:
        """As `take`, of what somebody has read already."""
        self.is_read = True
        if route.usage_format == "bedrock.converse":
            self._conversed(told) if route.operation == "chat" else self._invoked(told, route.model or "")
        elif route.usage_format == "anthropic.messages":
            self._message(told)
        elif route.usage_format == "gemini":
            self._generated(told)
        elif route.usage_format == "gemini.interactions":
            self._interaction(told)
        elif route.operation == "responses":
            self._response(told)
        else:
            return self._completion(told)
        return False

    def _completion(self, told: Mapping[str, Any]) -> bool:
        """Of several usages the last one counts: where every chunk has one, they are running totals."""
        self._name(told.get("id"), told.get("model"), told.get("service_tier"))
        choices = told.get("choices")
        for place, choice in enumerate(choices if isinstance(choices, list) else ()):
            for name in ("delta", "message", "text"):
                part = choice.get(name)
                self.generated += text_bytes(part)
                self._take_calls(choice.get("index", place), part)
        usage = told.get("usage")
        if not isinstance(usage, dict):
            return False
        self.usage, self.is_final = usage, True
        return choices == []

    def _take_calls(self, choice: Any, message: Any) -> None:
        if not isinstance(message, dict):
            return
        calls = (call for call in message.get("tool_calls") or () if isinstance(call, dict))
        self._tools.update((choice, call.get("index", place)) for place, call in enumerate(calls))
        if isinstance(message.get("function_call"), dict):
            # OpenAI's older form has one.
            self._tools.add((choice, "function_call"))

    def _response(self, told: Mapping[str, Any]) -> None:
        self.generated += text_bytes(told.get("delta"))
        inner = told.get("response")
        whole: Mapping[str, Any] = inner if isinstance(inner, dict) else told
        if isinstance(whole.get("status"), str):
            # Most events of a stream have none.
            self.is_pending = whole["status"] in ("queued", "in_progress")
        self.was_background = self.was_background or whole.get("background") is True
        created = whole.get("created_at")
        self.created_at = created if isinstance(created, (int, float)) else self.created_at
        if told.get("type") == "response.output_item.done":
            self._tool_runs.take_item(told.get("item"), told.get("output_index"))
            self._take_item(told.get("item"), told.get("output_index", len(self._tools)))
        output = whole.get("output")
        self._tool_runs.take_output(output)
        if isinstance(output, list) and output:
            # It lists again what came before.
            self._tools.clear()
            for place, item in enumerate(output):
                self._take_item(item, place)
        self._completion(whole)

    def _take_item(self, item: Any, place: Any) -> None:
        if not isinstance(item, dict) or str(item.get("type")) not in _FOR_THE_APP:
            return
        environment = item.get("environment")
        # A container is the provider's.
        if not (isinstance(environment, dict) and environment.get("type") == "container_reference"):
            self._tools.add(place)

    def _message(self, told: Mapping[str, Any]) -> None:
        """Anthropic's counts are totals so far: what a later event names stands, nothing is added."""
        self.generated += text_bytes(told.get("delta")) + text_bytes(told.get("content"))
        block = told.get("content_block")
        self._tool_runs.take_block(block, told.get("index"))
        for place, part in enumerate([block] if block else told.get("content") or ()):
            if isinstance(part, dict) and part.get("type") == "tool_use":
                self._tools.add(told.get("index", place))
        # The beginning of a stream has its usage in `message`, its end and a whole answer beside.
        begun = told.get("message")
        self.is_final = self.is_final or isinstance(told.get("usage"), dict)
        for part in (begun if isinstance(begun, dict) else {}, told):
            self._name(part.get("id"), part.get("model"), part.get("service_tier"))
            self._overwrite(part.get("usage"))

    def _generated(self, told: Mapping[str, Any]) -> None:
        self._name(told.get("responseId"), told.get("modelVersion"), None)
        for candidate in told.get("candidates") or ():
            self._tool_runs.take_candidate(candidate)
            content = candidate.get("content") or {}
            self.generated += text_bytes(content)
            for part in content.get("parts") or ():
                call = part.get("functionCall") if isinstance(part, dict) else None
                if not isinstance(call, dict):
                    continue
                if not self._goes_on:
                    self._tools.add(len(self._tools))
                # A call whose arguments are streamed is cut into several.
                self._goes_on = call.get("willContinue") is True
        usage = told.get("usageMetadata")
        self.is_final = self.is_final or isinstance(usage, dict)
        self._overwrite(usage)

    def _interaction(self, told: Mapping[str, Any]) -> None:
        self.generated += text_bytes(told.get("delta")) + text_bytes(told.get("outputs"))
        inner = told.get("interaction")
        whole: Mapping[str, Any] = inner if isinstance(inner, dict) else told
        self._name(whole.get("id"), whole.get("model"), whole.get("service_tier"))
        usage = whole.get("usage")
        self.is_final = self.is_final or isinstance(usage, dict)
        self._overwrite(usage)

    def _conversed(self, told: Mapping[str, Any]) -> None:
        """Bedrock's own answer, or an event of its stream."""
        output = told.get("output")
        message = output.get("message") if isinstance(output, dict) else None
        blocks = message.get("content") if isinstance(message, dict) else None
        begun = [told["start"]] if isinstance(told.get("start"), dict) else []
        for place, block in enumerate(begun or blocks or ()):
            call = block.get("toolUse") if isinstance(block, dict) else None
            if isinstance(call, dict) and call.get("type") != "server_tool_use":
                self._tools.add(told.get("contentBlockIndex", place))
        self.generated += text_bytes(told.get("delta")) + text_bytes(blocks)
        tier = told.get("serviceTier")
        self._name(None, None, tier.get("type") if isinstance(tier, dict) else tier)
        if isinstance(told.get("usage"), dict):
            self.usage, self.is_final = told["usage"], True

    def _invoked(self, told: dict[str, Any], model: str) -> None:
        """The answer of a model behind Bedrock, in its own words. Anthropic's says more about caches than what
        Bedrock adds at the end."""
        metrics = told.pop("amazon-bedrock-invocationMetrics", None)
        if str(told.get("type")).startswith(("message", "content_block")):
            self.usage_format = "anthropic.messages"
            self._message(told)
            # Bedrock names its answers itself, and prices go by its names of models.
            self.id = ""
            self.model = self.model if model.startswith("arn:") else ""
        else:
            self.generated += text_bytes(told)
        if isinstance(metrics, dict):
            self.is_final = True
            if not self.usage_format:
                self.usage = metrics

    def _overwrite(self, usage: Any) -> None:
        if isinstance(usage, dict):
            self.usage = {**(self.usage or {}), **{name: value for name, value in usage.items() if value is not None}}

    def _name(self, name: Any, model: Any, service_tier: Any) -> None:
        if isinstance(name, str) and name:
            self.id = name
        if isinstance(model, str) and model:
            self.model = model
        if isinstance(service_tier, str) and service_tier:
            self.service_tier = service_tier


def _says_more(route: Route, before: bytes, after: bytes) -> bool:
    around = before + after
    return _USAGE.search(around) is not None or any(more in around for more in _MORE[route.usage_format])


def text_bytes(value: Any) -> int:
    """Bytes of all texts in `value`, at any depth; names of members are not counted."""
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode("utf-8", "surrogatepass"))
    if isinstance(value, list):
        return sum(map(text_bytes, value))
    if isinstance(value, dict):
        return sum(map(text_bytes, value.values()))
    return 0


def usage_of(seen: Seen, route: Route, request_tokens: int) -> tuple[str, dict[str, Any]]:
    """The provider's counts; where the answer was cut before they came, an estimate by what was seen
    of it: what was generated is charged."""
    if seen.is_final and seen.usage is not None:
        return seen.usage_format or route.usage_format, seen.usage
    begun = seen.usage or {}

    def count(name: str) -> int:
        value = begun.get(name)
        return value if isinstance(value, int) else 0

    if "input_tokens" in begun:
        # Anthropic tells the input at the beginning, exactly.
        read, written = count("cache_read_input_tokens"), count("cache_creation_input_tokens")
        split = begun.get("cache_creation")
        usage = {
            "input_tokens": count("input_tokens") + read + written,
            "cache_read_tokens": read,
            "cache_write_tokens": written,
            "cache_write_1h_tokens": (split or {}).get("ephemeral_1h_input_tokens", 0),
        }
    else:
        usage = {"input_tokens": request_tokens}
    generated = 0 if route.operation == "embeddings" else tokens_in(seen.generated)
    usage["output_tokens"] = max(count("output_tokens"), generated)
    return "estimated", usage
