"""Why spendfuse and another calculator differ about a call: each difference in a named class."""

import collections

# Name, who is right and why. In this order; the first whose test holds is the class.
EITHER = [
    ("one region of Bedrock", "spendfuse",
     "a name without a geography is called in one region, a tenth above the world; the file has the world's price for it",
     lambda row: "prices of the region" in row["why"] and above(row)),
    ("answers after thoughts", "spendfuse",
     "Alibaba's thinking mode has one price for thoughts and answer; the peer charges the answer as if nobody had thought",
     lambda row: "from reasoning" in row["why"] and above(row)),
]
LITELLM = [
    *EITHER,
    ("zero", "spendfuse",
     "LiteLLM's file has no price or only zeros, and its calculator says 0; spendfuse charges a ceiling or a "
     "price of the same name, flagged `unpriced` or `ambiguous_price`",
     lambda row: row["peer"] == 0 and row["flags"]),
    ("known to another source", "spendfuse",
     "LiteLLM's file lacks the price, the rate or the threshold; genai-prices has it and agrees on the rest. "
     "With LiteLLM's file alone the figures are equal",
     lambda row: row["equal_with_own_file"]),
    ("fee of a request", "spendfuse",
     "a fee for each request, which LiteLLM's calculator leaves out of the sum",
     lambda row: ", requests " in row["why"]),
    ("router", "spendfuse",
     "the file has only what a router takes for itself, and nobody knows from the name which model answered; "
     "spendfuse charges a ceiling, flagged",
     lambda row: "router" in row["model"] and row["flags"]),
    ("search in each call", "spendfuse",
     "a search is part of each call to such a model and has a price in the file, which LiteLLM's calculator leaves out",
     lambda row: "web_search_calls" in row["why"] and above(row)),
    ("answers that are images", "spendfuse",
     "the model answers with images, which have a rate in the file; LiteLLM takes output without details for text",
     lambda row: "image_output" in row["why"] and above(row)),
    ("cheaper hours", "depends on the hour",
     "LiteLLM takes the hour of the calculation, spendfuse that of the call",
     lambda row: "off-peak" in row["why"]),
    ("one-hour cache of Claude", "spendfuse",
     "no rate in the file; Anthropic's published rule is twice the input rate, LiteLLM charges the five-minute rate "
     "or nothing",
     lambda row: row["usage"] == "one-hour cache write" and "claude" in row["why"] and above(row)),
    ("cached tokens at Fireworks", "LiteLLM, where the model has such a discount",
     "no rate in the file; LiteLLM halves the input rate by a rule of its own, spendfuse charges the input rate: "
     "too much rather than too little",
     lambda row: "fireworks" in row["provider"] and "from input" in row["why"] and above(row)),
    ("cached tokens at Alibaba", "spendfuse",
     "no rate in the file; Alibaba's published rule is a fifth of the input rate for reads and 1.25 times for writes, "
     "LiteLLM charges input or nothing",
     lambda row: row["provider"] == "dashscope" and "from input" in row["why"]),
    ("cached tokens without a rate", "spendfuse",
     "no rate in the file; LiteLLM charges nothing for them, spendfuse what input costs",
     lambda row: "cache_" in row["why"] and "from " in row["why"] and above(row)),
    ("long context", "spendfuse",
     "the file has rates above a threshold, which LiteLLM's calculator does not apply at this provider",
     lambda row: "context above" in row["why"] and ">" not in row["why"] and row["usage"].startswith("above") and above(row)),
    ("one side without a rate", "spendfuse",
     "the file prices one side or one tier only; LiteLLM charges nothing for the other, spendfuse the rate that is there",
     lambda row: "(from " in row["why"] and above(row)),
    ("priority at Fireworks", "spendfuse",
     "the file has priority rates, which LiteLLM's calculator does not apply at this provider",
     lambda row: row["tier"] == "priority" and above(row)),
    ("size classes of Together", "spendfuse",
     "the names of the file's size classes are read by LiteLLM as models of that size, and cost another class",
     lambda row: row["model"].startswith("together-ai-") and above(row)),
    ("reserved capacity", "nobody calls a model so",
     "names of capacity that is sold by the month, where LiteLLM says 0; spendfuse charges the model in the name",
     lambda row: "commitment" in row["model"]),
    ("zero, and another source has a price", "spendfuse",
     "all prices are 0 in LiteLLM's file, and genai-prices has the model",
     lambda row: row["peer"] == 0),
    ("cache writes at gateways", "spendfuse",
     "the file has a rate for cache writes, and LiteLLM's calculator charges input for them at this provider",
     lambda row: row["usage"].endswith("cache write") and above(row)),
    ("sizes in names", "nobody knows",
     "LiteLLM's file has only zeros, and its calculator goes by the size in the name; spendfuse charges the dearest "
     "of the name, flagged",
     lambda row: row["provider"] == "together_ai" and row["flags"]),
    ("one name, two entries", "both",
     "the provider's prefix stands twice in one entry's name and once in another's; spendfuse charges the dearer rates",
     lambda row: row["model"] in ("perplexity/sonar", "perplexity/perplexity/sonar")),
]
GENAI = [
    *EITHER,
    ("another figure", "as the sources say",
     "with genai-prices' own file spendfuse says what genai-prices says; LiteLLM's file, which comes first, has other "
     "prices, or the name means another entry there",
     lambda row: row["equal_with_own_file"]),
    ("digits", "LiteLLM's file",
     "prices that were converted from another currency and rounded in different places, less than 0.1 % apart",
     lambda row: abs(row["cost"] - row["peer"]) <= 1e-3 * row["peer"]),
    ("flagged", "nobody knows",
     "spendfuse has no price of its own for the name and says so (`unpriced`, `ambiguous_price`)",
     lambda row: bool(row["flags"])),
    ("batch", "spendfuse",
     "genai-prices has no batch price for the model and charges the usual one; LiteLLM's file has it, or the "
     "provider halves all its prices for batches",
     lambda row: row["tier"] == "batch" and not above(row)),
    ("tier", "spendfuse",
     "genai-prices has no price of this tier, or another one; LiteLLM's file has it",
     lambda row: row["tier"] in ("flex", "priority", "batch")),
    ("one-hour cache of Claude", "spendfuse",
     "genai-prices has no rate for it and charges the five-minute rate or input",
     lambda row: row["usage"] == "one-hour cache write" and "claude" in row["why"] and above(row)),
    ("by the hour", "as the hour is",
     "prices by the hour, which LiteLLM's file and genai-prices describe differently",
     lambda row: "off-peak" in row["why"] or row["provider"] == "deepseek"),
    ("long context", "as the sources say",
     "one of the two sources has higher rates above a threshold; spendfuse takes the first source's",
     lambda row: row["usage"].startswith("above")),
    ("class without a rate", "as the sources say",
     "a rate that one of the two sources lacks; genai-prices charges such tokens as input or output",
     lambda row: row["usage"] in ("cache read", "cache write", "one-hour cache write", "audio", "reasoning")),
    ("one side without a rate", "spendfuse",
     "neither source prices output of such a model (embeddings, rerankers); genai-prices charges nothing for it",
     lambda row: "from input" in row["why"] and above(row)),
    ("two names of a provider", "as the sources say",
     "zai and zhipuai are two providers there and one here, with the dearer rates of both",
     lambda row: row["provider"] in ("zai", "zhipuai")),
    ("another figure, no output", "as the sources say",
     "LiteLLM's file has another price and says that output is free; genai-prices has no price for output",
     lambda row: "output 0.00/M" in row["why"]),
    ("search in each call", "spendfuse",
     "a search is part of each call to such a model and has a price in LiteLLM's file, genai-prices has none",
     lambda row: "web_search_calls" in row["why"] and above(row)),
    ("answers that are images", "spendfuse",
     "the model answers with images, which have a rate in LiteLLM's file; genai-prices takes output for text",
     lambda row: "image_output" in row["why"] and above(row)),
    ("another entry", "as the sources say",
     "genai-prices finds names by parts of them and takes this one for another entry (a region's, another provider's)",
     lambda row: row["entry"] and row["entry"] != f"{row['provider']}/{(row['charged_as'] or {}).get('model')}"),
    ("another figure, other name", "as the sources say",
     "the same entry in both, found by a part of the name, with another price",
     lambda row: row["usage"] in ("plain", "one token") and row["source"] == "litellm"),
]


