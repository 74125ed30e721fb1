// `mode: 'watch'`: decisions in this process, by what it hears of the blocklist.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { after, test } from 'node:test';
import { BudgetExceededError, Spendfuse, SpendfuseError, StateUnknownError } from 'spendfuse';
import { json, serve, type Stub, type Told } from './stub.mjs';

const schemas = process.env['SPENDFUSE_SCHEMAS'] ?? new URL('../../../schemas', import.meta.url).pathname;
const { cases } = JSON.parse(readFileSync(`${schemas}/decision-vectors.json`, 'utf8')) as { cases: { name: string; steps: Told[] }[] };
interface Followed {
  take(page: Told, heardAt: number): void;
  decide(call: Told, at: number): Told;
}
const { Standings } = (await import(new URL('../dist/esm/standings.js', import.meta.url).href)) as { Standings: new () => Followed };

const SHOWN = ['budget', 'scope', 'verdict', 'window', 'resets_at', 'message'];

for (const { name, steps } of cases) {
  test(`every call is decided as the guard decides it: ${name}`, () => {
    let standings = new Standings();
    for (const step of steps) {
      if (step['page'] !== undefined) {
        if (step['page'].rules !== undefined) standings = new Standings();
        standings.take(step['page'], step['at_ms']);
        continue;
      }
      const { decision, downgrade_to, retry_after_seconds, state, budgets } = standings.decide(step['call'], step['at_ms']);
      const lines = budgets.map((line: Told) => Object.fromEntries(SHOWN.map((name) => [name, line[name]])));
      const { at_ms: _, call: __, ...expected } = step;
      assert.deepEqual({ decision, downgrade_to, budgets: lines, retry_after_seconds, state }, expected, JSON.stringify(step));
    }
  });
}

/** A blocklist as a sidecar serves it: in pages, with waits. */
class Blocklist {
  asked: URLSearchParams[] = [];
  checks = 0;
  checkAnswers: [number, object][] = [];
  events: Told[] = [];
  /** Answers that come first: statuses. */
  first: number[] = [];
  isAway = false;
  staleAfterMs = 10_000;
  stub!: Stub;
  private run = 0;
  private changes: Told[] = [];
  private waiting: (() => void)[] = [];

  async start(): Promise<this> {
    this.stub = await serve(async (request, response) => {
      if (request.path === '/v1/check') {
        this.checks += 1;
        const [status, body] = this.checkAnswers.shift() ?? [404, {}];
        return json(response, status, body);
      }
      if (request.path === '/v1/usage') {
        this.events.push(...(JSON.parse(request.body) as Told[]));
        return json(response, 202, { accepted: 1, rejected: 0, results: this.events.map((event, index) => ({ index, id: event['id'], status: 'accepted' })) });
      }
      if (this.isAway) return void response.destroy();
      const first = this.first.shift();
      if (first !== undefined) return json(response, first, { error: { code: 'x', message: 'of the test' } });
      const query = new URLSearchParams(request.path.split('?')[1]);
      this.asked.push(query);
      const began = performance.now();
      const [run, seq] = (query.get('cursor') ?? `${this.run}-0`).split('-').map(Number) as [number, number];
      const waitMs = Number.parseInt(query.get('wait') ?? '0');
      while (run === this.run && this.changes.length <= seq && performance.now() - began < waitMs) {
        await new Promise<void>((resolve) => this.waiting.push(resolve) && setTimeout(resolve, 20));
      }
      if (run !== this.run) return json(response, 410, { error: { code: 'cursor_expired', message: 'begin again' } });
      const entries = this.changes.slice(seq, seq + 2);
      json(response, 200, {
        entries,
        ...(query.has('cursor') ? {} : { rules: [] }),
        cursor: `${run}-${seq + entries.length}`,
        more: this.changes.length > seq + 2,
        state: 'live',
        state_age_ms: 5,
        complete_to: '2026-11-22T10:15:30Z',
        stale_after_ms: this.staleAfterMs,
        cold_start: 'allow',
        time: '2026-11-22T10:15:30Z',
        waited_ms: Math.floor(performance.now() - began),
        workspace: 'acme',
        imposed: {},
      });
    });
    after(() => this.stub.close());
    return this;
  }

  block(customer: string, verdict: string | null = 'block'): void {
    const standing = {
      budget: 'daily', verdict, when_stale: verdict, downgrade_to: 'gpt-4o-mini', spent_usd: '5.01', limit_usd: '5.00',
      window: 'day:2026-11-22', resets_at: null, expires_at: null, where: null, session_is_root: false, message: null, help_url: null,
    };
    this.changes.push({ key: `daily|acme/customer=${customer}`, value: verdict === null ? null : standing });
    for (const wake of this.waiting.splice(0)) wake();
  }

