// The commonest faults of such SDKs, as their users have reported them: each is a test here.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import Anthropic from '@anthropic-ai/sdk';
import { GoogleGenAI } from '@google/genai';
import OpenAI from 'openai';
import { BudgetExceededError, Spendfuse, SpendfuseError, type WrapOptions } from 'spendfuse';
import { parts } from './parts.mjs';
import { blocked, json, SAID, serve, textOf, type Told, told } from './stub.mjs';

const messages = [{ role: 'user' as const, content: 'x' }];
const ask = { model: 'gpt-4o', messages };
const say = { model: 'claude-sonnet-4-5', max_tokens: 100, messages };

test('raw responses of streams are streams, and are metered (opentelemetry-python-contrib 4032, azure-sdk-for-python 48646)', async () => {
  const { side, openai, anthropic, upstream } = await parts({ provider: { pieceBytes: 5 } });
  const raw = await openai.chat.completions.create({ ...ask, stream: true, stream_options: { include_usage: true } }).asResponse();
  assert.equal(await raw.text(), upstream.sent[0]);
  const { data, response } = await anthropic.messages.create({ ...say, stream: true }).withResponse();
  assert.equal(response.status, 200);
  for await (const _ of data);
  assert.equal((await told(side, 2)).length, 2);
});

test('a stream is of the same class as without, can be cancelled and iterated (openinference 3577)', async () => {
  const { openai, bare, anthropic } = await parts();
  const stream = await openai.chat.completions.create({ ...ask, stream: true });
  assert.equal(stream.constructor, (await bare.chat.completions.create({ ...ask, stream: true })).constructor);
  assert.ok(stream.controller instanceof AbortController);
  assert.ok(openai instanceof OpenAI && anthropic instanceof Anthropic);
  assert.equal(openai.constructor, OpenAI);
  assert.deepEqual(Object.keys(openai).sort(), Object.keys(bare).sort());
  const [one, other] = stream.tee();
  assert.equal(await textOf(one, (chunk) => chunk.choices[0]?.delta.content), SAID);
  assert.equal(await textOf(other, (chunk) => chunk.choices[0]?.delta.content), SAID);
});

for (const lineEnd of ['\n', '\r\n', '\r']) {
  for (const pieceBytes of [1, 3, 1_000_000]) {
    test(`streams pass byte for byte, lines ending in ${JSON.stringify(lineEnd)}, ${pieceBytes} bytes at once`, async () => {
      const { side, spendfuse, upstream } = await parts({ provider: { lineEnd, pieceBytes } });
      const guarded = spendfuse.wrap(fetch);
      const post = (path: string, body: object) => guarded(upstream.url + path, { method: 'POST', body: JSON.stringify(body) });
      const seen = [];
      seen.push(await (await post('/v1/chat/completions', { ...ask, stream: true, stream_options: { include_usage: true } })).text());
      seen.push(await (await post('/v1/messages', { ...say, stream: true })).text());
      seen.push(await (await post('/v1/responses', { model: 'gpt-4o', input: 'x', stream: true })).text());
      seen.push(await (await post('/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse', {})).text());
      assert.deepEqual(seen, upstream.sent);
      const events = await told(side, 4);
      assert.deepEqual(events.map((event) => event['usage_format']).sort(), ['anthropic.messages', 'gemini', 'openai.chat', 'openai.responses']);
      assert.equal(events.find((event) => event['usage_format'] === 'anthropic.messages')!['usage'].output_tokens, 100);
    });
  }
}

test('usage that the app did not ask for is taken out again, all else is as it was sent (headroom 2026)', async () => {
  const { side, spendfuse, upstream } = await parts({ provider: { pieceBytes: 11 } });
  const body = JSON.stringify({ ...ask, stream: true });
  const text = await (await spendfuse.wrap(fetch)(`${upstream.url}/v1/chat/completions`, { method: 'POST', body })).text();
  assert.ok(upstream.requests[0]!.body.includes('"include_usage":true'));
  const [whole, left] = [upstream.sent[0]!, text].map((sent) => sent.split('\n\n')) as [string[], string[]];
  assert.deepEqual(left, whole.filter((event) => !event.includes('"choices":[]')));
  assert.equal((await told(side, 1))[0]!['usage'].completion_tokens, 100);
});

