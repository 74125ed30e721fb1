"""How calls stand, as `GET /v1/blocklist?view=standings` tells it, and the decision by it: what the
sidecar's guard would say of a call without an estimate. `schemas/decision-vectors.json` proves it.
"""

from __future__ import annotations

from typing import Any, Iterator, Mapping, NamedTuple, Optional
from urllib.parse import quote, unquote

from ._context import DIMENSIONS
from ._decision import instant

#: From mildest to strictest.
_VERDICTS = ("ok", "warn", "downgrade", "block")
_STRICTNESS = {verdict: number for number, verdict in enumerate(_VERDICTS)}
#: As texts of scopes have them, behind the workspace; tags are last.
_ORDER = "customer feature project user agent model provider environment account plan root_session session".split()
_KNOWN = (*DIMENSIONS, "model", "provider")
#: Members of a standing that go into an answer as they are.
_SHOWN = "spent_usd limit_usd spent_tokens limit_tokens spent_calls limit_calls window resets_at message help_url".split()
#: A follower keeps so many entries: what is told beyond is left out.
MOST_ENTRIES = 500_000

Who = Mapping[str, str]
#: Dimensions, and whether the session of a call without a root session is its root session.
_Shape = tuple[tuple[str, ...], bool]


class _Standing(NamedTuple):
    told: Mapping[str, Any]
    scope: str
    #: Milliseconds since 1970.
    expires_at: Optional[float]


class Standings:
    """Filled by one thread, read by many."""

    def __init__(self) -> None:
        self._entries: dict[_Shape, dict[tuple[str, ...], dict[str, _Standing]]] = {}
        self._places: dict[str, tuple[_Shape, tuple[str, ...]]] = {}
        #: By shape and exact dimensions, then by the exact values.
        self._rules: dict[tuple[_Shape, tuple[str, ...]], dict[tuple[str, ...], list[Mapping[str, Any]]]] = {}
        self._page: Mapping[str, Any] = {}
        self._time = 0.0
        self._heard_at = 0.0
        self.left_out = 0

    def take(self, page: Mapping[str, Any], heard_at: float) -> None:
        """An answer that was made at `heard_at` of the caller's clock, in milliseconds."""
        for rule in page.get("rules") or ():
            self._add_rule(rule)
        for entry in page["entries"]:
            self._set(entry["key"], entry["value"])
        self._page, self._time, self._heard_at = page, _millis(page["time"]) or 0.0, heard_at

    @property
    def longest_wait(self) -> float:
        """Seconds for which a follower may hear nothing, at most."""
        return float(self._page.get("stale_after_ms", 10_000)) / 2000

    def decide(self, question: Mapping[str, Any], at: float) -> dict[str, Any]:
        """The answer to a check at `at` of the caller's clock, as `POST /v1/check` gives it."""
        page = self._page
        since = max(at - self._heard_at, 0.0)
        state, age = _state(page, since)
        who = _who(question, page)
        model = who.get("model", "")
        lines, downgrades = [], {}
        strictest = 0
        for standing, scope in self._found(who, self._time + since):
            verdict, is_late = standing["verdict"], False
            if verdict == "downgrade" and standing["downgrade_to"] == model:
                verdict = "warn"
            if state == "stale" and standing["when_stale"] == "block" != verdict:
                verdict, is_late = "block", True
            if verdict == "downgrade":
                downgrades[standing["budget"]] = standing["downgrade_to"]
            if verdict != "ok":
                strictest = max(strictest, _STRICTNESS[verdict])
                lines.append((verdict, standing, scope, is_late))
        is_cold = state == "cold" and page.get("cold_start") == "block"
        verdict = "block" if is_cold else _VERDICTS[strictest]
        lines.sort(key=lambda line: (-_STRICTNESS[line[0]], line[1]["budget"]))
        blocking = [line[1] for line in lines if line[0] == "block"]
        return {
            "decision": "allow" if verdict == "ok" else verdict,
            "budgets": [_line(verdict, standing, scope) for verdict, standing, scope, _ in lines],
            "downgrade_to": downgrades[min(downgrades)] if verdict == "downgrade" else None,
            "warnings": _warnings(is_cold, [line[1]["budget"] for line in lines if line[3]]),
            "retry_after_seconds": None if is_cold else _retry_after(blocking, self._time + since),
            "state": state,
            "state_age_ms": age,
            "complete_to": page.get("complete_to"),
        }

    def _found(self, who: Who, now: float) -> Iterator[tuple[Mapping[str, Any], str]]:
        """What the call counts against, with its scope."""
        told, stopped = set(), []
        # Copies: another thread may add a shape meanwhile.
        for (dimensions, is_root), index in list(self._entries.items()):
            values = _values(who, dimensions, is_root)
            standings = index.get(values) if values is not None else None
            for key, standing in list((standings or {}).items()):
                if standing.expires_at is not None and standing.expires_at <= now:
                    continue
                if key.startswith("finding|"):
                    stopped.append((standing.told, standing.scope))
                    continue
                told.add(standing.told["budget"])
                if _holds(standing.told, who, is_root):
                    yield standing.told, standing.scope
        for ((dimensions, is_root), exact), rules in list(self._rules.items()):
            values = _values(who, dimensions, is_root)
            if values is None:
                continue
            of_exact = tuple(value for dimension, value in zip(dimensions, values) if dimension in exact)
            for rule in rules.get(of_exact, ()):
                if rule["budget"] in told or not _holds(rule, who, is_root):
                    continue
                window = rule["window"]
                if window in ("session", "root_session"):
                    rule = {**rule, "window": f"{window}:{_value(who, window, is_root)}"}
                yield rule, _scope_text(dict(zip(dimensions, values)))
        yield from stopped

    def _set(self, key: str, told: Optional[Mapping[str, Any]]) -> None:
        before = self._places.pop(key, None)
        if before is not None:
            shape, values = before
            at_place = self._entries[shape][values]
            del at_place[key]
            if not at_place:
                del self._entries[shape][values]
                if not self._entries[shape]:
                    del self._entries[shape]
        if told is None:
            return
        if len(self._places) >= MOST_ENTRIES:
            self.left_out += 1
            return
        scope = key.rpartition("|")[2]
        parts = _parts(scope)
        shape, values = (tuple(parts), told["session_is_root"]), tuple(parts.values())
        standing = _Standing(told, scope, _millis(told["expires_at"]))
        self._entries.setdefault(shape, {}).setdefault(values, {})[key] = standing
        self._places[key] = shape, values

    def _add_rule(self, rule: Mapping[str, Any]) -> None:
        scope = rule["scope"]
        dimensions = tuple(scope)
        exact = tuple(dimension for dimension in dimensions if scope[dimension] != "*")
        place = (dimensions, rule["session_is_root"]), exact
        values = tuple(scope[dimension] for dimension in exact)
        self._rules.setdefault(place, {}).setdefault(values, []).append(rule)


