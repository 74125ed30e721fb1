"""What LiteLLM says of a call: whom it counts against, what it cost. Without its package."""

from __future__ import annotations

import importlib
import json
import sys
from datetime import datetime, timezone
from typing import Any, Callable, Mapping, Optional

from ._context import MOST_TAGS
from ._decision import shown
from ._errors import BudgetExceededError, SessionBlockedError, SpendfuseError
from ._tools import billed_searches, counts_tools
from ._usage import tools_of

SOURCE = "litellm"

#: Kinds of calls that are none of a model's, or whose answers tell no usage.
NOT_METERED = frozenset(
    "mcp_call list_mcp_tools call_mcp_tool pass_through_endpoint allm_passthrough_route llm_passthrough_route "
    "health_check aget_assistants retrieve_batch aretrieve_batch".split()
)
#: Their streams tell usage unasked.
_TELLING = ("anthropic", "gemini", "vertex_ai", "bedrock")
#: Kinds whose streams are asked for their usage by `stream_options`.
_OPERATIONS = {
    "completion": "chat",
    "acompletion": "chat",
    "anthropic_messages": "chat",
    "text_completion": "completion",
    "atext_completion": "completion",
    "responses": "responses",
    "aresponses": "responses",
    "embedding": "embeddings",
    "aembedding": "embeddings",
    "generate_content": "generate_content",
    "agenerate_content": "generate_content",
}


def found_in(request: Mapping[str, Any], key: Any = None) -> dict[str, Any]:
    """Whom a request counts against, by what the proxy knows of its key and by its own members."""
    params = _mapping(request.get("litellm_params"))
    metadata: dict[str, Any] = {}
    for holder in (params, request):
        for name in ("litellm_metadata", "metadata"):
            metadata.update(_mapping(holder.get(name)))

    def known(name: str) -> Any:
        return getattr(key, name, None) or metadata.get(f"user_api_key_{name}")

    tags: dict[str, str] = {}
    team = known("team_alias") or known("team_id")
    if team:
        tags["team"] = str(team)
    tags.update({str(name): str(value) for name, value in _mapping(metadata.get("spend_logs_metadata")).items()})
    named = metadata.get("tags")
    for tag in named if isinstance(named, (list, tuple)) else ():
        name, mark, value = str(tag).replace("=", ":", 1).partition(":")
        tags[name] = value if mark else "true"
    found = {
        "customer": known("end_user_id") or request.get("user") or params.get("user"),
        "user": known("user_id"),
        "session": request.get("litellm_session_id") or metadata.get("session_id"),
    }
    told: dict[str, Any] = {name: str(value) for name, value in found.items() if value}
    if tags:
        told["tags"] = dict(list(tags.items())[:MOST_TAGS])
    return told


def event_of(kwargs: Mapping[str, Any], answer: Any = None) -> Optional[dict[str, Any]]:
    """The event of a call that was answered by `answer`; `None` where nobody is charged for it.

    Its id is LiteLLM's for the call and that of the answer: attempts that were answered are different
    ones, and some servers count their answers from one.
    """
    payload = _mapping(kwargs.get("standard_logging_object"))
    kind = str(payload.get("call_type") or kwargs.get("call_type") or "")
    if not payload or payload.get("cache_hit") is True or kind in NOT_METERED or kind.startswith("/"):
        return None
    call_id = str(kwargs.get("litellm_call_id") or payload.get("litellm_call_id") or "")
    answer_id = str(payload.get("id") or "")
    provider = payload.get("custom_llm_provider")
    usage = _mapping(_mapping(payload.get("metadata")).get("usage_object"))
    usage = json.loads(json.dumps({name: value for name, value in usage.items() if value is not None}, default=str))
    usage_format = "openai.chat"
    counts = (int(payload.get("prompt_tokens") or 0), int(payload.get("completion_tokens") or 0))
    if not usage:
        usage = {"prompt_tokens": counts[0], "completion_tokens": counts[1]}
    model = str(payload.get("model") or kwargs.get("model") or "").removeprefix(f"{provider}/")
    if not model:
        # Files, lists, an answer that is asked for again.
        return None
    # Details of the prompt no tokenizer knows: xAI and Mistral tell them unasked.
    details = _mapping(usage.get("prompt_tokens_details")).values()
    is_detailed = any(isinstance(count, (int, float)) and count > 0 for count in details)
    units = _tools_in(usage, answer, model)
    optional = _mapping(kwargs.get("optional_params"))
    if payload.get("stream") and provider not in _TELLING and kind.endswith("completion") and not is_detailed:
        if not _mapping(optional.get("stream_options")).get("include_usage"):
            usage_format, usage = "estimated", {"input_tokens": counts[0], "output_tokens": counts[1]}
    event: dict[str, Any] = {
        "id": answer_id if answer_id == call_id else f"{call_id}-{answer_id}".strip("-"),
        "source": SOURCE,
        "model": model,
        "operation": _OPERATIONS.get(kind, kind or "chat"),
        "usage_format": usage_format,
        "usage": usage,
        "status": "ok",
    }
    if units:
        event["units"] = units
    began, ended = payload.get("startTime"), payload.get("endTime")
    if isinstance(ended, (int, float)) and ended > 0:
        event["time"] = datetime.fromtimestamp(ended, timezone.utc).isoformat(timespec="milliseconds")
        if isinstance(began, (int, float)):
            event["latency_ms"] = max(0, int((ended - began) * 1000))
    cost = payload.get("response_cost")
    told = {
        "provider": provider,
        "request_model": payload.get("model_group") or kwargs.get("model"),
        "call_id": call_id,
        "response_id": answer_id,
        "reported_cost_usd": f"{cost:.9f}" if isinstance(cost, (int, float)) and cost > 0 else None,
    }
    event.update({name: str(value) for name, value in told.items() if value})
    return event