  /** Budgets have changed: every cursor is gone. */
  beginAgain(): void {
    this.run += 1;
    this.changes = [];
    for (const wake of this.waiting.splice(0)) wake();
  }
}

async function watching(blocklist: Blocklist, more: object = {}): Promise<{ spendfuse: Spendfuse; logged: string[]; isAllowed: (customer: string) => Promise<boolean> }> {
  const logged: string[] = [];
  const spendfuse = new Spendfuse({ url: blocklist.stub.url, mode: 'watch', flushIntervalMs: 1, log: (message) => logged.push(message), ...more });
  after(() => spendfuse.shutdown());
  return { spendfuse, logged, isAllowed: async (customer) => (await spendfuse.check({ customer })).decision !== 'block' };
}

async function eventually(holds: () => Promise<boolean> | boolean): Promise<void> {
  const deadline = performance.now() + 10_000;
  while (!(await holds())) {
    assert.ok(performance.now() < deadline);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

test('calls are decided here and told there', async () => {
  const blocklist = await new Blocklist().start();
  for (const customer of ['c-1', 'c-2', 'c-3']) blocklist.block(customer);
  const { spendfuse, isAllowed } = await watching(blocklist);
  assert.equal(blocklist.asked.length, 0);
  // Known from the first call on, though it takes two pages.
  assert.deepEqual([await isAllowed('c-3'), await isAllowed('c-4')], [false, true]);
  await assert.rejects(
    spendfuse.guardedCall({ customer: 'c-1' }, () => assert.fail('it is called')),
    (error) => error instanceof BudgetExceededError && error.budget === 'daily' && error.scope === 'acme/customer=c-1',
  );
  blocklist.block('c-4');
  await eventually(async () => !(await isAllowed('c-4')));
  blocklist.block('c-4', null);
  await eventually(() => isAllowed('c-4'));
  blocklist.block('c-5', 'downgrade');
  await eventually(async () => (await spendfuse.check({ customer: 'c-5', model: 'gpt-4o' })).downgradeTo === 'gpt-4o-mini');
  const asked = blocklist.asked.length;
  for (let at = 0; at < 1000; at += 1) await isAllowed('c-1');
  assert.ok(blocklist.asked.length - asked <= 1);
  spendfuse.track({ model: 'gpt-4o', usage: { input_tokens: 1 }, customer: 'c-1' });
  assert.ok(await spendfuse.flush());
  assert.deepEqual([blocklist.events.length, blocklist.checks], [1, 0]);
});

const SAYS_NOTHING: [number, object][] = [401, 429, 404, 503].map((status) => [status, { error: { code: 'x', message: 'session_limit_usd' } }]);
const SAYS_NO: [number, object][] = [
  [400, { error: { code: 'bad_request', message: 'session_limit_usd is not supported yet' } }],
  [200, { decision: 'allow', warnings: [{ type: 'unknown_field', message: 'session_limit_usd' }] }],
];
for (const [answer, isKnown] of [...SAYS_NOTHING.map((answer) => [answer, true] as const), ...SAYS_NO.map((answer) => [answer, false] as const)]) {
  test(`whether limits of sessions are known is ${isKnown ? 'not ' : ''}told by ${JSON.stringify(answer)}`, async (of) => {
    const blocklist = await new Blocklist().start();
    blocklist.checkAnswers = [answer, [200, { decision: 'allow', warnings: [] }]];
    const { spendfuse } = await watching(blocklist);
    const session = spendfuse.session({ budget: '0.50' });
    const call = () => session.run(() => spendfuse.guardedCall({}, () => ({ id: 'x', model: 'm', usage: { prompt_tokens: 1 } })));
    await call();
    await eventually(() => blocklist.checks === 1);
    await spendfuse.flush();
    // Not at every call.
    await call();
    await new Promise((resolve) => setTimeout(resolve, 30));
    assert.equal(blocklist.checks, 1);
    const now = performance.now();
    of.mock.method(performance, 'now', () => now + 11_000);
    await call();
    await new Promise((resolve) => setTimeout(resolve, 30));
    of.mock.restoreAll();
    await call();
    await spendfuse.flush();
    assert.deepEqual([blocklist.checks, blocklist.events.at(-1)!['session_limit_usd']], isKnown ? [2, '0.50'] : [1, undefined]);
  });
}

test('only the first checks wait for a sidecar that says nothing', async () => {
  const silent = await serve(() => {});
  after(() => silent.close());
  const spendfuse = new Spendfuse({ url: silent.url, mode: 'watch', log: () => {} });
  const began = performance.now();
  for (let check = 0; check < 3; check += 1) assert.equal((await spendfuse.check()).state, 'unavailable');
  assert.ok(performance.now() - began < 3_000, `${performance.now() - began} ms`);
  await spendfuse.shutdown(0);
});

test('while nothing is known the settings decide, and later the age', async () => {
  const blocklist = await new Blocklist().start();
  blocklist.block('c-1');
  Object.assign(blocklist, { isAway: true, staleAfterMs: 400 });
  const strict = await watching(blocklist, { onUnavailable: 'block' });
  const loose = await watching(blocklist);
  const began = performance.now();
  assert.ok(await loose.isAllowed('c-1'));
  await assert.rejects(strict.spendfuse.guardedCall({ customer: 'c-2' }, () => assert.fail('it is called')), StateUnknownError);
  assert.ok(performance.now() - began < 2_000);
  assert.match(loose.logged.join(), /cannot be followed/);
  blocklist.isAway = false;
  await eventually(async () => !(await loose.isAllowed('c-1')) && (await strict.isAllowed('c-2')));
  // It waits for less than the time after which it would be stale.
  await new Promise((resolve) => setTimeout(resolve, 1_000));
  assert.equal((await loose.spendfuse.check()).state, 'live');
  assert.equal(blocklist.asked.at(-1)?.get('wait'), '200ms');
  blocklist.isAway = true;
  await eventually(async () => (await loose.spendfuse.check()).state === 'stale');
  assert.ok(!(await loose.isAllowed('c-1')));
});

test('what is gone is read anew, and meanwhile what was known counts', async () => {
  const blocklist = await new Blocklist().start();
  blocklist.block('c-1');
  const { isAllowed } = await watching(blocklist);
  assert.ok(!(await isAllowed('c-1')));
  blocklist.first = [410, 500];
  blocklist.beginAgain();
  blocklist.block('c-2');
  const seen = new Set<string>();
  await eventually(async () => {
    const now = `${await isAllowed('c-1')} ${await isAllowed('c-2')}`;
    seen.add(now);
    return now === 'true false';
  });
  assert.ok(!seen.has('true true'), [...seen].join());
});

test('where too many wait it asks without waiting', async () => {
  const blocklist = await new Blocklist().start();
  const { isAllowed } = await watching(blocklist);
  assert.ok(await isAllowed('c-1'));
  blocklist.first = [503];
  blocklist.block('c-9');
  await eventually(() => blocklist.first.length === 0);
  blocklist.block('c-1');
  await eventually(async () => !(await isAllowed('c-1')));
  assert.ok(blocklist.asked.some((query) => query.has('cursor') && !query.has('wait')));
});

test('a sidecar that is older tells nothing to go by, and why is said', async () => {
  const value = { v: 1, budget: 'daily', scope: 'acme/customer=c-1', verdict: 'block', spent_usd: '5.01', limit_usd: '5.00' };
  // It passes by the questions that it does not know.
  const stub = await serve((_, response) => json(response, 200, { entries: [{ key: 'daily|acme/customer=c-1', value }], cursor: '1-1', more: false }));
  after(() => stub.close());
  const logged: string[] = [];
  const spendfuse = new Spendfuse({ url: stub.url, mode: 'watch', onUnavailable: 'block', log: (message) => logged.push(message) });
  after(() => spendfuse.shutdown());
  assert.equal((await spendfuse.check({ customer: 'c-2' })).decision, 'block');
  assert.ok(logged.some((message) => message.includes('older than this SDK')), logged.join());
});

test('a process that watches ends when it has nothing else to do', async () => {
  const blocklist = await new Blocklist().start();
  blocklist.block('c-1');
  const script = `import { check } from 'spendfuse'; console.log((await check({ customer: 'c-1' })).decision); await new Promise((then) => setTimeout(then, 100));`;
  const env = { ...process.env, SPENDFUSE_URL: blocklist.stub.url, SPENDFUSE_MODE: 'watch' };
  const began = performance.now();
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], { env, stdio: ['ignore', 'pipe', 'inherit'], timeout: 10_000 });
  let said = '';
  child.stdout.on('data', (data) => (said += data));
  const code = await new Promise((resolve) => child.on('close', resolve));
  assert.deepEqual([code, said], [0, 'block\n']);
  assert.ok(performance.now() - began < 4_000);
});

test('a mode that does not exist is refused', () => {
  assert.throws(() => new Spendfuse({ mode: 'wach' as 'watch' }), (error) => error instanceof SpendfuseError && error.message.includes("'check' or 'watch'"));
});
