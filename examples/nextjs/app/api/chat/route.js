// A handler of Next.js: the customer comes from the request, a used-up budget is a 429 of your own form.
//
// Run:    (cd sdk/typescript && npm install && npm pack)
//         cd examples/nextjs && npm install && npm install --no-save ../../sdk/typescript/spendfuse-*.tgz && npx next dev
//         curl -X POST localhost:3000/api/chat -H 'x-customer: c-next' -d '{"question": "Say hello"}'
// Prints:
//     200 {"answer":"Hello"}
//     …
//     429 {"error":"Your AI budget is used up.","budget":"per-customer","limit":"0.05","resetsAt":"20…"}

import { after } from 'next/server';
import OpenAI from 'openai';
import { BudgetExceededError, context, flush, wrap } from 'spendfuse';

// Made at the first request: a build has no key.
let client;
const openai = () => (client ??= wrap(new OpenAI(), { feature: 'chat' }));

export async function POST(request) {
  const { question } = await request.json();
  const customer = request.headers.get('x-customer') ?? 'anonymous'; // yours: who is logged in
  // What is told in the background is safe before the function is frozen.
  after(() => flush());
  try {
    // A call holds what it may cost: the less it may answer, the more of them fit.
    const ask = () => openai().responses.create({ model: 'gpt-4o', max_output_tokens: 300, input: question });
    const answer = await context({ customer }, ask);
    return Response.json({ answer: answer.output_text });
  } catch (error) {
    if (!(error instanceof BudgetExceededError)) throw error;
    const { budget, limit, resetsAt } = error;
    return Response.json({ error: 'Your AI budget is used up.', budget, limit, resetsAt }, { status: 429 });
  }
}