def _who(question: Mapping[str, Any], page: Mapping[str, Any]) -> dict[str, str]:
    """The call's dimensions by their names; tags as `tags.team`."""
    who = {name: str(question[name]) for name in _KNOWN if question.get(name) is not None}
    for tag, value in (question.get("tags") or {}).items():
        who[f"tags.{tag}"] = str(value)
    if not who.get("workspace"):
        who["workspace"] = page.get("workspace", "")
    who.update(page.get("imposed") or {})
    return who


def _value(who: Who, dimension: str, is_root: bool) -> str:
    value = who.get(dimension, "")
    if is_root and not value and dimension == "root_session":
        return who.get("session", "")
    return value


def _values(who: Who, dimensions: tuple[str, ...], is_root: bool) -> Optional[tuple[str, ...]]:
    values = tuple(_value(who, dimension, is_root) for dimension in dimensions)
    return values if all(values) else None


def _holds(standing: Mapping[str, Any], who: Who, is_root: bool) -> bool:
    conditions = standing["where"] or {}
    return all(_value(who, dimension, is_root) in allowed for dimension, allowed in conditions.items())


def _state(page: Mapping[str, Any], since: float) -> tuple[str, Optional[int]]:
    age = page.get("state_age_ms")
    age = None if age is None else int(age + since)
    if page.get("state") == "cold":
        return "cold", age
    return ("live" if age is not None and age <= page["stale_after_ms"] else "stale"), age


def _parts(scope: str) -> dict[str, str]:
    """`acme/customer=c-42` by dimensions; `*` for all workspaces names none."""
    workspace, *rest = scope.split("/")
    parts = {} if workspace == "*" else {"workspace": unquote(workspace)}
    for piece in rest:
        name, _, value = piece.partition("=")
        parts[unquote(name)] = unquote(value)
    return parts


def _scope_text(parts: Mapping[str, str]) -> str:
    tags = sorted(name for name in parts if name.startswith("tags."))
    names = [name for name in (*_ORDER, *tags) if name in parts]
    workspace = escaped(parts["workspace"]) if "workspace" in parts else "*"
    return "/".join([workspace, *(f"{escaped(name)}={escaped(parts[name])}" for name in names)])


def escaped(text: str) -> str:
    return quote(text, safe="", errors="replace")


def _millis(time: Optional[str]) -> Optional[float]:
    read = instant(time)
    return None if read is None else read.timestamp() * 1000


def _retry_after(blocking: list[Mapping[str, Any]], now: float) -> Optional[int]:
    resets = [_millis(standing["resets_at"]) for standing in blocking]
    known = [at for at in resets if at is not None]
    if not known or len(known) < len(resets):
        return None
    return -int(-max(max(known) - now, 0.0) // 1000)


def _line(verdict: str, standing: Mapping[str, Any], scope: str) -> dict[str, Any]:
    shown = {name: standing[name] for name in _SHOWN if name in standing}
    return {"budget": standing["budget"], "scope": scope, "verdict": verdict, **shown}


def _warnings(is_cold: bool, late: list[str]) -> list[dict[str, str]]:
    def warning(kind: str, message: str, **about: str) -> dict[str, str]:
        return {"type": kind, "severity": "critical", "message": message, **about}

    cold = ["the sidecar has not caught up yet, and refuses calls until it has (cold_start)"] if is_cold else []
    old = "budget {} refuses calls because what is known of it is old"
    stale = [warning("stale", old.format(budget), budget=budget) for budget in late]
    return [warning("cold", message) for message in cold] + stale
