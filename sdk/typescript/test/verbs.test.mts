// check, guardedCall, guard, track, addUsage.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, test } from 'node:test';
import OpenAI from 'openai';
import { BudgetExceededError, type Decision, SessionBlockedError, Spendfuse, SpendfuseError, StateUnknownError } from 'spendfuse';
import { blocked, provider, serve, sidecar, type SidecarOptions, type Told, told } from './stub.mjs';

const ANSWER = { id: 'chatcmpl-1', model: 'gpt-4o-2024-08-06', usage: { prompt_tokens: 10, completion_tokens: 5 } };

async function parts(options: SidecarOptions = {}) {
  const side = await sidecar(options);
  const upstream = await provider();
  after(() => Promise.all([side.close(), upstream.close()]));
  const logged: string[] = [];
  const spendfuse = new Spendfuse({ url: side.url, workspace: 'acme', token: 't', flushIntervalMs: 1, log: (message) => logged.push(message) });
  const openai = spendfuse.wrap(new OpenAI({ apiKey: 'k', baseURL: `${upstream.url}/v1` }), { provider: 'openai' });
  return { side, spendfuse, logged, upstream, openai };
}

test('check: a refusal is an answer; the question and the token go as they should', async () => {
  const { side, spendfuse } = await parts({ decide: () => blocked() });
  const decision = await spendfuse.context({ customer: 'c-42', tags: { team: 'growth' } }, () => spendfuse.check({ rootSession: 's-0', estimate: { model: 'gpt-4o', inputTokens: 10, maxOutputTokens: 5 } }));
  assert.equal(decision.decision, 'block');
  assert.equal(decision.budgets[0]!.resetsAt, '2026-11-23T05:00:00Z');
  assert.deepEqual(side.checks[0], { workspace: 'acme', customer: 'c-42', root_session: 's-0', tags: { team: 'growth' }, estimate: { model: 'gpt-4o', input_tokens: 10, max_output_tokens: 5 } });
  assert.equal(side.requests[0]!.headers['x-spendfuse-token'], 't');
});

test('who reserves waits for the answer, and not for a connection', async () => {
  const { side, spendfuse } = await parts({ decide: () => blocked(), slowMs: 300 });
  const held = { customer: 'c', estimatedCostUsd: '0.02' };
  await assert.rejects(spendfuse.guardedCall(held, () => 7), BudgetExceededError);
  assert.equal((await spendfuse.check({ customer: 'c' })).state, 'unavailable');
  const impatient = new Spendfuse({ url: side.url, reserveTimeoutMs: 100, log: () => {} });
  assert.equal(await impatient.guardedCall(held, () => 7), 7);
  const away = new Spendfuse({ url: 'http://127.0.0.1:1', log: () => {} });
  const began = performance.now();
  for (let call = 0; call < 10; call += 1) await assert.rejects(away.guardedCall(held, () => 7, { onUnavailable: 'block' }), StateUnknownError);
  assert.ok(performance.now() - began < 1_000);
});

test('a question that is wrong is an error where it is asked, and an outage where a call is under way', async () => {
  const stub = await serve((_, response) => void response.writeHead(401).end('{"error":{"code":"unauthorized","message":"the token is wrong"}}'));
  after(() => stub.close());
  const logged: string[] = [];
  const spendfuse = new Spendfuse({ url: stub.url, log: (message) => logged.push(message) });
  await assert.rejects(spendfuse.check({ customer: 'c' }), (error: Error) => error instanceof SpendfuseError && error.message.includes('401, the token is wrong'));
  assert.equal(await spendfuse.guardedCall({ customer: 'c' }, () => 7), 7);
  assert.ok(logged.some((message) => message.includes('401, the token is wrong')));
  await assert.rejects(spendfuse.guardedCall({ customer: 'c' }, () => 7, { onUnavailable: 'block' }), StateUnknownError);
});