for (const refusalStatus of [400, 422]) {
  test(`an upstream that refuses to be asked for usage (${refusalStatus}) is asked without, at once and from then on`, async () => {
    const { side, openai, upstream } = await parts({ provider: { refusesStreamOptions: true, refusalStatus } });
    for (let call = 0; call < 2; call += 1) {
      assert.equal(await textOf(await openai.chat.completions.create({ ...ask, stream: true }), (chunk) => chunk.choices[0]?.delta.content), SAID);
    }
    assert.equal(upstream.requests.length, 3);
    const events = await told(side, 2);
    assert.ok(events.every((event) => event['usage_format'] === 'estimated' && event['usage'].output_tokens > 0));
  });
}

test('a refusal of something else that mentions the question for usage does not end it', async () => {
  // The repeat without the question is refused as well: the question was not at fault.
  let refusals = 2;
  const upstream = await serve((_, response) => {
    if (refusals-- > 0) return json(response, 400, { error: { message: 'no such model; stream_options was ignored' } });
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.end('data: {"id":"c","model":"gpt-4o","choices":[],"usage":{"prompt_tokens":1000}}\n\ndata: [DONE]\n\n');
  });
  after(() => upstream.close());
  const { side, spendfuse } = await parts();
  const openai = spendfuse.wrap(new OpenAI({ apiKey: 'k', baseURL: `${upstream.url}/v1`, maxRetries: 0 }));
  await assert.rejects(openai.chat.completions.create({ ...ask, stream: true }), /stream_options was ignored/);
  await textOf(await openai.chat.completions.create({ ...ask, stream: true }), () => '');
  const asked = upstream.requests.map(({ body }) => body.includes('"include_usage":true'));
  assert.deepEqual(asked, [true, false, true]);
  const [event] = (await told(side, 1)) as [Told];
  assert.deepEqual([event['usage_format'], event['usage']], ['openai.chat', { prompt_tokens: 1000 }]);
});

/** What is told of a call that is answered with `pieces`: as a stream, where there are several. */
async function unitsOf(of: Awaited<ReturnType<typeof parts>>, path: string, ...pieces: object[]): Promise<Told> {
  const streams = pieces.length > 1;
  const body = streams ? pieces.map((piece) => `data: ${JSON.stringify(piece)}\n\n`).join('') : JSON.stringify(pieces[0]);
  const headers = { 'content-type': streams ? 'text/event-stream' : 'application/json' };
  const before = of.side.events.size;
  const guarded = of.spendfuse.wrap((async () => new Response(body, { headers })) as typeof fetch);
  assert.equal(await (await guarded(`https://api.openai.com${path}`, { method: 'POST', body: JSON.stringify({ model: 'gpt-4o', stream: streams }) })).text(), body);
  return (await told(of.side, before + 1)).at(-1)!['units'] as Told;
}

