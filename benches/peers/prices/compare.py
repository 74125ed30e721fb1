"""Prices calls with spendfuse, with LiteLLM's completion_cost and with genai-prices, and says where
they differ and why.

    compare.py SPENDFUSE FOLDER [--report FILE] [--cases FILE]

FOLDER gets the peers' price files (files.py), the calls, and what each calculator says. spendfuse
prices with a book that is imported from exactly those files, so that rules are compared, not days.
Ends with 1 where spendfuse is below both peers without a flag, or where a difference is in no class.
"""

import argparse
import collections
import datetime
import json
import os
import pathlib
import subprocess
import sys

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import classes
import files

# LiteLLM knows no other time than now.
AT = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
# Amounts are rounded up to the nano-dollar here, and sums of floats there.
TOLERANCE = 2e-9

# Usage in disjoint classes, by name; the token counts make each class visible in the sum.
USAGES = {
    "plain": {"input": 1200, "output": 380},
    "one token": {"input": 1, "output": 1},
    "cache read": {"input": 1000, "cache_read": 4000, "output": 200},
    "cache write": {"input": 500, "cache_read": 1000, "cache_write": 3000, "output": 100},
    "one-hour cache write": {"input": 500, "cache_write": 1000, "cache_write_1h": 2000, "output": 100},
    "above 128k": {"input": 150_000, "output": 1000},
    "above 200k": {"input": 190_000, "cache_read": 70_000, "output": 1000},
    "reasoning": {"input": 500, "output": 500, "reasoning": 1500},
    "audio": {"input": 300, "audio_input": 700, "output": 50, "audio_output": 350},
}
# Served in a special way: the plain usage, for models that have rates for it.
TIERS = ("batch", "flex", "priority")


def calls(litellm_map, providers):
    """All pairs of a model, as a source names it, and a usage."""
    named = []
    for name, entry in litellm_map.items():
        provider = entry.get("litellm_provider")
        if name == "sample_spec" or not provider:
            continue
        if entry.get("mode") in ("chat", "completion", "responses", None):
            named.append(("litellm", provider, name, entry))
    for provider in providers:
        named += [("genai-prices", provider["id"], model["id"], model) for model in provider["models"]]
    for source, provider, model, entry in named:
        for usage in USAGES:
            yield {"source": source, "provider": provider, "model": model, "usage": usage, "tier": ""}
        text = json.dumps(entry)
        for tier in TIERS:
            if tier in text:
                yield {"source": source, "provider": provider, "model": model, "usage": "plain", "tier": tier}


def event(number, call):
    counts = USAGES[call["usage"]]
    sides = {"input": ("input", "cache_read", "cache_write", "cache_write_1h", "audio_input"),
             "output": ("output", "reasoning", "audio_output")}
    total = {side: sum(counts.get(name, 0) for name in names) for side, names in sides.items()}
    usage = {"input_tokens": total["input"], "output_tokens": total["output"]}
    for name in ("cache_read", "cache_write_1h", "reasoning"):
        if name in counts:
            usage[f"{name}_tokens"] = counts[name]
    writes = counts.get("cache_write", 0) + counts.get("cache_write_1h", 0)
    if writes:
        usage["cache_write_tokens"] = writes
    if "audio_input" in counts:
        usage["audio_input_tokens"] = counts["audio_input"]
        usage["audio_output_tokens"] = counts["audio_output"]
    return {
        "specversion": "1.0", "type": "spendfuse.usage", "source": "compare", "id": str(number),
        "time": AT,
        "data": {"workspace": "w", "provider": call["provider"], "model": call["model"],
                 "service_tier": call["tier"], "usage": usage},
    }


