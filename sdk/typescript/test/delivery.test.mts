// Events on their way, at the end of a process too, and a sidecar that is not there.

import assert from 'node:assert/strict';
import { mkdtempSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import OpenAI from 'openai';
import { Spendfuse, SpendfuseError, StateUnknownError } from 'spendfuse';
import { parts, run } from './parts.mjs';
import { blocked, json, provider, serve, sidecar, textOf, type Told, told } from './stub.mjs';

const ask = { model: 'gpt-4o', messages: [{ role: 'user' as const, content: 'x' }] };

const TRACKING = `import { track } from 'spendfuse'; for (let at = 0; at < 250; at++) track({ id: 'e-' + at, model: 'gpt-4o', usage: { input_tokens: 1 } });`;

for (const [name, end] of Object.entries({ 'ends by itself': '', 'calls process.exit()': 'process.exit(0);', throws: 'throw new Error("x");' })) {
  test(`what is tracked is delivered when the process ${name} (langfuse 4392)`, async () => {
    const { side } = await parts();
    const { said } = await run(TRACKING + end, { SPENDFUSE_URL: side.url });
    assert.equal(side.events.size, 250, said);
  });
}

test('a process whose sidecar is gone ends all the same, soon, and says what is lost', async () => {
  const { code, ms, said } = await run(TRACKING, { SPENDFUSE_URL: 'http://127.0.0.1:9' });
  assert.equal(code, 0, said);
  assert.ok(ms < 6_000, `${ms} ms`);
  assert.match(said, /250 that the sidecar did not take/);
});

test('importing, wrapping and constructing start nothing: no timer, no socket, no listener (sentry-python 2699)', async () => {
  const script = `
    import { Spendfuse, wrap } from 'spendfuse'; import OpenAI from 'openai';
    const handles = () => process.getActiveResourcesInfo().filter((name) => !/Pipe|TTY|Stream/.test(name)).join();
    const before = handles(); const listeners = process.eventNames().join(); const given = fetch;
    const openai = wrap(new OpenAI({ apiKey: 'k' })); new Spendfuse();
    if (handles() !== before || process.eventNames().join() !== listeners || fetch !== given) { console.log(handles(), process.eventNames()); process.exit(1); }`;
  const { code, said } = await run(script, {});
  assert.equal(code, 0, said);
});

test('a resent batch keeps its ids, whatever becomes of the answers; a bad event does not keep back the good', async () => {
  const { side, spendfuse, logged } = await parts({ sidecar: { faults: ['reset', 503, 'lost', 429, 500] } });
  for (let at = 0; at < 150; at += 1) spendfuse.track({ model: at === 20 ? 'reject-me' : 'gpt-4o', usage: { input_tokens: at } });
  assert.ok(await spendfuse.flush());
  assert.equal(side.events.size, 149);
  const { delivered, rejected, queued, dropped } = spendfuse.statistics;
  assert.deepEqual({ delivered, rejected, queued, dropped }, { delivered: 149, rejected: 1, queued: 0, dropped: 0 });
  assert.ok(logged.some((message) => message.includes('missing_field, of the test')));
});

test('a batch that is too large goes in parts', async () => {
  const taken: number[] = [];
  const stub = await serve((request, response) => {
    const batch = JSON.parse(request.body) as Told[];
    if (batch.length > 30) return void response.writeHead(413).end('{}');
    taken.push(batch.length);
    response.writeHead(202).end(JSON.stringify({ accepted: batch.length, rejected: 0, results: batch.map((event, index) => ({ index, id: event['id'], status: 'accepted' })) }));
  });
  after(() => stub.close());
  const spendfuse = new Spendfuse({ url: stub.url });
  for (let at = 0; at < 100; at += 1) spendfuse.track({ model: 'm', usage: { input_tokens: 1 } });
  assert.ok(await spendfuse.flush());
  assert.equal(taken.reduce((sum, count) => sum + count), 100);
});

test('where one event at a time is taken, none is sent with a hundred again and again', async () => {
  const stub = await serve((request, response) => {
    const batch = JSON.parse(request.body) as Told[];
    if (batch.length > 1) return void response.writeHead(413).end('{}');
    response.writeHead(202).end(JSON.stringify({ accepted: 1, rejected: 0, results: [{ index: 0, id: batch[0]!['id'], status: 'accepted' }] }));
  });
  after(() => stub.close());
  const spendfuse = new Spendfuse({ url: stub.url });
  for (let at = 0; at < 100; at += 1) spendfuse.track({ model: 'm', usage: { input_tokens: 1 } });
  assert.ok(await spendfuse.flush());
  assert.ok(stub.requests.length < 250, `${stub.requests.length} requests`);
});

test('the queue is bounded; tracking never throws, never waits', async () => {
  const logged: string[] = [];
  const spendfuse = new Spendfuse({ url: 'http://127.0.0.1:9', maxQueue: 100, log: (message) => logged.push(message) });
  const circular: Record<string, unknown> = {};
  circular['self'] = circular;
  const began = performance.now();
  for (let at = 0; at < 1_000; at += 1) spendfuse.track({ model: 'm', usage: { input_tokens: 1 } });
  spendfuse.track({ model: 'm', usage: circular });
  spendfuse.track({} as never);
  spendfuse.track(null as never);
  spendfuse.addUsage(undefined);
  spendfuse.addUsage(7);
  assert.ok(performance.now() - began < 500);
  assert.deepEqual([spendfuse.statistics.queued, spendfuse.statistics.dropped], [100, 901]);
  // Once a minute for each kind, however often.
  assert.equal(logged.filter((message) => message.includes('dropped')).length, 1);
  assert.equal(await spendfuse.shutdown(50), false);
});

test('serverless: waitUntil gets a promise that is settled when the event is safe (posthog-js 3187)', async () => {
  const waited: Promise<unknown>[] = [];
  const { side, openai, spendfuse } = await parts({ options: { flushIntervalMs: 60_000 }, wrap: { waitUntil: (promise) => waited.push(promise) } });
  await openai.chat.completions.create(ask);
  while (waited.length === 0) await new Promise((resolve) => setTimeout(resolve, 1));
  await Promise.all(waited);
  assert.equal(side.events.size, 1);
  const own: Promise<unknown>[] = [];
  spendfuse.context({}, () => spendfuse.track({ model: 'm', usage: { input_tokens: 1 } }), { waitUntil: (promise) => own.push(promise) });
  await Promise.all(own);
  assert.deepEqual([own.length, side.events.size], [1, 2]);
});

test('without a sidecar calls go ahead, and after three failures without waiting', async () => {
  const silent = await serve(() => {});
  const upstream = await provider();
  after(() => Promise.all([silent.close(), upstream.close()]));
  const logged: string[] = [];
  const spendfuse = new Spendfuse({ url: silent.url, log: (message) => logged.push(message) });
  const openai = spendfuse.wrap(new OpenAI({ apiKey: 'k', baseURL: `${upstream.url}/v1` }), { reserve: false });
  const began = performance.now();
  await openai.chat.completions.create(ask);
  const first = performance.now() - began;
  assert.ok(first >= 50 && first < 1_000, `${first} ms`);
  for (let call = 1; call < 8; call += 1) await openai.chat.completions.create(ask);
  // One more where this took longer than the pause.
  assert.ok(silent.requests.length === 3 || silent.requests.length === 4, `asked ${silent.requests.length} times`);
  assert.equal(spendfuse.statistics.unavailable, 8);
  assert.equal(logged.filter((message) => message.includes('no answer from the sidecar, calls go ahead')).length, 1);

  const strict = spendfuse.wrap(openai, { onUnavailable: 'block' });
  await assert.rejects(strict.chat.completions.create(ask), StateUnknownError);
  assert.equal(upstream.requests.length, 8);
});

test('a breaker that is open asks again after a while, by one call', async () => {
  let isThere = false;
  let asked = 0;
  const stub = await serve((_, response) => {
    asked += 1;
    if (!isThere) return void response.destroy();
    response.writeHead(200).end('{"decision":"allow","budgets":[],"warnings":[],"reservation_id":null}');
  });
  after(() => stub.close());
  const spendfuse = new Spendfuse({ url: stub.url, log: () => {} });
  for (let call = 0; call < 10; call += 1) assert.equal((await spendfuse.check({ customer: 'c' })).state, 'unavailable');
  assert.equal(asked, 3);
  isThere = true;
  await new Promise((resolve) => setTimeout(resolve, 550));
  assert.equal((await spendfuse.check({ customer: 'c' })).decision, 'allow');
  assert.equal(asked, 4);
});

test('an app that keeps the loop busy is not taken for a sidecar that is away', async () => {
  const { side, spendfuse } = await parts();
  const busy = (ms: number): void => {
    for (const until = performance.now() + ms; performance.now() < until; );
  };
  const timer = setInterval(() => busy(120), 1);
  const decisions = await Promise.all(Array.from({ length: 5 }, () => spendfuse.check({ customer: 'c' })));
  clearInterval(timer);
  assert.deepEqual([decisions.map((decision) => decision.state), side.checks.length], [Array(5).fill('live'), 5]);
});

test('a Unix socket does as well', async () => {
  const path = join(mkdtempSync(join(tmpdir(), 'sf-')), 's');
  const side = await sidecar({ listen: path });
  after(() => side.close());
  const spendfuse = new Spendfuse({ url: `unix:${path}` });
  assert.equal((await spendfuse.check({ customer: 'c' })).decision, 'allow');
  spendfuse.track({ model: 'm', usage: { input_tokens: 1 } });
  assert.ok(await spendfuse.flush());
  assert.deepEqual([side.checks.length, side.events.size, side.requests[0]!.headers.host], [1, 1, 'localhost']);
});

test('SPENDFUSE_DISABLED: nothing is asked, nothing is told, calls pass as they are', async () => {
  const { side, openai, spendfuse, upstream } = await parts({ options: { disabled: true } });
  await openai.chat.completions.create(ask);
  await textOf(await openai.chat.completions.create({ ...ask, stream: true }), () => '');
  spendfuse.track({ model: 'm', usage: {} });
  assert.equal((await spendfuse.check({})).state, 'disabled');
  assert.ok(await spendfuse.flush());
  assert.deepEqual([side.requests.length, upstream.requests.length, upstream.requests[1]!.body.includes('include_usage')], [0, 2, false]);
});

test('a runtime that has fetch and nothing else: guarded, metered, told', async () => {
  const { side, upstream } = await parts({ sidecar: { decide: ({ customer }) => (customer === 'c-2' ? blocked() : {}) } });
  const script = `import { Spendfuse } from 'spendfuse';
    const spendfuse = new Spendfuse();
    const ask = (customer) => spendfuse.wrap(fetch, { customer })('${upstream.url}/v1/messages', { method: 'POST', body: '{"model":"claude-sonnet-4-5","stream":true}' });
    await (await spendfuse.context({}, () => ask('c-1'))).text();
    const refused = await ask('c-2').catch((error) => error.name);
    spendfuse.track({ model: 'm', usage: { input_tokens: 1 } });
    const { warnings } = await new Spendfuse({ url: 'unix:/x', log: () => {} }).check({ customer: 'c' });
    console.log(refused, await spendfuse.flush(), warnings[0].message);`;
  const { said } = await run(script, { SPENDFUSE_URL: side.url, NODE_OPTIONS: '--conditions=workerd' });
  assert.match(said.trim(), /^BudgetExceededError true .*this runtime has no Unix sockets/);
  assert.deepEqual([...side.events.values()].map((event) => event['usage'].output_tokens), [100, undefined]);
});

test('an answer of a sidecar is read however it comes, and is not one of another question', async () => {
  const answers = ['HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=1\r\n{"dec\r\nE\r\nision":"warn"}\r\n0\r\n\r\n', 'HTTP/1.1 200 OK\r\ncontent-length: 19\r\nconnection: close\r\n\r\n{"decision":"warn"}', 'HTTP/1.1 429 \r\nContent-Length: 0\r\n\r\n', 'nonsense\r\n\r\n'];
  let connections = 0;
  const server = net.createServer((socket) => {
    connections += 1;
    // Byte by byte on the wire, too.
    socket.setNoDelay(true);
    socket.on('error', () => {});
    socket.on('data', async () => {
      for (const byte of answers.shift() ?? '') {
        socket.write(byte);
        await new Promise((resolve) => setImmediate(resolve));
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  after(() => server.close());
  const spendfuse = new Spendfuse({ url: `http://127.0.0.1:${(server.address() as net.AddressInfo).port}`, timeoutMs: 1_000, log: () => {} });
  const check = () => spendfuse.check({ customer: 'c' });
  assert.equal((await check()).decision, 'warn');
  assert.equal((await check()).decision, 'warn');
  assert.equal(connections, 1);
  await assert.rejects(check(), SpendfuseError);
  assert.equal(connections, 2);
  assert.equal((await check()).state, 'unavailable');
});

test('many calls that fail together are one failure: a sidecar that is back is asked again soon', async () => {
  const gone = await serve(() => {});
  await gone.close();
  const spendfuse = new Spendfuse({ url: gone.url, log: () => {} });
  await Promise.all(Array.from({ length: 60 }, () => spendfuse.check({ customer: 'c' })));
  const side = await sidecar({ listen: Number(new URL(gone.url).port) });
  after(() => side.close());
  await new Promise((resolve) => setTimeout(resolve, 600));
  assert.equal((await spendfuse.check({ customer: 'c' })).state, 'live');
});

test('calls that wait for a connection do not wait once a sidecar is known to hang', async () => {
  const silent = await serve(() => {});
  after(() => silent.close());
  const spendfuse = new Spendfuse({ url: silent.url, reserveTimeoutMs: 300, log: () => {} });
  const began = performance.now();
  await Promise.all(Array.from({ length: 640 }, () => spendfuse.check({ reserve: true, estimatedCostUsd: '1' })));
  // By turns of 64 it would be ten times as long.
  assert.ok(performance.now() - began < 1_500, `${performance.now() - began} ms`);
  assert.ok(silent.requests.length < 128, `asked ${silent.requests.length} times`);
});

test('an event that is told in the moment in which all others are sent is sent, too', async () => {
  for (let turns = 0; turns < 6; turns += 1) {
    let isFirst = true;
    const side = await sidecar();
    after(() => side.close());
    const log = async (): Promise<void> => {
      if (!isFirst) return;
      isFirst = false;
      for (let turn = 0; turn < turns; turn += 1) await undefined;
      spendfuse.track({ id: 'late', model: 'm', usage: { input_tokens: 1 } });
    };
    const spendfuse = new Spendfuse({ url: side.url, flushIntervalMs: 1, log: () => void log() });
    spendfuse.track({ model: 'reject-me', usage: { input_tokens: 1 } });
    assert.equal((await told(side, 1)).length, 1, `after ${turns} turns`);
  }
});

test('what is told while a process ends is told, and calls under way are charged by estimate', async () => {
  const { side, upstream } = await parts({ provider: { pieceBytes: 60, pauseMs: 20 } });
  const late = `import { track } from 'spendfuse'; const tell = (id) => track({ id, model: 'm', usage: { input_tokens: 1 } });
    tell('a'); process.once('beforeExit', () => setTimeout(() => tell('b'), 200));`;
  assert.deepEqual(await run(late, { SPENDFUSE_URL: side.url }).then(({ code, said }) => [code, said]), [0, '']);
  assert.deepEqual([...side.events.values()].map((event) => event['id']), ['a', 'b']);
  const open = `import { wrap } from 'spendfuse';
    const { body } = await wrap(fetch)('${upstream.url}/v1/messages', { method: 'POST', body: '{"model":"m","stream":true}' });
    await body.getReader().read(); process.exit(0);`;
  await run(open, { SPENDFUSE_URL: side.url });
  const [event] = [...side.events.values()].slice(2) as [Told];
  assert.deepEqual([event['usage_format'], event['reservation_id']], ['estimated', 'stub.1-1']);
});

test('whoever makes many keeps few: what is told is forgotten', async () => {
  const side = await sidecar();
  after(() => side.close());
  const script = `import { Spendfuse } from 'spendfuse'; const held = [];
    const one = () => { const made = new Spendfuse({ flushIntervalMs: 1 }); made.track({ model: 'm', usage: { input_tokens: 1 } }); held.push(new WeakRef(made.core.delivery)); };
    for (let at = 0; at < 100; at++) one();
    await new Promise((then) => setTimeout(then, 500)); gc(); await new Promise((then) => setTimeout(then, 50)); gc();
    console.log(held.filter((made) => made.deref()).length < 10);`;
  assert.equal((await run(script, { SPENDFUSE_URL: side.url, NODE_OPTIONS: '--expose-gc' })).said.trim(), 'true');
  assert.equal(side.events.size, 100);
});

test('a stream that is thrown away unread is charged, and gives its connection back', async () => {
  const { side } = await parts();
  let isClosed = false;
  const endless = await serve((_, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' }).write('data: {"choices":[{"delta":{"content":"Hello"}}]}\n\n');
    response.on('close', () => (isClosed = true));
  });
  after(() => endless.close());
  const script = `import { flush, wrap } from 'spendfuse';
    await (async () => { const { body } = await wrap(fetch)('${endless.url}/v1/chat/completions', { method: 'POST', body: '{"model":"m","stream":true}' });
      const reader = body.getReader(); await reader.read(); })();
    for (let at = 0; at < 5; at++) { gc(); await new Promise((then) => setTimeout(then, 50)); }
    await flush(); await new Promise((then) => setTimeout(then, 2_000));`;
  void run(script, { SPENDFUSE_URL: side.url, NODE_OPTIONS: '--expose-gc' });
  assert.equal((await told(side, 1))[0]!['usage_format'], 'estimated');
  for (let at = 0; at < 100 && !isClosed; at += 1) await new Promise((resolve) => setTimeout(resolve, 10));
  assert.ok(isClosed);
});

test('a sidecar may be below a path, at the end of a process too', async () => {
  const paths: string[] = [];
  const stub = await serve((request, response) => {
    paths.push(`${request.method} ${request.path}`);
    response.writeHead(200).end('{"decision":"allow","budgets":[],"warnings":[],"reservation_id":null}');
  });
  after(() => stub.close());
  const script = `import { check, configure, track } from 'spendfuse'; configure({ timeoutMs: 5_000 }); await check({ customer: 'c' }); track({ id: 'a', model: 'm', usage: { input_tokens: 1 } }); process.exit(0);`;
  for (const conditions of ['node', 'workerd']) await run(script, { SPENDFUSE_URL: `${stub.url}/of/spendfuse/`, NODE_OPTIONS: `--conditions=${conditions}` });
  assert.deepEqual(paths, ['POST /of/spendfuse/v1/check', 'POST /of/spendfuse/v1/usage', 'POST /of/spendfuse/v1/check']);
});

test('what nobody has asked for is not the answer to the next question', async () => {
  const answer = (decision: string): string => `HTTP/1.1 200 OK\r\ncontent-length: ${decision.length + 15}\r\n\r\n{"decision":"${decision}"}`;
  let asked = 0;
  const server = net.createServer((socket) => {
    socket.unref();
    socket.on('error', () => {});
    socket.on('data', () => {
      asked += 1;
      socket.write(answer(asked === 1 ? 'warn' : 'block'));
      if (asked === 1) setTimeout(() => socket.write(answer('allow')), 30);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  after(() => server.close());
  const spendfuse = new Spendfuse({ url: `http://127.0.0.1:${(server.address() as net.AddressInfo).port}`, timeoutMs: 1_000, log: () => {} });
  assert.equal((await spendfuse.check()).decision, 'warn');
  await new Promise((resolve) => setTimeout(resolve, 80));
  assert.equal((await spendfuse.check()).decision, 'block');
});

for (const wait of [0, 200]) {
  test(`a sidecar that takes connections and never answers holds up the end of a process for two seconds (${wait} ms on)`, async () => {
    const hanging = await serve(() => {});
    after(() => hanging.close());
    const script = `import { configure, track } from 'spendfuse'; configure({ flushIntervalMs: 1 }); track({ id: 'a', model: 'm', usage: { input_tokens: 1 } }); await new Promise((resolve) => setTimeout(resolve, ${wait}));`;
    const { ms, said } = await run(script, { SPENDFUSE_URL: hanging.url });
    assert.ok(ms < 5_000, `${ms} ms`);
    assert.ok(said.includes('events are lost'), said);
  });
}

test('a sidecar that is slow gets all that waits when a process ends', async () => {
  const taken = new Set<string>();
  const slow = await serve((request, response) => {
    setTimeout(() => {
      const results = (JSON.parse(request.body) as { id: string }[]).map(({ id }, index) => (taken.add(id), { index, id, status: 'accepted' }));
      json(response, 202, { results });
    }, 400);
  });
  after(() => slow.close());
  const script = `import { track } from 'spendfuse'; for (let at = 0; at < 800; at++) track({ id: 'e-' + at, model: 'm', usage: { input_tokens: 1 } });`;
  const { said } = await run(script, { SPENDFUSE_URL: slow.url });
  assert.equal(taken.size, 800, said);
});

test('an answer of 202 that says nothing more is taken for what it is', async () => {
  let count = 0;
  const terse = await serve((_, response) => (count++, json(response, 202, {})));
  after(() => terse.close());
  const spendfuse = new Spendfuse({ url: terse.url, log: () => {} });
  spendfuse.track({ id: 'a', model: 'm', usage: { input_tokens: 1 } });
  assert.ok(await spendfuse.flush(2_000));
  assert.deepEqual([count, spendfuse.statistics.delivered], [1, 1]);
});