test('tools that OpenAI runs are told once, where its usage does not count them', async () => {
  const of = await parts();
  const usage = { input_tokens: 1000, output_tokens: 100 };
  const output = [
    { type: 'web_search_call', id: 'ws_1', action: { type: 'search', query: 'secret' } },
    { type: 'web_search_call', id: 'ws_2', action: { type: 'open_page', url: 'secret' } },
    { type: 'web_search_call', id: 'ws_3', action: { type: 'find_in_page' } },
    { type: 'web_search_call', id: 'ws_4' },
    { type: 'file_search_call', id: 'fs_1' },
    { type: 'code_interpreter_call', id: 'ci_1', container_id: 'c-1' },
    { type: 'code_interpreter_call', id: 'ci_2', container_id: 'c-1' },
    { type: 'message', id: 'm' },
  ];
  const whole = { id: 'resp_1', model: 'gpt-4o', status: 'completed', output, usage };
  const found = { web_search_calls: '2', file_search_calls: '1', code_interpreter_calls: '1' };
  assert.deepEqual(await unitsOf(of, '/v1/responses', whole), found);
  const added = output.map((item, output_index) => ({ type: 'response.output_item.added', output_index, item }));
  const done = added.map((piece) => ({ ...piece, type: 'response.output_item.done' }));
  // Some servers name their items anew at the end.
  const namedAnew = output.map((item, at) => ({ ...item, id: `other-${at}` }));
  const completed = { type: 'response.completed', response: { ...whole, id: 'resp_2', output: namedAnew } };
  assert.deepEqual(await unitsOf(of, '/v1/responses', ...added, ...done, completed), found);
  // Cut before its end: what was searched by then is billed.
  assert.deepEqual(await unitsOf(of, '/v1/responses', added[0]!, done[0]!, added[3]!), { web_search_calls: '1' });
  for (const name of ['server_side_tool_usage_details', 'server_tool_use']) {
    const counted = { ...whole, id: name, usage: { ...usage, [name]: { web_search_calls: 2 } } };
    assert.equal(await unitsOf(of, '/v1/responses', counted), undefined);
  }
  assert.equal(await unitsOf(of, '/v1/responses', { ...whole, id: 'resp_3', output: output.slice(-1) }), undefined);
  of.spendfuse.addUsage({ ...whole, id: 'resp_4' });
  assert.deepEqual((await told(of.side, 7)).at(-1)!['units'], found);
  assert.ok(!of.side.received.join('').includes('secret'));
});

for (const [model, expected] of Object.entries({ 'gemini-2.5-flash': '1', 'gemini-1.5-pro-002': '1', 'gemini-3-pro-preview': '2', 'gemini-3.5-flash': '2' })) {
  test(`searches that ${model} runs are told: ${expected} for two queries`, async () => {
    const of = await parts();
    const path = `/v1beta/models/${model}:`;
    const piece = (responseId: string, ...webSearchQueries: string[]) => ({
      responseId,
      modelVersion: model,
      candidates: [{ content: { role: 'model', parts: [{ text: 'Hello' }] }, groundingMetadata: { webSearchQueries } }],
      usageMetadata: { promptTokenCount: 1000, candidatesTokenCount: 100 },
    });
    const found = { web_search_calls: expected };
    assert.deepEqual(await unitsOf(of, `${path}generateContent`, piece('r-1', 'secret', 'other')), found);
    assert.deepEqual(await unitsOf(of, `${path}streamGenerateContent`, piece('r-2'), piece('r-2', 'secret'), piece('r-2', 'secret', 'other')), found);
    assert.equal(await unitsOf(of, `${path}generateContent`, piece('r-3')), undefined);
    of.spendfuse.addUsage(piece('r-4', 'secret', 'other'));
    assert.deepEqual((await told(of.side, 4)).at(-1)!['units'], found);
    assert.ok(!of.side.received.join('').includes('secret'));
  });
}

test('streams are passed on as they come, one piece for each that is asked for', async () => {
  const { spendfuse, upstream } = await parts({ provider: { pieceBytes: 40, pauseMs: 15 } });
  const began = performance.now();
  const answer = await spendfuse.wrap(fetch)(`${upstream.url}/v1/messages`, { method: 'POST', body: JSON.stringify({ ...say, stream: true }) });
  const reader = answer.body!.getReader();
  await reader.read();
  const first = performance.now() - began;
  while (!(await reader.read()).done);
  assert.ok(first * 2 < performance.now() - began, `first piece after ${first} ms`);
});

for (const [name, leave] of Object.entries({
  'is left by break': async (openai: OpenAI) => {
    for await (const _ of await openai.chat.completions.create({ ...ask, stream: true })) break;
  },
  'is aborted': async (openai: OpenAI) => {
    const stream = await openai.chat.completions.create({ ...ask, stream: true });
    stream.controller.abort();
    for await (const _ of stream);
  },
})) {
  test(`a stream that ${name} is charged by estimate (litellm 33736)`, async () => {
    const { side, openai } = await parts({ provider: { pieceBytes: 120, pauseMs: 5 } });
    await leave(openai).catch(() => {});
    const [event] = (await told(side, 1)) as [Told];
    assert.equal(event['usage_format'], 'estimated');
    assert.ok(event['usage'].input_tokens > 0);
    assert.equal(event['reservation_id'], 'stub.1-1');
  });
}