def above(row):
    return row["cost"] > row["peer"]


def classified(rows, peer, classes, differs):
    """Counts by class, and the rows that are in none."""
    counts = {name: [0, 0, None] for name, *_ in classes}
    unnamed = []
    for row in rows:
        figure = row["peers"][peer]
        if figure is None or row["cost"] is None or not differs(row["cost"], figure):
            continue
        own = row["own"].get(peer)
        seen = {**row, "peer": figure, "equal_with_own_file": own is not None and not differs(own, figure)}
        found = next((name for name, _, _, test in classes if test(seen)), None)
        if found is None:
            unnamed.append(seen)
            continue
        place = 0 if above(seen) else 1
        counts[found][place] += 1
        counts[found][2] = counts[found][2] or seen
    return counts, unnamed


def below_all(row, differs):
    """Whether spendfuse is below every peer that has a figure, without a flag; both must have one."""
    figures = list(row["peers"].values())
    return (
        row["cost"] is not None and not row["flags"] and None not in figures
        and all(row["cost"] < figure and differs(row["cost"], figure) for figure in figures)
    )


HEAD = """# Where sources and calculators disagree

Written by `make prices ARGS="--report docs/price-disagreements.md"`, from the PyPI packages {versions}. The
calls are every model that LiteLLM's file or genai-prices' data has for chat, with nine shapes of usage
each, and with batch, flex and priority where the source has them, priced with a book of LiteLLM's file
first and genai-prices second. LiteLLM's `completion_cost` is asked about its own models, for batches its
`batch_cost_calculator`, genai-prices about all. Both peers' refusals are no comparison.
[prices.md](prices.md) says by which rules sources are combined.

## The sources themselves

Models under one provider and name, and their rates, by `spendfuse prices diff`.

| sources | models in both | only in the first | only in the second | rates equal | differ | most often |
|---|---|---|---|---|---|---|"""


