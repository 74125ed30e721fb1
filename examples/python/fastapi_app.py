"""A FastAPI handler: the customer comes from the request, and a used-up budget is a 429 of its own form.

Run:    python examples/python/fastapi_app.py        (or: uvicorn --app-dir examples/python fastapi_app:app)
Prints:
    200 {'answer': 'Hello'}
    …
    429 {'error': 'Your AI budget is used up.', 'budget': 'per-customer', 'limit': '0.05', 'resets_at': '20…'}
    retry-after: …
"""

import spendfuse
from fastapi import FastAPI, Header, Request
from fastapi.responses import JSONResponse
from openai import AsyncOpenAI
from pydantic import BaseModel

app = FastAPI()
client = spendfuse.wrap(AsyncOpenAI(), feature="web")


class Question(BaseModel):
    text: str


@app.post("/ask")
async def ask(question: Question, x_customer: str = Header("anonymous")) -> dict:  # yours: who is logged in
    with spendfuse.context(customer=x_customer):
        answer = await client.responses.create(model="gpt-4o", input=question.text)
    return {"answer": answer.output_text}


@app.exception_handler(spendfuse.BudgetExceededError)
async def used_up(_: Request, error: spendfuse.BudgetExceededError) -> JSONResponse:
    body = {"error": "Your AI budget is used up.", "budget": error.budget, "limit": str(error.limit)}
    body["resets_at"] = error.resets_at.isoformat() if error.resets_at else None
    return JSONResponse(body, 429, headers={"retry-after": str(error.retry_after or 3600)})


if __name__ == "__main__":
    from fastapi.testclient import TestClient

    with TestClient(app) as browser:
        status = 200
        while status == 200:
            got = browser.post("/ask", json={"text": "Say hello"}, headers={"x-customer": "c-web"})
            status = got.status_code
            print(status, got.json())
        print("retry-after:", got.headers["retry-after"])