test('a stream that breaks off raises as without, and is charged by estimate; its input is exact where it was told', async () => {
  const { side, anthropic } = await parts({ provider: { breaksOff: true } });
  const stream = await anthropic.messages.create({ ...say, stream: true });
  await assert.rejects(async () => {
    for await (const _ of stream);
  });
  const [event] = (await told(side, 1)) as [Told];
  assert.deepEqual([event['usage_format'], event['usage'].input_tokens, event['id'].endsWith('of-call-1')], ['estimated', 1000, true]);
});

test('each attempt of a client is a call of its own; failed ones cost nothing and hold nothing', async () => {
  const { side, openai, upstream } = await parts({ provider: { failFirst: 2 } });
  await openai.chat.completions.create(ask);
  const events = await told(side, 1);
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.deepEqual([upstream.requests.length, side.checks.length, events.length], [3, 3, 1]);
  assert.deepEqual(side.released.sort(), ['stub.1-1', 'stub.1-2']);
});

test('wrapped twice is guarded once, by the later options', async () => {
  const { side, spendfuse, upstream } = await parts();
  const twice = spendfuse.wrap(spendfuse.wrap(new OpenAI({ apiKey: 'k', baseURL: `${upstream.url}/v1` }), { customer: 'one', feature: 'f' }), { customer: 'two' });
  await twice.chat.completions.create(ask);
  const google = new GoogleGenAI({ apiKey: 'k', httpOptions: { baseUrl: upstream.url } });
  spendfuse.wrap(google, { customer: 'one' });
  await spendfuse.wrap(google, { customer: 'two' }).models.generateContent({ model: 'gemini-2.5-flash', contents: 'x' });
  const events = await told(side, 2);
  assert.equal(side.checks.length, 2);
  assert.deepEqual(events.map((event) => event['customer']), ['two', 'two']);
  assert.equal(events[0]!['feature'], 'f');
});

test("Google's own retries do not try a refusal again, and share one hold", async () => {
  const refused = await parts({ sidecar: { decide: () => blocked() } });
  const retryOptions = { attempts: 3, initialDelay: 0.01 };
  const google = (of: typeof refused) => of.spendfuse.wrap(new GoogleGenAI({ apiKey: 'k', httpOptions: { baseUrl: of.upstream.url, retryOptions } }));
  await assert.rejects(google(refused).models.generateContent({ model: 'gemini-2.5-flash', contents: 'x' }), BudgetExceededError);
  assert.deepEqual([refused.side.checks.length, refused.upstream.requests.length], [1, 0]);
  const failing = await parts({ provider: { failFirst: 1, status: 503 } });
  await google(failing).models.generateContent({ model: 'gemini-2.5-flash', contents: 'x' });
  await told(failing.side, 1);
  assert.deepEqual([failing.side.checks.length, failing.upstream.requests.length], [1, 2]);
});

test('contexts do not leak between calls at once, nor out of asynchronous generators (langfuse 13590, openlit 1369)', async () => {
  const { side, openai, spendfuse } = await parts();
  await Promise.all(
    Array.from({ length: 20 }, (_, at) =>
      spendfuse.context({ customer: `c-${at}`, tags: { outer: '1' } }, async () => {
        await new Promise((resolve) => setTimeout(resolve, 20 - at));
        await spendfuse.context({ session: `s-${at}`, tags: { inner: '2' } }, () => openai.chat.completions.create(ask));
      }),
    ),
  );
  const events = await told(side, 20);
  assert.equal(new Set(events.map((event) => event['customer'])).size, 20);
  for (const event of events) assert.deepEqual([event['session'], event['tags']], [event['customer'].replace('c', 's'), { outer: '1', inner: '2' }]);

  const generate = spendfuse.guard({ customer: 'of-the-generator' }, async function* () {
    for await (const chunk of await openai.chat.completions.create({ ...ask, stream: true })) yield chunk;
  });
  await spendfuse.context({ customer: 'of-the-consumer' }, async () => {
    let isFirst = true;
    for await (const _ of generate()) {
      if (isFirst) await openai.chat.completions.create(ask);
      isFirst = false;
    }
  });
  const [consumer, generator] = (await told(side, 22)).slice(20).map((event) => event['customer']).sort();
  assert.deepEqual([consumer, generator], ['of-the-consumer', 'of-the-generator']);
});

