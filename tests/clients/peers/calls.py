"""Calls a sidecar by the clients of Margint and MarginDash, as their READMEs do.

    python calls.py SIDECAR

Does a step for each line of standard input, and prints a line of JSON for each. What a step tracks is
told by the number of its calls; what is left over is sent at the end.
"""

import asyncio
import json
import sys
from types import SimpleNamespace

from ai_cost_calc import AiCostCalc
from margint import BudgetExceededError, Margint

sidecar = sys.argv[1]
margint = Margint(
    api_key="any",
    endpoint=sidecar + "/api/ingest/events",
    budget_endpoint=sidecar + "/api/budgets/check",
    flush_interval_seconds=0.2,
    budget_cache_ttl_seconds=1,
)
errors = []
margindash = AiCostCalc(
    api_key="any",
    base_url=sidecar + "/compat/margindash/api/v1",
    on_error=lambda error: errors.append(error.message),
)


class Completions:
    """Answers as OpenAI's client does."""

    def create(self, **_):
        usage = SimpleNamespace(prompt_tokens=1000, completion_tokens=100)
        return SimpleNamespace(id="x", model="gpt-4o", usage=usage)


openai = SimpleNamespace(chat=SimpleNamespace(completions=Completions()))


def margint_tracks():
    """Twenty calls of 1,000 tokens in and 100 out, half of them by the wrapped client."""
    client = margint.wrap(openai, customer_id="c-1", feature="chat", customer_email="a@example.com")
    for _ in range(10):
        client.chat.completions.create(model="gpt-4o", messages=[])
        margint.track(
            customer_id="c-1",
            provider="openai",
            model="gpt-4o",
            input_tokens=1000,
            output_tokens=100,
            metadata={"run": 7},
        )
    return {"calls": 20}


def margint_flushes():
    try:
        margint.flush()
    except Exception as error:
        return {"error": str(error)}
    return {"queued": len(margint._events)}


def margint_asks():
    seen = {}
    for customer in ["c-1", "c-2", 7]:
        try:
            seen[customer] = margint.guarded_call(customer, lambda: "ran", feature="chat")
        except BudgetExceededError as error:
            breaches = [breach.__dict__ for breach in error.breaches]
            seen[customer] = {"refused": str(error), "breaches": breaches}
    return {"seen": seen}


def margindash_tracks():
    """Ten events of two calls each, and what was earned."""
    for _ in range(10):
        for _ in range(2):
            margindash.add_usage(model="openai/gpt-4o", input_tokens=1000, output_tokens=100)
        margindash.track(customer_id="c-1", event_type="chat", revenue_amount_in_cents=5)
    return {"calls": 20}


def margindash_flushes():
    margindash.flush()
    return {"errors": errors}


def margindash_asks():
    seen = {}
    for customer in ["c-1", "c-2"]:
        try:
            seen[customer] = margindash.guarded_call(
                customer_id=customer, event_type="chat", call=lambda: "ran"
            )
        except RuntimeError as error:
            seen[customer] = str(error)
    ran = margindash.async_guarded_call(customer_id="c-3", call=lambda: "ran")
    seen["c-3"] = asyncio.run(ran)
    return {"seen": seen, "cost": str(margindash.cost("openai/gpt-4o", input_tokens=1000, output_tokens=100))}


for line in sys.stdin:
    print(json.dumps({"step": line.strip(), **globals()[line.strip()]()}), flush=True)
margint.shutdown()
margindash.shutdown()