def ours(spendfuse, book, folder, listed):
    path = folder / "calls.ndjson"
    with path.open("w") as out:
        for number, call in enumerate(listed):
            out.write(json.dumps(event(number, call)) + "\n")
    command = [spendfuse, "prices", "explain", str(path), "--json", "--book", str(book)]
    answer = subprocess.run(command, stdout=subprocess.PIPE, check=False, text=True, cwd=folder)
    told = [json.loads(line) for line in answer.stdout.splitlines()]
    if len(told) != len(listed):
        sys.exit(f"spendfuse answered {len(told)} of {len(listed)} calls")
    for one in told:
        yield {
            "cost": float(one["cost_usd"]) if "cost_usd" in one else None,
            "flags": one.get("flags", [one.get("rejected")]),
            "charged_as": one.get("charged_as"),
            "why": one.get("price_detail", one.get("detail")),
        }


def by_litellm(call):
    import litellm

    litellm.suppress_debug_info = True
    from litellm.types.utils import CompletionTokensDetailsWrapper, PromptTokensDetailsWrapper, Usage

    counts = collections.Counter(USAGES[call["usage"]])
    writes = counts["cache_write"] + counts["cache_write_1h"]
    details = {"cached_tokens": counts["cache_read"], "audio_tokens": counts["audio_input"]}
    if writes:
        details["cache_creation_tokens"] = writes
        if counts["cache_write_1h"]:
            from litellm.types.utils import CacheCreationTokenDetails

            details["cache_creation_token_details"] = CacheCreationTokenDetails(
                ephemeral_5m_input_tokens=counts["cache_write"],
                ephemeral_1h_input_tokens=counts["cache_write_1h"],
            )
    prompt = counts["input"] + counts["cache_read"] + writes + counts["audio_input"]
    completion = counts["output"] + counts["reasoning"] + counts["audio_output"]
    more = {"cache_creation_input_tokens": writes, "cache_read_input_tokens": counts["cache_read"]} if writes else {}
    usage = Usage(
        prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion,
        prompt_tokens_details=PromptTokensDetailsWrapper(**details),
        completion_tokens_details=CompletionTokensDetailsWrapper(
            reasoning_tokens=counts["reasoning"], audio_tokens=counts["audio_output"],
        ),
        **more,
    )
    model = call["model"]
    if call["tier"] == "batch":
        from litellm.cost_calculator import batch_cost_calculator

        return sum(batch_cost_calculator(usage, model, call["provider"]))
    response = litellm.ModelResponse(model=model, usage=usage)
    return litellm.completion_cost(
        completion_response=response, model=model, custom_llm_provider=call["provider"],
        service_tier=call["tier"] or None,
    )


def by_genai_prices(call):
    import genai_prices

    counts = collections.Counter(USAGES[call["usage"]])
    writes = counts["cache_write"] + counts["cache_write_1h"]
    named = {
        "input_tokens": counts["input"] + counts["cache_read"] + writes + counts["audio_input"],
        "output_tokens": counts["output"] + counts["reasoning"] + counts["audio_output"],
        "cache_read_tokens": counts["cache_read"], "cache_write_tokens": writes,
        "input_audio_tokens": counts["audio_input"], "output_audio_tokens": counts["audio_output"],
        "output_reasoning_tokens": counts["reasoning"],
    }
    if counts["cache_write_1h"]:
        named["cache_write_1h_tokens"] = counts["cache_write_1h"]
        named["cache_write_5m_tokens"] = counts["cache_write"]
    context = {"batch": {"processing": "batch"}}.get(call["tier"], {"service_tier": call["tier"]})
    model, provider = call["model"], call["provider"]
    if call["source"] == "litellm":
        # It puts the provider in front of most names.
        model = model.removeprefix(f"{provider}/")
        provider = PROVIDER_IDS.get(provider, provider)
    priced = genai_prices.calc_price(
        genai_prices.Usage(**{name: count for name, count in named.items() if count}),
        model_ref=model, provider_id=provider,
        genai_request_timestamp=datetime.datetime.fromisoformat(AT.replace("Z", "+00:00")),
        price_context=context if call["tier"] else None,
    )
    call["entry"] = f"{priced.provider.id}/{priced.model.id}"
    return float(priced.total_price)


# genai-prices' names of providers that LiteLLM names otherwise.
PROVIDER_IDS = {
    "bedrock": "aws", "bedrock_converse": "aws", "gemini": "google", "xai": "x-ai", "together_ai": "together",
    "fireworks_ai": "fireworks", "moonshot": "moonshotai", "vertex_ai-language-models": "google",
    "azure_ai": "azure", "deepseek": "deepseek",
}