test('by the provider\'s own id a call counts once, whoever else tells of it; of servers of one\'s own it is no identity', async () => {
  const { side, spendfuse } = await parts();
  const chat = { id: 'chatcmpl-1', model: 'm', choices: [], usage: { prompt_tokens: 1, completion_tokens: 1 } };
  const calls: [string, object, WrapOptions, (string | RegExp | undefined)[]][] = [
    ['https://api.openai.com/v1/chat/completions', chat, {}, ['llm:openai', 'chatcmpl-1', 'openai']],
    ['https://api.anthropic.com/v1/messages', { id: 'msg_1', model: 'm', usage: { input_tokens: 1, output_tokens: 1 } }, {}, ['llm:anthropic', 'msg_1', 'anthropic']],
    ['https://generativelanguage.googleapis.com/v1beta/models/m:generateContent', { responseId: 'r', usageMetadata: { promptTokenCount: 1 } }, {}, ['llm:gemini', 'r', 'gemini']],
    ['https://of-mine.openai.azure.com/openai/v1/responses', { ...chat, id: 'resp_1' }, {}, ['llm:azure', 'resp_1', 'azure']],
    ['https://api.openai.com/v1/embeddings', { ...chat, id: undefined }, {}, ['llm:openai', 'of-the-header', 'openai']],
    ['https://gateway.example.com/v1/chat/completions', chat, { provider: 'mistral' }, ['llm:mistral', 'chatcmpl-1', 'mistral']],
    ['https://gateway.example.com/v1/chat/completions', chat, {}, ['spendfuse-sdk:completions', /^[0-9a-f-]{36}-chatcmpl-1$/, undefined]],
    ['http://localhost:11434/v1/chat/completions', chat, { provider: 'ollama' }, ['spendfuse-sdk:ollama', /^[0-9a-f-]{36}-chatcmpl-1$/, 'ollama']],
  ];
  for (const [at, [url, answer, options, wanted]] of calls.entries()) {
    const guarded = spendfuse.wrap((async () => Response.json(answer, { headers: { 'x-request-id': 'of-the-header' } })) as typeof fetch, options);
    assert.deepEqual(await (await guarded(url, { method: 'POST', body: '{"model":"m"}' })).json(), JSON.parse(JSON.stringify(answer)));
    const event = (await told(side, at + 1)).at(-1)!;
    [event['source'], event['id'], event['provider']].forEach((seen, part) => {
      const right = wanted[part];
      assert.ok(right instanceof RegExp ? right.test(seen) : seen === right, `${url}: ${seen}`);
    });
  }
});

test('a response that is made in the background counts when somebody asks for it, at the time of its making', async () => {
  const { side, spendfuse } = await parts();
  const answers = ['queued', 'completed', 'completed'].map((status) => ({ id: 'resp_1', object: 'response', background: true, created_at: 1_700_000_000, status, model: 'm', usage: status === 'queued' ? null : { input_tokens: 1, output_tokens: 1 } }));
  const guarded = spendfuse.wrap((async () => Response.json(answers.shift())) as typeof fetch);
  await (await guarded('https://api.openai.com/v1/responses', { method: 'POST', body: '{"model":"m","background":true}' })).json();
  await new Promise((resolve) => setTimeout(resolve, 30));
  assert.deepEqual([side.events.size, side.released.length], [0, 1]);
  for (let asking = 0; asking < 2; asking += 1) await (await guarded('https://api.openai.com/v1/responses/resp_1')).text();
  const [event] = (await told(side, 1)) as [Told];
  assert.ok(await spendfuse.flush());
  assert.deepEqual([side.events.size, side.checks.length, event['id'], event['time']], [1, 1, 'resp_1', '2023-11-14T22:13:20.000Z']);
});