test('guardedCall: reads the answer, settles the hold, is told in whose name', async () => {
  const { side, spendfuse } = await parts();
  const answer = await spendfuse.guardedCall({ customer: 'c-42', feature: 'chat', estimatedCostUsd: '0.02' }, async () => ANSWER);
  assert.equal(answer, ANSWER);
  const [event] = (await told(side, 1)) as [Told];
  const { source, id, provider, model, customer, feature, workspace, usage_format, reservation_id } = event;
  assert.deepEqual(
    { source, id, provider, model, customer, feature, workspace, usage_format, reservation_id },
    { source: 'llm:openai', id: 'chatcmpl-1', provider: 'openai', model: ANSWER.model, customer: 'c-42', feature: 'chat', workspace: 'acme', usage_format: 'openai.chat', reservation_id: 'stub.1-1' },
  );
});

test('guardedCall: is refused before its function runs; one that throws gives back its hold', async () => {
  const { side, spendfuse } = await parts({ decide: ({ customer }) => (customer === 'c-1' ? blocked() : {}) });
  let ran = false;
  await assert.rejects(
    spendfuse.guardedCall({ customer: 'c-1' }, () => {
      ran = true;
    }),
    BudgetExceededError,
  );
  assert.equal(ran, false);
  await assert.rejects(
    spendfuse.guardedCall({ customer: 'c-2', estimatedCostUsd: '1' }, () => {
      throw new RangeError('of the app');
    }),
    RangeError,
  );
  await new Promise((resolve) => setTimeout(resolve, 30));
  assert.deepEqual([side.released, side.events.size], [['stub.1-2'], 0]);
});

test('guardedCall: a wrapped client within takes over the hold, and is counted once', async () => {
  const { side, spendfuse, openai } = await parts();
  await spendfuse.guardedCall({ customer: 'c-42', estimatedCostUsd: '0.02' }, () => openai.chat.completions.create({ model: 'gpt-4o', messages: [] }));
  await told(side, 1);
  await spendfuse.flush();
  assert.deepEqual([side.checks.length, side.events.size, side.released.length], [1, 1, 0]);
  assert.equal([...side.events.values()][0]!['reservation_id'], 'stub.1-1');
});

test('guardedCall: downgrade is told by call.model(), or raised', async () => {
  const decide = () => ({ ...blocked('soft', { verdict: 'downgrade' }), decision: 'downgrade', downgrade_to: 'gpt-4o-mini' });
  const { side, spendfuse } = await parts({ decide });
  await spendfuse.guardedCall({ customer: 'c' }, (call) => {
    assert.equal(call.model('gpt-4o'), 'gpt-4o-mini');
    call.addUsage(ANSWER);
  });
  await assert.rejects(
    spendfuse.guardedCall({ customer: 'c', estimatedCostUsd: '1' }, () => 7, { downgrade: 'raise' }),
    (error: unknown) => error instanceof BudgetExceededError && error.budget === 'soft',
  );
  await new Promise((resolve) => setTimeout(resolve, 30));
  assert.deepEqual(side.released, ['stub.1-2']);
});

test('guardedCall: a call that a budget has made cheaper is flagged, whoever tells of it', async () => {
  const decide = ({ model }: Told) => (model === 'gpt-4o' ? { decision: 'downgrade', downgrade_to: 'gpt-4o-mini' } : {});
  const { side, spendfuse, openai } = await parts({ decide });
  const question = { customer: 'c', model: 'gpt-4o', estimatedCostUsd: '1' };
  const asked = { messages: [{ role: 'user' as const, content: 'x' }] };
  await spendfuse.guardedCall(question, (call) => openai.chat.completions.create({ ...asked, model: call.model('gpt-4o') }));
  await spendfuse.guardedCall(question, (call) => (call.model('gpt-4o'), { ...ANSWER, id: 'second' }));
  await spendfuse.guardedCall({ ...question, model: 'other' }, (call) => (call.model('other'), { ...ANSWER, id: 'third' }));
  assert.deepEqual((await told(side, 3)).map((event) => event['flags']), [['downgraded'], ['downgraded'], undefined]);
});

test('guardedCall: an answer that says nothing of its usage is told in the log, and holds nothing', async () => {
  const { side, spendfuse, logged } = await parts();
  await spendfuse.guardedCall({ customer: 'c', estimatedCostUsd: '1' }, () => 'text');
  assert.ok(logged.some((message) => message.includes('without usage')));
  await new Promise((resolve) => setTimeout(resolve, 30));
  assert.deepEqual(side.released, ['stub.1-1']);
});

