"""Tools that a provider runs while it answers and bills by count, where its usage object does not count
them: they are listed in the answer itself.

The same rules as the proxy's: `crates/proxy/src/tools.rs`.
"""

from __future__ import annotations

import re
from typing import Any, Mapping, Optional

#: Items of OpenAI's responses, and the units that they are billed as.
_ITEMS = {
    "web_search_call": "web_search_calls",
    "file_search_call": "file_search_calls",
    "code_interpreter_call": "code_interpreter_calls",
}
#: Members of usage objects that count tools themselves: Anthropic's and OpenRouter's, xAI's, Perplexity's,
#: Google's.
_COUNTS = (
    "server_tool_use", "server_side_tool_usage_details", "num_search_queries", "groundingToolCount",
    "grounding_tool_count",
)
_GEMINI = re.compile(r"gemini-(\d+)")
#: From this generation on Gemini's searches are billed by the query; before, once for an answer
#: (https://ai.google.dev/gemini-api/docs/google-search).
_BY_QUERY = 3


class ToolRuns:
    """What was run in an answer so far, each run once, however often the answer lists it."""

    def __init__(self) -> None:
        #: By unit: the items' places, and the containers of code interpreters.
        self._items: dict[str, set[str]] = {}
        self._queries: set[str] = set()

    def take_output(self, output: Any) -> None:
        """The output of OpenAI's responses. At the end of a stream it lists again what came before, by
        whatever ids; only of a stream that is cut those pieces are all there is."""
        if not isinstance(output, (list, tuple)) or not output:
            return
        self._items.clear()
        for place, item in enumerate(output):
            self.take_item(item, place)

    def take_item(self, item: Any, place: Any) -> None:
        """An item of an output, done."""
        unit = _ITEMS.get(str(_member(item, "type")))
        if unit is None:
            return
        action = _member(_member(item, "action"), "type")
        if unit == "web_search_calls" and action not in (None, "", "search"):
            # To open a page that was found, or to look for a word in it, is not billed.
            return
        # A container is billed once, however often code runs in it; no other item names one.
        run = _member(item, "container_id") or place
        self._items.setdefault(unit, set()).add(str(run))

    def take_block(self, block: Any, place: Any) -> None:
        """A block that begins in a stream of Anthropic's, whose usage counts tools at its end only."""
        if (_member(block, "type"), _member(block, "name")) == ("server_tool_use", "web_search"):
            self._items.setdefault("web_search_calls", set()).add(str(place))

    def take_candidate(self, candidate: Any) -> None:
        """A candidate of Gemini's. Queries are billed that differ and are not empty."""
        grounding = _member(candidate, "groundingMetadata", "grounding_metadata")
        queries = _member(grounding, "webSearchQueries", "web_search_queries")
        if isinstance(queries, (list, tuple)):
            self._queries.update(query for query in queries if isinstance(query, str) and query.strip())

    def units(self, model: str, usage: Optional[Mapping[str, Any]]) -> dict[str, str]:
        """The units of an event; none where `usage` counts tools itself."""
        if counts_tools(usage):
            return {}
        counts = {unit: len(items) for unit, items in self._items.items()}
        if self._queries:
            counts["web_search_calls"] = billed_searches(model, len(self._queries))
        return {unit: str(count) for unit, count in counts.items()}


def counts_tools(usage: Optional[Mapping[str, Any]]) -> bool:
    """Whether a usage object counts tools itself."""
    return usage is not None and any(usage.get(name) is not None for name in _COUNTS)


def billed_searches(model: str, queries: int) -> int:
    """Of an answer that took so many queries; what has no number in its name is the latest."""
    generation = _GEMINI.search(model)
    return queries if generation is None or int(generation[1]) >= _BY_QUERY else min(queries, 1)


def _member(value: Any, *names: str) -> Any:
    """Of JSON, or of an SDK's object; `None` where there is none."""
    for name in names:
        found = value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
        if found is not None:
            return found
    return None