test('a provider that was never reached costs nothing; one that was, may charge', { timeout: 10_000 }, async () => {
  const { side, spendfuse } = await parts();
  const post = (url: string) => assert.rejects(spendfuse.wrap(fetch)(url, { method: 'POST', body: '{"model":"m"}' }));
  const gone = await serve(() => {});
  await gone.close();
  await post(`${gone.url}/v1/chat/completions`);
  while (side.released.length === 0) await new Promise((resolve) => setTimeout(resolve, 1));
  const silent = await serve((_, response) => void response.destroy());
  after(() => silent.close());
  await post(`${silent.url}/v1/chat/completions`);
  const [event] = (await told(side, 1)) as [Told];
  assert.deepEqual([event['usage_format'], side.released, side.events.size], ['estimated', ['stub.1-1'], 1]);
});

const READS: Record<string, (answer: Response) => unknown> = {
  'by arrayBuffer()': (answer) => answer.arrayBuffer(),
  'by blob()': (answer) => answer.blob(),
  'by a clone': (answer) => answer.clone().json(),
  'piece by piece': (answer) => textOf(answer.body!, () => ''),
  'not at all': () => {},
};
for (const [name, read] of Object.entries(READS)) {
  test(`a whole answer counts that is read ${name}`, async () => {
    const { side, spendfuse, upstream } = await parts();
    await read(await spendfuse.wrap(fetch)(`${upstream.url}/v1/chat/completions`, { method: 'POST', body: JSON.stringify(ask) }));
    assert.deepEqual((await told(side, 1)).map((event) => event['usage'].completion_tokens), [100]);
  });
}

test('a fetch whose answers are of a class of its own does as well: node-fetch', async () => {
  const { side, spendfuse, upstream } = await parts();
  const { default: nodeFetch } = (await import('node-fetch' as string)) as { default: typeof fetch };
  const openai = spendfuse.wrap(new OpenAI({ apiKey: 'k', baseURL: `${upstream.url}/v1`, fetch: nodeFetch }), { provider: 'openai' });
  assert.equal((await openai.chat.completions.create(ask)).choices[0]!.message.content, SAID);
  const guarded = spendfuse.wrap(nodeFetch);
  const body = JSON.stringify({ ...ask, stream: true, stream_options: { include_usage: true } });
  assert.equal(await (await guarded(`${upstream.url}/v1/chat/completions`, { method: 'POST', body })).text(), upstream.sent[0]);
  const events = await told(side, 2);
  assert.deepEqual(events.map((event) => event['usage'].completion_tokens), [100, 100]);
});

test('behind a proxy of spendfuse the proxy tells', async () => {
  const { side, openai } = await parts({ provider: { headers: { 'x-spendfuse-decision': 'allow' } } });
  await openai.chat.completions.create(ask);
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.deepEqual([side.events.size, side.released], [0, ['stub.1-1']]);
});

test('what nobody knows to guard is refused in words; what is no call of a model passes', async () => {
  const { side, spendfuse, openai, upstream } = await parts();
  assert.throws(() => spendfuse.wrap({} as object), (error: Error) => error instanceof SpendfuseError && error.message.includes('not Object'));
  assert.throws(() => new Spendfuse({ url: 'localhost:4117' }), /neither http, https nor unix/);
  await openai.models.list().catch(() => {});
  // OpenAI's Assistants: into a thread, which costs nothing; it is no call of Anthropic's.
  const guarded = spendfuse.wrap((async () => Response.json({ id: 'msg_1' })) as typeof fetch);
  await (await guarded('https://api.openai.com/v1/threads/thread_1/messages', { method: 'POST', body: '{"role":"user","content":"x"}' })).json();
  await new Promise((resolve) => setTimeout(resolve, 30));
  assert.equal(side.events.size, 0);
  assert.deepEqual([upstream.requests.length, side.checks.length], [1, 0]);
});