def report(rows, differs, sources, versions):
    lines = HEAD.format(versions=versions).split("\n")
    for one in sources:
        models = one["models"]
        often = ", ".join(f"`{line}` {count:,}" for line, count in one["lines"])
        lines.append(f"| {' and '.join(one['pair'])} | {models['in_both']:,} | {models['only_in_from']:,} | "
                     f"{models['only_in_to']:,} | {one['equal']:,} | {one['differ']:,} | {often} |")
    lines.append("")
    is_good = True
    for peer, title, classes in (("litellm", "LiteLLM's `completion_cost`", LITELLM),
                                 ("genai-prices", "genai-prices", GENAI)):
        compared = [row for row in rows if row["peers"][peer] is not None and row["cost"] is not None]
        equal = sum(not differs(row["cost"], row["peers"][peer]) for row in compared)
        counts, unnamed = classified(rows, peer, classes, differs)
        lines += [
            f"## {title}", "",
            f"{len(compared):,} calls compared, {equal:,} equal, {len(compared) - equal:,} differ; "
            f"{len(unnamed):,} of those in no class.", "",
            "| class | spendfuse above | below | right is | why |", "|---|---|---|---|---|",
        ]
        for name, right, why, _ in classes:
            more, less, example = counts[name]
            if more + less:
                lines.append(f"| {name} | {more:,} | {less:,} | {right} | {why}. For example {shown(example)} |")
        lines.append("")
        for row in unnamed[:20]:
            lines.append(f"- in no class: {shown(row)}: {row['why']}")
        is_good = is_good and not unnamed
    below = [row for row in rows if below_all(row, differs)]
    both = sum(None not in row["peers"].values() for row in rows)
    lines += [f"Of {both:,} calls that both peers price, spendfuse is below both without a flag in {len(below):,}.", ""]
    lines += [f"- below both: {row['provider']} {row['model']} {row['usage']} {row['tier']}: {row['cost']:.9f}, "
              f"peers {row['peers']}: {row['why']}" for row in below[:40]]
    return "\n".join(lines).rstrip() + "\n", is_good and not below


def shown(row):
    tier = f", {row['tier']}" if row["tier"] else ""
    return (f"`{row['model']}` ({row['provider']}, {row['usage']}{tier}): "
            f"${row['cost']:.9f} and ${row['peer']:.9f}").replace("|", "\\|")
