// Runs with budgets of their own.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import OpenAI from 'openai';
import { BudgetExceededError, Spendfuse } from 'spendfuse';
import { provider, serve, sidecar, type SidecarOptions, type Told, told } from './stub.mjs';

const ANSWER = { id: 'chatcmpl-1', model: 'gpt-4o-2024-08-06', usage: { prompt_tokens: 10, completion_tokens: 5 } };

async function parts(options: SidecarOptions = {}) {
  const side = await sidecar(options);
  const upstream = await provider();
  after(() => Promise.all([side.close(), upstream.close()]));
  const spendfuse = new Spendfuse({ url: side.url, workspace: 'acme', flushIntervalMs: 1, log: () => {} });
  const openai = spendfuse.wrap(new OpenAI({ apiKey: 'k', baseURL: `${upstream.url}/v1` }), { provider: 'openai' });
  return { side, spendfuse, upstream, openai };
}

test('session: steps, what they cost, the budget; wrapped calls within are refused when it is used up', async () => {
  const { side, spendfuse, openai, upstream } = await parts({ cost: () => '0.25' });
  const session = spendfuse.session({ budget: '0.50', customer: 'c-42' });
  const first = await session.step({ model: 'gpt-4o', usage: { input_tokens: 1200, output_tokens: 380 } });
  assert.deepEqual(first, { costUsd: '0.25', totalCostUsd: '0.25', remainingUsd: '0.25', warnings: [] });
  const second = await session.step(() => openai.chat.completions.create({ model: 'gpt-4o', messages: [] }));
  assert.deepEqual([second.totalCostUsd, second.warnings[0]!.type], ['0.50', 'budget_exceeded']);
  await assert.rejects(
    session.run(() => openai.chat.completions.create({ model: 'gpt-4o', messages: [] })),
    (error: unknown) => error instanceof BudgetExceededError && error.budget === 'session' && error.spent === '0.50' && error.limit === '0.50',
  );
  assert.equal(upstream.requests.length, 1);
  const { totalCostUsd, warnings } = await session.end();
  assert.deepEqual([totalCostUsd, warnings.length], ['0.50', 1]);
  const events = await told(side, 3);
  assert.deepEqual(events.map((event) => event['session']), [session.id, session.id, session.id]);
  assert.deepEqual([events[2]!['type'], events[2]!['workspace']], ['spendfuse.session_end', 'acme']);
  assert.throws(() => spendfuse.session({ budget: '1e3' }), RangeError);
});

test('session: its limit goes to a sidecar that knows limits of sessions, and not to one that does not', async () => {
  for (const knows of [true, false]) {
    const questions: Told[] = [];
    const events: Told[] = [];
    const stub = await serve((request, response) => {
      const body = JSON.parse(request.body);
      if (request.path === '/v1/usage') {
        events.push(...body);
        return void response.writeHead(202).end(JSON.stringify({ results: body.map((event: Told, index: number) => ({ index, id: event['id'], status: 'accepted' })) }));
      }
      questions.push(body);
      if (!knows && 'session_limit_usd' in body) return void response.writeHead(400).end('{"error":{"code":"bad_request","message":"session_limit_usd is not supported yet"}}');
      response.writeHead(200).end('{"decision":"allow","budgets":[],"warnings":[],"reservation_id":null}');
    });
    after(() => stub.close());
    const spendfuse = new Spendfuse({ url: stub.url, flushIntervalMs: 1 });
    const session = spendfuse.session({ budget: '0.50' });
    for (let call = 0; call < 2; call += 1) await session.run(() => spendfuse.guardedCall({}, () => ANSWER));
    await spendfuse.flush();
    assert.deepEqual(questions.map((question) => question['session_limit_usd']), knows ? ['0.50', '0.50'] : ['0.50', undefined, undefined]);
    assert.deepEqual(events.map((event) => event['session_limit_usd']), knows ? ['0.50', '0.50'] : [undefined, undefined]);
  }
});

test('session: one within another belongs to its root, wherever it is run', async () => {
  const { side, spendfuse } = await parts();
  const tell = (id: string): unknown => spendfuse.track({ id, model: 'm', usage: { input_tokens: 1 } });
  const planner = spendfuse.session({ id: 's-0', customer: 'c-42' });
  const other = spendfuse.session({ id: 's-9' });
  planner.run(() => {
    tell('of-the-planner');
    const worker = spendfuse.session({ id: 's-1' });
    worker.run(() => {
      tell('of-the-worker');
      spendfuse.session({ id: 's-2' }).run(() => tell('of-its-own'));
      other.run(() => tell('of-another'));
    });
    spendfuse.session({ id: 's-3', rootSession: 's-7' }).run(() => tell('as-told'));
  });
  await spendfuse.flush();
  const seen = Object.fromEntries((await told(side, 5)).map((event) => [event['id'], [event['session'], event['root_session'], event['customer']]]));
  assert.deepEqual(seen, {
    'of-the-planner': ['s-0', undefined, 'c-42'],
    'of-the-worker': ['s-1', 's-0', 'c-42'],
    'of-its-own': ['s-2', 's-0', 'c-42'],
    'of-another': ['s-9', undefined, 'c-42'],
    'as-told': ['s-3', 's-7', 'c-42'],
  });
});

test('session: what one within another costs counts in the budgets of both', async () => {
  const { spendfuse, openai, upstream } = await parts({ cost: () => '0.30' });
  const ask = () => openai.chat.completions.create({ model: 'gpt-4o', messages: [] });
  const outer = spendfuse.session({ budget: '0.50', id: 's-0' });
  const isOuter = (error: unknown): boolean => error instanceof BudgetExceededError && error.scope === 'session=s-0' && error.spent === '0.60';
  await outer.run(async () => {
    const inner = spendfuse.session({ budget: '10' });
    for (let call = 0; call < 2; call += 1) await inner.run(ask);
    await assert.rejects(inner.run(ask), isOuter);
    await assert.rejects(spendfuse.session().run(ask), isOuter);
    assert.deepEqual(await inner.end(), { totalCostUsd: '0.60', warnings: [] });
  });
  await assert.rejects(outer.run(ask), isOuter);
  const decision = await outer.run(() => spendfuse.check({ reserve: true, estimatedCostUsd: '1' }));
  assert.deepEqual([decision.decision, decision.budgets[0]!.scope, decision.reservationId], ['block', 'session=s-0', null]);
  const steps = spendfuse.guard({}, async function* () {
    yield 1;
  });
  await assert.rejects(outer.run(() => steps().next()), isOuter);
  const { totalCostUsd, warnings } = await outer.end();
  assert.deepEqual([totalCostUsd, warnings[0]!.message, upstream.requests.length], ['0.00', 'the session has spent $0.60 of $0.50', 2]);
});

test('session: its calls do not wait for the costs that a sidecar cannot tell which is away', async () => {
  const gone = await serve(() => {});
  await gone.close();
  const upstream = await provider();
  after(() => upstream.close());
  const spendfuse = new Spendfuse({ url: gone.url, flushIntervalMs: 1, log: () => {} });
  const guarded = spendfuse.wrap(fetch);
  const session = spendfuse.session({ budget: '0.50' });
  const ask = async () => (await guarded(`${upstream.url}/v1/chat/completions`, { method: 'POST', body: '{"model":"m"}' })).json();
  await session.run(ask);
  await new Promise((resolve) => setTimeout(resolve, 50));
  const began = performance.now();
  for (let call = 0; call < 3; call += 1) await session.run(ask);
  assert.ok(performance.now() - began < 900, `${performance.now() - began} ms`);
});
