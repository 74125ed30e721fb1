"""Keyed fingerprints of prompts: all of a prompt that ever leaves the process.

As `docs/formats/usage-event.md` and `crates/domain/src/fingerprint.rs` say, to the byte.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any, Iterable, Mapping, Optional


def prompt_fingerprint(key: bytes, system: str, last_user: str) -> str:
    """16 hex digits that tell equal prompts; nobody can test a guess without `key`."""
    first = system.encode("utf-8", "replace")
    text = b"spendfuse-prompt-v1\n%d\n%s\n%s" % (len(first), first, last_user.encode("utf-8", "replace"))
    return hmac.new(key, text, hashlib.sha256).hexdigest()[:16]


def of_request(key: bytes, request: Mapping[str, Any]) -> Optional[str]:
    """Of a request to OpenAI, Anthropic or Gemini; `None` where it holds no message of a user."""
    system: list[str] = []
    last_user: Optional[str] = None
    for name in ("system", "instructions", "systemInstruction", "system_instruction"):
        system += _texts(request.get(name))
    messages = request.get("messages") or request.get("contents") or request.get("input") or request.get("prompt")
    if isinstance(messages, str):
        last_user = messages
    elif isinstance(messages, list):
        for message in messages:
            if isinstance(message, str):
                last_user = message
                continue
            if not isinstance(message, Mapping):
                continue
            texts = _texts(message.get("content", message.get("parts")))
            # Items of a response that are no messages have no role: calls, results, reasoning.
            usual = "user" if message.get("type", "message") == "message" else None
            role = message.get("role", usual)
            if role in ("system", "developer"):
                system += texts
            # Tool results have the role of a user at Anthropic, but no text part.
            elif role == "user" and texts:
                last_user = "\n".join(texts)
    if last_user is None:
        return None
    return prompt_fingerprint(key, "\n".join(system), last_user)


def _texts(content: Any) -> list[str]:
    """The text parts; images, files and tool results are left out."""
    if isinstance(content, str):
        return [content]
    if isinstance(content, Mapping):
        if "parts" in content:
            return _texts(content["parts"])
        text = content.get("text")
        return [text] if isinstance(text, str) else []
    if isinstance(content, Iterable):
        return [text for part in content for text in _texts(part)]
    return []
