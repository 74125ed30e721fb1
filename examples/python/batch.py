"""A batch job: eight calls at a time, which together spend what there is and no more; the rest waits.

Each call holds what it may cost until it is counted, so that eight at once do not all take the last cent.

Run:    python examples/python/batch.py
Prints:
    1… of 40 documents are done within $0.05, 2… wait until 20… UTC
"""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Optional

import spendfuse
from openai import OpenAI

# Nobody waits for a batch: better no call than one that nobody has allowed.
spendfuse.configure(reserve=True, check_timeout=2.0, on_unavailable="block")
client = spendfuse.wrap(OpenAI(), feature="batch")
A_MOMENT = 5  # seconds
documents = [f"document {number}" for number in range(40)]
refused: list = []


def summary(document: str) -> Optional[str]:
    while True:
        try:
            answer = client.chat.completions.create(
                model="gpt-4o", max_tokens=950, messages=[{"role": "user", "content": f"Summarise: {document}"}]
            )
            return answer.choices[0].message.content
        except spendfuse.BudgetExceededError as error:
            if error.retry_after is None or error.retry_after > A_MOMENT:
                refused.append(error)
                return None
            time.sleep(error.retry_after)  # held by calls under way, which may cost less than they hold


with spendfuse.context(customer="c-batch"), ThreadPoolExecutor(8) as pool:
    # Threads do not inherit a context by themselves.
    results = list(pool.map(spendfuse.copy_context(summary), documents))

done = [result for result in results if result is not None]
print(f"{len(done)} of {len(documents)} documents are done", end="" if refused else "\n")
if refused:
    resets = refused[-1].resets_at
    again = f"{resets:%Y-%m-%dT%H:%M} UTC" if resets else "there is more"
    print(f" within ${refused[-1].limit}, {len(refused)} wait until {again}")
