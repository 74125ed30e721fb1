// Against a real sidecar with a processor behind it; tests/tests/pipeline/typescript_sdk.rs starts them,
// with the budgets that are named here.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import Anthropic from '@anthropic-ai/sdk';
import { GoogleGenAI } from '@google/genai';
import OpenAI from 'openai';
import { BudgetExceededError, Spendfuse } from 'spendfuse';
import { provider, type ProviderOptions, SAID, textOf } from './stub.mjs';

const url = process.env['SPENDFUSE_TEST_URL'];
const skip = url === undefined && 'SPENDFUSE_TEST_URL is not set';
const messages = [{ role: 'user' as const, content: 'x' }];

async function parts(options: ProviderOptions = {}) {
  const upstream = await provider({ pieceBytes: 9, ...options });
  const spendfuse = new Spendfuse({ url: url!, workspace: 'sdk' });
  after(async () => {
    await spendfuse.shutdown();
    await upstream.close();
  });
  return {
    upstream,
    spendfuse,
    openai: spendfuse.wrap(new OpenAI({ apiKey: 'k', baseURL: `${upstream.url}/v1` }), { provider: 'openai' }),
    anthropic: spendfuse.wrap(new Anthropic({ apiKey: 'k', baseURL: upstream.url })),
    genai: spendfuse.wrap(new GoogleGenAI({ apiKey: 'k', httpOptions: { baseUrl: upstream.url } })),
  };
}