def _tools_in(usage: dict[str, Any], answer: Any, model: str) -> dict[str, str]:
    """What is billed by count. LiteLLM counts searches among the details of the prompt, where nobody reads
    them: they are taken out, and stay where the usage object has its provider's own count, too."""
    units = tools_of(getattr(answer, "response", None) or answer).units(model, usage)
    details = usage.get("prompt_tokens_details")
    searches = details.pop("web_search_requests", None) if isinstance(details, dict) else None
    if isinstance(searches, int) and searches > 0 and not counts_tools(usage):
        units.setdefault("web_search_calls", str(billed_searches(model, searches)))
    return units


def split(model: str) -> tuple[str, str]:
    """Provider (empty where it is not said) and model of LiteLLM's `provider/model`."""
    provider, mark, name = model.partition("/")
    return (provider, name) if mark else ("", model)


def is_asked_for_usage(model: str, kwargs: Mapping[str, Any]) -> bool:
    """Whether nothing need be added to a request for its stream to tell its usage."""
    if not kwargs.get("stream") or "messages" not in kwargs:
        return True
    if _mapping(kwargs.get("stream_options")).get("include_usage") is not None:
        return True
    litellm: Any = importlib.import_module("litellm")
    try:
        provider = kwargs.get("custom_llm_provider") or litellm.get_llm_provider(model, api_base=kwargs.get("api_base"))[1]
        supported = litellm.get_supported_openai_params(split(model)[1], provider)
    except Exception:  # noqa: BLE001  a model that LiteLLM does not know goes out as it is
        return True
    return provider in _TELLING or "stream_options" not in (supported or ())


def resolved(name: str) -> tuple[str, Optional[str], Callable[[str], bool]]:
    """The model and provider behind a name of the proxy's model list, and what else is in that list."""
    proxy: Any = sys.modules.get("litellm.proxy.proxy_server")
    router: Any = getattr(proxy, "llm_router", None)
    try:
        deployments = router.get_model_list(model_name=name) or []
        params = deployments[0]["litellm_params"]
        names = set(router.get_model_names())
        return str(params["model"]), params.get("custom_llm_provider"), names.__contains__
    except Exception:  # noqa: BLE001  a name that is not in it, or a list of another form
        return name, None, lambda _: False


def http_error(error: SpendfuseError) -> Exception:
    """What the proxy's clients get: the budget and its figures, and that trying again is in vain."""
    detail: dict[str, Any] = {"code": "state_unknown", "type": "insufficient_quota", "message": error.message}
    headers = {"x-should-retry": "false"}
    status = 503
    if isinstance(error, BudgetExceededError):
        status = 429
        detail.update(
            code="budget_exceeded",
            budget=error.budget,
            scope=error.scope,
            spent=shown(error.spent, error.unit),
            limit=shown(error.limit, error.unit),
            resets_at=error.resets_at and error.resets_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            help_url=error.help_url,
        )
        if error.retry_after is not None:
            headers["retry-after"] = str(error.retry_after)
    elif isinstance(error, SessionBlockedError):
        status = 429
        detail.update(code="session_blocked", budget=error.rule, scope=error.scope)
    fastapi: Any = importlib.import_module("fastapi")
    raised: Exception = fastapi.HTTPException(status, detail={"error": detail}, headers=headers)
    return raised


def _mapping(value: Any) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    dump = getattr(value, "model_dump", None)
    return dump() if callable(dump) else {}
