"""A chat app: answers stream, every customer has a budget, and whoever has used it up is told so.

Run:    yes "Say hello" | head -40 | python examples/python/chat.py
Prints:
    Hello
    Hello
    …
    Your budget of $0.05 is used up ($0.0… spent). It begins anew at …:00 UTC.
"""

import sys
from typing import Iterator

import spendfuse
from openai import OpenAI

client = spendfuse.wrap(OpenAI(), feature="chat")
customer = "c-chat"  # whoever is logged in


def answer(history: list) -> Iterator[str]:
    stream = client.chat.completions.create(model="gpt-4o", messages=history, stream=True)
    for piece in stream:
        if piece.choices:
            yield piece.choices[0].delta.content or ""


history: list = []
with spendfuse.context(customer=customer, session="chat-1"):
    for question in sys.stdin:
        history.append({"role": "user", "content": question.strip()})
        said = ""
        try:
            for text in answer(history):
                said += text
                print(text, end="", flush=True)
        except spendfuse.BudgetExceededError as error:
            # Raised before anything was sent.
            print(f"Your budget of ${error.limit} is used up (${error.spent} spent).", end=" ")
            print(f"It begins anew at {error.resets_at:%H:%M} UTC." if error.resets_at else "")
            break
        print()
        history.append({"role": "assistant", "content": said})