/** The customer's line of a budget, once it is as wanted. */
async function settled(customer: string, budget: string, isRight: (line: Record<string, any>) => boolean): Promise<Record<string, any>> {
  const deadline = Date.now() + 10_000;
  for (;;) {
    const state = (await (await fetch(`${url}/v1/state?workspace=sdk&customer=${customer}`)).json()) as { budgets: Record<string, any>[] };
    const line = state.budgets.find((line) => line['budget'] === budget);
    if (line !== undefined && isRight(line)) return line;
    assert.ok(Date.now() < deadline, `${customer}: ${JSON.stringify(state)}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

test('seven calls of three clients cost what their makers charge, to the nano-dollar; nothing stays held', { skip }, async () => {
  const { spendfuse, openai, anthropic, genai } = await parts();
  const ask = { model: 'gpt-4o', max_tokens: 200, messages };
  const say = { model: 'claude-sonnet-4-5', max_tokens: 200, messages };
  const generate = { model: 'gemini-2.5-flash', contents: 'x', config: { maxOutputTokens: 200 } };
  await spendfuse.context({ customer: 'c-1' }, async () => {
    await openai.chat.completions.create(ask);
    assert.equal(await textOf(await openai.chat.completions.create({ ...ask, stream: true }), (chunk) => chunk.choices[0]!.delta.content), SAID);
    await openai.responses.create({ model: 'gpt-4o', max_output_tokens: 200, input: 'x' });
    await anthropic.messages.create(say);
    await anthropic.messages.stream(say).finalMessage();
    await genai.models.generateContent(generate);
    assert.equal(await textOf(await genai.models.generateContentStream(generate), (chunk) => chunk.text), SAID);
  });
  assert.ok(await spendfuse.flush());
  // Above half of its limit a budget's figures are at most five seconds old.
  // Of 1,000 tokens in and 100 out each: three of gpt-4o at $2.50 and $10 a million, two of
  // claude-sonnet-4-5 at $3 and $15, two of gemini-2.5-flash at $0.30 and $2.50.
  const line = await settled('c-1', 'cap', (line) => line['spent_usd'] === '0.0206');
  assert.equal(line['reserved_usd'], '0.00');
});

test('a customer who may spend nothing is refused by every client, before anything is sent', { skip }, async () => {
  const { upstream, spendfuse, openai, anthropic, genai } = await parts();
  await spendfuse.context({ customer: 'c-2' }, async () => {
    const calls = [
      () => openai.chat.completions.create({ model: 'gpt-4o', messages }),
      () => anthropic.messages.create({ model: 'claude-sonnet-4-5', max_tokens: 5, messages }),
      () => genai.models.generateContent({ model: 'gemini-2.5-flash', contents: 'x' }),
    ];
    for (const call of calls) {
      await assert.rejects(call(), (error: unknown) => error instanceof BudgetExceededError && error.budget === 'nothing' && error.scope === 'sdk/customer=c-2' && error.limit === '0.00');
    }
  });
  assert.equal(upstream.requests.length, 0);
});

test('calls at once do not pass the limit together: each holds what it may cost', { skip }, async () => {
  // An answered call holds no more than it cost, so none is answered before all have been judged.
  let answer = (): void => undefined;
  const { upstream, spendfuse, openai } = await parts({ answersAfter: new Promise((resolve) => (answer = resolve)) });
  // $0.0018 for calls of which each may cost $0.0008 and a little; of this model nothing is learnt yet.
  const call = () => spendfuse.context({ customer: 'c-4' }, () => openai.chat.completions.create({ model: 'gpt-4.1', max_tokens: 100, messages }));
  const refused: unknown[] = [];
  const calls = Array.from({ length: 20 }, () => call().catch((error: unknown) => refused.push(error)));
  while (upstream.requests.length + refused.length < calls.length) await new Promise((resolve) => setTimeout(resolve, 5));
  answer();
  await Promise.all(calls);
  assert.ok(refused.every((error) => error instanceof BudgetExceededError && error.budget === 'few'));
  assert.equal(upstream.requests.length, 2);
});

test('a budget that wants a cheaper model gets it', { skip }, async () => {
  const { upstream, spendfuse, openai } = await parts();
  await spendfuse.context({ customer: 'c-3' }, async () => {
    await openai.chat.completions.create({ model: 'gpt-4o', messages });
    await spendfuse.flush();
    await settled('c-3', 'cheaper', (line) => line['verdict'] === 'downgrade');
    const answer = await openai.chat.completions.create({ model: 'gpt-4o', messages });
    assert.equal(answer.model, 'gpt-4o-mini');
  });
  assert.ok(await spendfuse.flush());
  // $0.0035 and $0.00021.
  await settled('c-3', 'cheaper', (line) => line['spent_usd'] === '0.00371');
  assert.equal(upstream.requests.length, 2);
});

test('who watches is refused without asking', { skip }, async () => {
  const upstream = await provider();
  const spendfuse = new Spendfuse({ url: url!, workspace: 'sdk', mode: 'watch', timeoutMs: 0 });
  after(() => Promise.all([spendfuse.shutdown(), upstream.close()]));
  const openai = spendfuse.wrap(new OpenAI({ apiKey: 'k', baseURL: `${upstream.url}/v1` }), { provider: 'openai' });
  const call = (customer: string) => spendfuse.context({ customer }, () => openai.chat.completions.create({ model: 'gpt-4o', messages }));
  const isRefusal = (budget: string) => (error: unknown) => error instanceof BudgetExceededError && error.budget === budget;
  await assert.rejects(call('c-2'), isRefusal('nothing'));
  // Two use it up; what is heard some milliseconds later refuses the next.
  for (let refused = false, until = Date.now() + 10_000; !refused; ) {
    assert.ok(Date.now() < until);
    await call('c-6').catch((error: unknown) => {
      assert.ok(isRefusal('watched')(error), String(error));
      refused = true;
    });
    await spendfuse.flush();
  }
  assert.equal((await spendfuse.check({ customer: 'c-7' })).state, 'live');
  assert.equal(spendfuse.statistics.unavailable, 0);
});

test('revenue, sessions and their end are taken', { skip }, async () => {
  const { spendfuse } = await parts();
  spendfuse.track({ customer: 'c-5', revenueUsd: '0.99' });
  const session = spendfuse.session({ budget: '0.0068', customer: 'c-5' });
  const step = await session.step({ provider: 'openai', model: 'gpt-4o', usage: { input_tokens: 1200, output_tokens: 380 } });
  assert.deepEqual([step.costUsd, step.remainingUsd, step.warnings.map((warning) => warning.type)], ['0.0068', '0.00', ['budget_exceeded']]);
  assert.equal((await session.end()).totalCostUsd, '0.0068');
  assert.ok(await spendfuse.flush());
  const { delivered, rejected, dropped } = spendfuse.statistics;
  assert.deepEqual({ delivered, rejected, dropped }, { delivered: 3, rejected: 0, dropped: 0 });
});