def disagreements(spendfuse, books, one, other):
    """What two sources say of the same models, by `prices diff`."""
    command = [spendfuse, "prices", "diff", str(books[one]), str(books[other]), "--json"]
    told = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    kinds = collections.Counter(
        "differ" if rate["old_usd"] and rate["new_usd"] else one if rate["old_usd"] else other
        for rate in told["rates"]
    )
    lines = collections.Counter(
        rate["rate"] for rate in told["rates"] if rate["old_usd"] and rate["new_usd"]
    )
    return {"pair": (one, other), "models": told["models"], "equal": told["equal"],
            "differ": kinds["differ"], "lines": lines.most_common(4)}


def is_of(listed, entry):
    """Whether LiteLLM's entry is of the provider that was charged."""
    return bool(listed) and (listed.get("litellm_provider") or "").startswith(entry.get("provider") or "?")


def said_by(calculator, call):
    """The peer's figure; None where it refuses, which is no difference of prices."""
    try:
        return calculator(call)
    except Exception:
        return None


def differs(one, other):
    return abs(one - other) > max(TOLERANCE, 1e-7 * max(one, other))


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("spendfuse")
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--report", type=pathlib.Path)
    parser.add_argument("--cases", type=pathlib.Path)
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    files.write(folder)
    spendfuse = str(pathlib.Path(arguments.spendfuse).resolve())
    names = {"litellm": ["litellm"], "genai-prices": ["genai-prices"], "both": ["litellm", "genai-prices"]}
    books = {}
    for name, of in names.items():
        books[name] = folder / f"{name}.book"
        sources = [str(folder / f"{source}.json") for source in of]
        subprocess.run([spendfuse, "prices", "import", *sources, "--out", str(books[name]), "--json"],
                       check=True, stdout=subprocess.DEVNULL)
    litellm_map = json.loads((folder / "litellm.json").read_text())
    providers = json.loads((folder / "genai-prices.json").read_text())
    listed = list(calls(litellm_map, providers))
    priced = {name: list(ours(spendfuse, book, folder, listed)) for name, book in books.items()}
    rows = []
    for number, call in enumerate(listed):
        call["entry"] = ""  # what genai-prices takes the name for
        own = priced["both"][number]
        peers = {"genai-prices": said_by(by_genai_prices, call)}
        # LiteLLM takes milliseconds for a call, so it is asked about its own models, and about those of
        # which genai-prices says something else, under the name of the entry that was charged.
        asked = call
        if call["source"] != "litellm":
            figure = peers["genai-prices"]
            is_other = figure is not None and own["cost"] is not None and differs(own["cost"], figure)
            entry = own["charged_as"] or {}
            names = (f"{entry.get('provider')}/{entry.get('model')}", entry.get("model"))
            known = next((name for name in names if is_of(litellm_map.get(name), entry)), None)
            # A ceiling's entry is another model.
            asked = known and is_other and "unpriced" not in own["flags"] and {
                **call, "model": known, "provider": litellm_map[known]["litellm_provider"],
            }
        peers["litellm"] = said_by(by_litellm, asked) if asked else None
        alone = {name: priced[name][number]["cost"] for name in ("litellm", "genai-prices")}
        rows.append({**call, **own, "peers": peers, "own": alone})
    if arguments.cases:
        with arguments.cases.open("w") as out:
            for row in rows:
                out.write(json.dumps(row) + "\n")
    books["models.dev"] = folder / "models.dev.json"
    sources = [disagreements(spendfuse, books, *pair) for pair in (
        ("litellm", "genai-prices"), ("litellm", "models.dev"), ("genai-prices", "models.dev"))]
    report, is_good = classes.report(rows, differs, sources, files.versions())
    print(report)
    if arguments.report:
        arguments.report.write_text(report)
    sys.exit(0 if is_good else 1)


if __name__ == "__main__":
    main()
