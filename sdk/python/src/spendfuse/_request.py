"""What a call's body says, and the edits that are made in it. The body itself is never written anew:
order, large numbers, unknown members and signatures survive."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any, Optional

_DECODER = json.JSONDecoder()
_SPACE = " \t\r\n"


@dataclass
class Body:
    """The body of a call: a JSON object, read."""

    text: str
    members: dict[str, Any] = field(default_factory=dict)
    #: Where the value of each member stands.
    places: dict[str, tuple[int, int]] = field(default_factory=dict)
    #: Behind the first brace.
    start: int = 0

    @classmethod
    def read(cls, content: bytes) -> Optional[Body]:
        """`None` where it is no JSON object, or names a member twice, which could be read in two ways."""
        try:
            return cls._read(content.decode())
        except (ValueError, IndexError):
            return None

    @classmethod
    def _read(cls, text: str) -> Optional[Body]:
        at = _skip(text, 0)
        if text[at] != "{":
            return None
        body = cls(text, start=at + 1)
        at = _skip(text, at + 1)
        while text[at] != "}":
            if text[at] != '"':
                return None
            name, at = scanstring(text, at + 1)
            at = _skip(text, at)
            if text[at] != ":" or name in body.members:
                return None
            start = _skip(text, at + 1)
            body.members[name], at = _DECODER.raw_decode(text, start)
            body.places[name] = (start, at)
            at = _skip(text, at)
            if text[at] == ",":
                at = _skip(text, at + 1)
            elif text[at] != "}":
                return None
        return body

    @property
    def model(self) -> Optional[str]:
        model = self.members.get("model")
        return model if isinstance(model, str) and model else None

    @property
    def asked_model(self) -> str:
        """The model, or the agent that is asked in its place; empty where neither is named."""
        agent = self.members.get("agent")
        return self.model or (agent if isinstance(agent, str) else "")

    @property
    def streams(self) -> bool:
        return self.members.get("stream") is True

    @property
    def max_output_tokens(self) -> Optional[int]:
        configs = [self.members.get(name) for name in ("generationConfig", "inferenceConfig")]
        config = next((config for config in configs if isinstance(config, dict)), {})
        told = [self.members.get(name) for name in ("max_completion_tokens", "max_output_tokens", "max_tokens")]
        told += [config.get("maxOutputTokens"), config.get("maxTokens")]
        return next((count for count in told if isinstance(count, int) and not isinstance(count, bool)), None)

    def edits(self, model: Optional[str], asks_usage: bool) -> list[tuple[int, int, str]]:
        """Another model, and the question for a stream's usage; what stands there and what is put in
        its place."""
        edits = []
        if model is not None and "model" in self.places:
            edits.append((*self.places["model"], json.dumps(model)))
        if asks_usage:
            edit = self._usage_edit()
            if edit is not None:
                edits.append(edit)
        return edits

    @property
    def can_ask_usage(self) -> bool:
        """Whether the caller has not asked for a stream's usage, and has written what is understood."""
        return self.streams and self._usage_edit() is not None

    def _usage_edit(self) -> Optional[tuple[int, int, str]]:
        if "stream_options" not in self.members:
            return self.start, self.start, '"stream_options":{"include_usage":true},'
        start, end = self.places["stream_options"]
        options = self.members["stream_options"]
        if options is None:
            return start, end, '{"include_usage":true}'
        if not isinstance(options, dict):
            return None
        if "include_usage" not in options:
            comma = "," if options else ""
            return start + 1, start + 1, f'"include_usage":true{comma}'
        if options["include_usage"] is not False:
            return None
        inner = Body.read(self.text[start:end].encode())
        if inner is None:
            return None
        begin, stop = inner.places["include_usage"]
        return start + begin, start + stop, "true"

    def edited(self, edits: list[tuple[int, int, str]]) -> bytes:
        text, done = "", 0
        for start, end, put in sorted(edits):
            text += self.text[done:start] + put
            done = end
        return (text + self.text[done:]).encode()


def _skip(text: str, at: int) -> int:
    while text[at] in _SPACE:
        at += 1
    return at
