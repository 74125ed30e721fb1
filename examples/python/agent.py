"""An agent with a tool and a sub-agent: one run has one budget, whoever of them spends it.

Its model wants its tool again and again. Without the budget it would never end.

Run:    python examples/python/agent.py
Prints:
    planner asks researcher; so far $0.00371
    planner asks researcher; so far $0.00742
    planner asks researcher; so far $0.01113
    stopped: session s-… has reached its budget ($0.01113 of $0.01 spent)
    the run cost $0.01113: budget_exceeded
"""

import spendfuse
from openai import OpenAI

client = spendfuse.wrap(OpenAI(), feature="agent")
TOOLS = [{"type": "function", "function": {"name": "research", "parameters": {"type": "object"}}}]


def researcher(question: str) -> str:
    """The sub-agent: cheaper, in the same run, and seen by its own name in every report."""
    with spendfuse.context(agent="researcher"):
        answer = client.chat.completions.create(
            model="gpt-4o-mini", messages=[{"role": "user", "content": question}]
        )
    return answer.choices[0].message.content


def planner(run: spendfuse.Session, task: str) -> str:
    messages: list = [{"role": "user", "content": task}]
    while True:
        message = client.chat.completions.create(model="gpt-4o", messages=messages, tools=TOOLS).choices[0].message
        if not message.tool_calls:
            return message.content
        messages.append(message.model_dump(exclude_none=True))
        for call in message.tool_calls:
            found = researcher(call.function.arguments)
            messages.append({"role": "tool", "tool_call_id": call.id, "content": found})
        print(f"planner asks researcher; so far ${run.step().total_cost}")


with spendfuse.session(budget="0.01", customer="c-agent", agent="planner") as run:
    try:
        print(planner(run, "Write a report"))
    except spendfuse.BudgetExceededError as error:
        print("stopped:", error)
    end = run.end()
    print(f"the run cost ${end.total_cost}: {', '.join(warning.type for warning in end.warnings)}")
