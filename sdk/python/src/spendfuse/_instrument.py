"""`instrument()`: every client that is made from now on is wrapped. The one place that changes other
packages, and only where it is called."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._client import Spendfuse

_CLASSES = (
    ("openai", ("OpenAI", "AsyncOpenAI")),
    (
        "anthropic",
        (
            "Anthropic",
            "AsyncAnthropic",
            "AnthropicVertex",
            "AsyncAnthropicVertex",
        ),
    ),
    ("google.genai", ("Client",)),
)

_originals: list[tuple[type, Any]] = []


def instrument(sf: Spendfuse, **options: Any) -> list[str]:
    """Takes what `wrap` takes; the names of the packages whose clients are wrapped from now on."""
    uninstrument()
    found = []
    for package, names in _CLASSES:
        if not _is_installed(package):
            continue
        module = importlib.import_module(package)
        found.append(package)
        for name in names:
            kind = getattr(module, name, None)
            if isinstance(kind, type):
                _patch(kind, sf, options)
    return found


def uninstrument() -> None:
    """New clients are as their packages make them; those that were wrapped stay so."""
    while _originals:
        kind, original = _originals.pop()
        setattr(kind, "__init__", original)


def _patch(kind: type, sf: Spendfuse, options: dict[str, Any]) -> None:
    original = kind.__init__  # type: ignore[misc]

    @functools.wraps(original)
    def made(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        sf.wrap(self, **options)

    setattr(kind, "__init__", made)
    _originals.append((kind, original))


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False