test('what settles a hold is told soon, whatever else waits', async () => {
  const side = await sidecar();
  after(() => side.close());
  const spendfuse = new Spendfuse({ url: side.url, flushIntervalMs: 60_000 });
  spendfuse.track({ model: 'm', usage: { input_tokens: 1 } });
  await spendfuse.guardedCall({ estimatedCostUsd: '1' }, () => ANSWER);
  assert.equal((await told(side, 2)).length, 2);
});

test('a call that would be refused waits for events of this process that settle others, and asks once more', async () => {
  const told = { events: new Map() };
  const { side, spendfuse, openai, upstream } = await parts({ decide: (_, count) => (told.events.size === 0 && count > 1 ? blocked('cap', { spent_usd: '0.00', reserved_usd: '5.00' }) : {}) });
  told.events = side.events;
  const call = () => openai.chat.completions.create({ model: 'gpt-4o', messages: [] });
  await call();
  await call();
  assert.deepEqual([side.checks.length, upstream.requests.length], [3, 2]);
  await spendfuse.flush();
  side.events.clear();
  await assert.rejects(call(), /Budget cap has no room for this call \(.*\$0\.00 of \$5\.00 spent, \$5\.00 held by calls under way/);
});

test('guard: a function, by its arguments; a decorator keeps this', async () => {
  const { side, spendfuse } = await parts();
  const answer = spendfuse.guard((customer: string, more: number) => ({ customer, feature: `f-${more}` }), async (customer: string, more: number) => ({ ...ANSWER, id: customer + more }));
  assert.equal((await answer('c-1', 2)).id, 'c-12');
  class Agent {
    name = 'planner';
    answer = spendfuse.guard({ agent: 'planner' })(async function (this: Agent) {
      return { ...ANSWER, id: this.name };
    });
  }
  await new Agent().answer();
  const events = await told(side, 2);
  assert.deepEqual(events.map(({ id, customer, feature, agent }) => [id, customer, feature, agent]), [
    ['c-12', 'c-1', 'f-2', undefined],
    ['planner', undefined, undefined, 'planner'],
  ]);
});

test('track: a call, revenue, both; whatever a usage object holds beside numbers stays here', async () => {
  const { side, spendfuse } = await parts();
  const id = spendfuse.track({ customer: 'c-42', revenueUsd: '0.99' });
  spendfuse.track({ id: 'e-1', customer: 'c-42', model: 'gpt-4o', usage: { input_tokens: 1, text: 'x'.repeat(65), nested: { service: 'standard', secret: 'y'.repeat(99) } }, units: { web_search_calls: 2 }, revenueUsd: '-0.10' });
  await spendfuse.flush();
  const events = await told(side, 3);
  assert.deepEqual(
    events.map((event) => [event['id'], event['type'], event['revenue_usd']]),
    [
      [id, 'spendfuse.revenue', '0.99'],
      ['e-1', undefined, undefined],
      ['e-1:revenue', 'spendfuse.revenue', '-0.10'],
    ],
  );
  assert.deepEqual([events[1]!['usage'], events[1]!['units']], [{ input_tokens: 1, nested: { service: 'standard' } }, { web_search_calls: '2' }]);
});

test('addUsage: answers of every SDK, told apart by their words', async () => {
  const { side, spendfuse } = await parts();
  const answers: [object, Told][] = [
    [ANSWER, { source: 'llm:openai', usage_format: 'openai.chat' }],
    [{ id: 'resp_1', model: 'm', usage: { input_tokens: 1, input_tokens_details: {}, output_tokens: 1 } }, { source: 'llm:openai', usage_format: 'openai.responses' }],
    [{ id: 'msg_1', model: 'm', usage: { input_tokens: 1, cache_read_input_tokens: 0, output_tokens: 1 } }, { source: 'llm:anthropic', usage_format: 'anthropic.messages' }],
    [{ id: 'msg_2', type: 'message', model: 'm', usage: { input_tokens: 1, output_tokens: 1 } }, { source: 'llm:anthropic', usage_format: 'anthropic.messages' }],
    [{ id: 'i-1', model: 'm', usage: { total_input_tokens: 1, total_output_tokens: 1, total_tokens: 2 } }, { source: 'llm:gemini', usage_format: 'gemini.interactions' }],
    [{ responseId: 'r-1', modelVersion: 'm', usageMetadata: { promptTokenCount: 1 } }, { source: 'llm:gemini', usage_format: 'gemini' }],
    [{ text: 'secret', response: { id: 'v-1', modelId: 'm' }, usage: { inputTokens: 3, outputTokens: 2, totalTokens: undefined } }, { usage_format: 'otel', usage: { input_tokens: 3, output_tokens: 2 } }],
  ];
  for (const [answer] of answers) spendfuse.addUsage(answer, { customer: 'c-42' });
  spendfuse.addUsage({ input_tokens: 4 }, { model: 'm' });
  await spendfuse.flush();
  const events = await told(side, answers.length + 1);
  answers.forEach(([, wanted], at) => {
    for (const [name, value] of Object.entries(wanted)) assert.deepEqual(events[at]![name], value, `${name} of ${at}`);
    assert.equal(events[at]!['model'].length > 0, true);
  });
  assert.deepEqual(events.at(-1)!['usage'], { input_tokens: 4 });
});

test('amounts with an exponent, as JavaScript writes small and large numbers, go as the sidecar reads them', async () => {
  const { side, spendfuse } = await parts();
  const amounts: [unknown, string][] = [[1e-7, '0.0000001'], ['1.25E-9', '0.00000000125'], [1.5e21, '1500000000000000000000'], [12.5, '12.5'], ['12.50', '12.50'], ['-2e-3', '-0.002'], ['much', 'much']];
  for (const [amount, wanted] of amounts) {
    const estimatedCostUsd = amount as string;
    await spendfuse.check({ estimatedCostUsd, sessionLimitUsd: estimatedCostUsd });
    assert.deepEqual([side.checks.at(-1)!['estimated_cost_usd'], side.checks.at(-1)!['session_limit_usd']], [wanted, wanted]);
    side.events.clear();
    spendfuse.track({ model: 'm', usage: {}, reportedCostUsd: estimatedCostUsd, revenueUsd: estimatedCostUsd, customer: 'c' });
    await spendfuse.flush();
    assert.deepEqual([...side.events.values()].map((event) => event['reported_cost_usd'] ?? event['revenue_usd']), [wanted, wanted]);
  }
  assert.equal(spendfuse.session({ budget: 1e-7 as unknown as string }).limitUsd, '0.0000001');
});

test('half a surrogate pair, as in a text that was cut, keeps neither a question nor a batch from the sidecar', async () => {
  const { side, spendfuse } = await parts();
  const half = '😀'.slice(0, 1);
  await spendfuse.check({ customer: `c-${half}`, model: `\\ud800 "${half}😀` });
  spendfuse.track({ id: half, model: half, usage: { input_tokens: 1, tier: half }, tags: { [half]: half } });
  await spendfuse.flush();
  assert.deepEqual([side.checks[0]!['customer'], side.checks[0]!['model']], ['c-\ufffd', '\\ud800 "\ufffd😀']);
  const { id, model, usage, tags } = [...side.events.values()][0]!;
  assert.deepEqual({ id, model, usage, tags }, { id: '\ufffd', model: '\ufffd', usage: { input_tokens: 1, tier: '\ufffd' }, tags: { '\ufffd': '\ufffd' } });
  assert.ok(!side.received.join('').includes('\\ud83d'));
});

test('an answer that is none is taken for a sidecar that is away', async () => {
  const answers = ['[]', '7', 'null', '{}', '<html>', '{"decision":"block","budgets":[7]}', '{"decision":"allow","warnings":"x"}'];
  const stub = await serve((_, response) => void response.writeHead(200).end(answers.shift()));
  after(() => stub.close());
  const spendfuse = new Spendfuse({ url: stub.url, log: () => {} });
  while (answers.length > 0) {
    const next = answers[0];
    assert.equal((await spendfuse.check()).state, 'unavailable', next);
  }
});

test('configure() after wrap(): another sidecar is asked at once, whatever the first one has said or not', async () => {
  const { side, upstream } = await parts();
  const spendfuse = new Spendfuse({ url: 'http://127.0.0.1:1', log: () => {} });
  const openai = spendfuse.wrap(new OpenAI({ apiKey: 'k', baseURL: `${upstream.url}/v1` }));
  for (let check = 0; check < 5; check += 1) assert.equal((await spendfuse.check()).state, 'unavailable');
  spendfuse.configure({ url: side.url, flushIntervalMs: 1 });
  await openai.chat.completions.create({ model: 'm', messages: [] });
  await told(side, 1);
  assert.equal(side.checks.length, 1);
});

test('errors: a budget that refuses because what is known of it is old', async () => {
  const warnings = [{ type: 'stale', severity: 'critical', message: 'state is old', wasted_usd: null, budget: 'cap' }];
  const of = (...lines: Told[]) => ({ ...blocked('cap', { spent_usd: '1.00' }), budgets: lines, warnings, state: 'stale' });
  const late = blocked('cap', { spent_usd: '1.00' })['budgets'][0];
  const answers = [of(late), of(late, blocked('other')['budgets'][0])];
  const { spendfuse } = await parts({ decide: () => answers.shift()! });
  await assert.rejects(spendfuse.guardedCall({}, () => 7), (error: unknown) => error instanceof StateUnknownError && error.message === 'state is old');
  await assert.rejects(spendfuse.guardedCall({}, () => 7), (error: unknown) => error instanceof BudgetExceededError && error.budget === 'other');
});

test('errors: a stopped session, an unknown state, budgets in tokens', async () => {
  const lines: [Told, (error: unknown) => boolean][] = [
    [blocked('loops', { limit_usd: null, spent_usd: null }), (error) => error instanceof SessionBlockedError && error.rule === 'loops'],
    [{ ...blocked(), budgets: [], warnings: [{ type: 'cold', severity: 'critical', message: 'not caught up', wasted_usd: null }] }, (error) => error instanceof StateUnknownError && error.message === 'not caught up'],
    [
      blocked('tokens', { limit_usd: null, spent_usd: null, limit_tokens: 1000, spent_tokens: 1001 }),
      (error) => error instanceof BudgetExceededError && error.limit === '1000' && error.spent === '1001' && error.message.includes('1001 of 1000 tokens'),
    ],
  ];
  for (const [answer, isRight] of lines) {
    const { spendfuse } = await parts({ decide: () => answer });
    await assert.rejects(
      spendfuse.guardedCall({ customer: 'c' }, () => 7),
      (error: unknown) => isRight(error) && error instanceof SpendfuseError && error.decision?.decision === 'block',
    );
  }
});

test('the names here are those of schemas/', { skip: process.env['SPENDFUSE_SCHEMAS'] === undefined && 'SPENDFUSE_SCHEMAS is not set' }, () => {
  const schema = (name: string) => JSON.parse(readFileSync(`${process.env['SPENDFUSE_SCHEMAS']}/${name}.schema.json`, 'utf8'));
  const camel = (name: string) => name.replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());
  // A Record of every key: the compiler names those that are missing or too many.
  const decision: Record<keyof Decision, true> = {
    decision: true,
    budgets: true,
    downgradeTo: true,
    warnings: true,
    retryAfterSeconds: true,
    state: true,
    stateAgeMs: true,
    completeTo: true,
    reservationId: true,
    reservedUsd: true,
    reserveRule: true,
    reservedUntil: true,
  };
  assert.deepEqual(Object.keys(schema('check-response').properties).map(camel).sort(), Object.keys(decision).sort());
  const line: Record<keyof Decision['budgets'][number], true> = {
    budget: true, scope: true, verdict: true, percent: true, window: true, resetsAt: true, message: true, helpUrl: true,
    spentUsd: true, limitUsd: true, pendingUsd: true, reservedUsd: true, remainingUsd: true,
    spentTokens: true, limitTokens: true, pendingTokens: true, reservedTokens: true, remainingTokens: true,
    spentCalls: true, limitCalls: true, pendingCalls: true, reservedCalls: true, remainingCalls: true,
  };
  assert.deepEqual(Object.keys(schema('check-response').$defs.budget_line.properties).map(camel).sort(), Object.keys(line).sort());
  const asked = Object.keys(schema('check-request').properties).map(camel);
  for (const name of ['workspace', 'customer', 'feature', 'project', 'user', 'agent', 'plan', 'environment', 'account', 'session', 'rootSession', 'tags', 'model', 'provider', 'estimatedCostUsd', 'estimate', 'reserve', 'callTimeoutS']) {
    assert.ok(asked.includes(name), name);
  }
});
