// What calls have cost in the corners: cut before they were sent, made in the background, read by other means.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { createOpenAI } from '@ai-sdk/openai';
import { streamText } from 'ai';
import OpenAI from 'openai';
import { BudgetExceededError } from 'spendfuse';
import { Seen } from '../dist/esm/answer.js';
import { routeOf } from '../dist/esm/route.js';
import { dataOf } from '../dist/esm/sse.js';
import { parts } from './parts.mjs';
import { blocked, type Told, told } from './stub.mjs';

const messages = [{ role: 'user' as const, content: 'x' }];
const aWhile = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 50));
const post = (body: object, more: RequestInit = {}): RequestInit => ({ method: 'POST', body: JSON.stringify(body), ...more });
const events = (...pieces: object[]): Response =>
  new Response(pieces.map((piece) => `data: ${JSON.stringify(piece)}\n\n`).join(''), { headers: { 'content-type': 'text/event-stream' } });

/** A `fetch` that gives these answers, guarded. */
async function answering(...answers: Response[]) {
  const of = await parts();
  return { ...of, guarded: of.spendfuse.wrap((async () => answers.shift()!) as typeof fetch, { customer: 'c-42' }) };
}

test('sizes are bytes, in whatever language', async () => {
  const { side, openai } = await parts();
  await openai.chat.completions.create({ model: 'm', messages: [{ role: 'user', content: '漢é😀'.repeat(400) }] });
  const asked = side.checks[0]!['estimate'].input_tokens;
  assert.ok(asked >= 900 && asked < 930, `${asked} tokens for 3,600 bytes`);
  await told(side, 1);
  const { guarded, side: other } = await answering(events({ choices: [{ delta: { content: '漢'.repeat(400) } }] }));
  await (await guarded('https://api.openai.com/v1/chat/completions', post({ model: 'm', stream: true }))).text();
  assert.equal((await told(other, 1))[0]!['usage'].output_tokens, 300);
});

test('to count tokens is no call, at Vertex too', async () => {
  const { side, guarded } = await answering(Response.json({ input_tokens: 5 }), Response.json({ input_tokens: 5 }));
  const vertex = 'https://us-east5-aiplatform.googleapis.com/v1/projects/p/locations/l/publishers/anthropic/models/count-tokens:rawPredict';
  for (const url of [vertex, 'https://api.anthropic.com/v1/messages/count_tokens?beta=true']) await (await guarded(url, post({ messages }))).json();
  await aWhile();
  assert.deepEqual([side.checks.length, side.events.size], [0, 0]);
});

test('a call that is given up while it is asked for was not made', async () => {
  const { side, spendfuse, upstream } = await parts({ sidecar: { slowMs: 30 } });
  const giving = new AbortController();
  setTimeout(() => giving.abort(), 5);
  await assert.rejects(spendfuse.wrap(fetch)(`${upstream.url}/v1/chat/completions`, post({ model: 'm' }, { signal: giving.signal })), { name: 'AbortError' });
  await new Promise((resolve) => setTimeout(resolve, 150));
  assert.deepEqual([upstream.requests.length, side.events.size, side.released], [0, 0, ['stub.1-1']]);
});

test('an answer that is not at its end and not made in the background is charged, by estimate', async () => {
  const { side, guarded } = await answering(Response.json({ id: 'resp_1', model: 'm', status: 'in_progress', background: false, usage: null }));
  await (await guarded('https://api.openai.com/v1/responses', post({ model: 'm', input: 'x'.repeat(400) }))).json();
  const [event] = (await told(side, 1)) as [Told];
  assert.deepEqual([event['id'], event['usage_format'], event['reservation_id'], side.released], ['resp_1', 'estimated', 'stub.1-1', []]);
  assert.ok(event['usage'].input_tokens > 100);
});

test('a stream of what is made in the background counts once it is complete, also where it is taken up again', async () => {
  const whole = { id: 'resp_1', object: 'response', background: true, created_at: 1_700_000_000, model: 'm' };
  const begun = { type: 'response.created', response: { ...whole, status: 'queued', usage: null } };
  const done = { type: 'response.completed', response: { ...whole, status: 'completed', usage: { input_tokens: 10, output_tokens: 5 } } };
  const { side, guarded, spendfuse } = await answering(events(begun), events(done));
  await (await guarded('https://api.openai.com/v1/responses', post({ model: 'm', background: true, stream: true }))).text();
  await aWhile();
  assert.deepEqual([side.events.size, side.released], [0, ['stub.1-1']]);
  await (await guarded('https://api.openai.com/v1/responses/resp_1?stream=true&starting_after=0')).text();
  const [event] = (await told(side, 1)) as [Told];
  await spendfuse.flush();
  assert.deepEqual([event['id'], event['usage'], event['time'], side.checks.length], ['resp_1', { input_tokens: 10, output_tokens: 5 }, '2023-11-14T22:13:20.000Z', 1]);
});

test('tools that a model wants run are counted, each once', async () => {
  const usage = { input_tokens: 1, output_tokens: 1 };
  const call = (index: number) => ({ index, function: { name: 'secret', arguments: '' } });
  const done = (type: string, output_index: number) => ({ type: 'response.output_item.done', output_index, item: { type } });
  const cut = [{ name: 'secret', willContinue: true }, { willContinue: true }, {}];
  const asked: [string, Response][] = [
    ['https://api.openai.com/v1/chat/completions', Response.json({ choices: [{ index: 0, message: { tool_calls: [{ id: 'a' }, { id: 'b' }] } }], usage: {} })],
    ['https://api.openai.com/v1/chat/completions', events({ choices: [{ index: 0, delta: { tool_calls: [call(0)] } }] }, { choices: [{ index: 0, delta: { tool_calls: [call(0), call(1)] } }] })],
    ['https://api.openai.com/v1/responses', Response.json({ output: [{ type: 'function_call', call_id: 'a' }, { type: 'message' }, { type: 'function_call', call_id: 'b' }], usage })],
    ['https://api.anthropic.com/v1/messages', Response.json({ content: [{ type: 'text' }, { type: 'tool_use' }, { type: 'tool_use' }], usage })],
    ['https://api.anthropic.com/v1/messages', events({ index: 1, content_block: { type: 'tool_use' } }, { index: 2, content_block: { type: 'tool_use' } }, { index: 2, delta: {} })],
    ['https://generativelanguage.googleapis.com/v1beta/models/m:generateContent', Response.json({ candidates: [{ content: { parts: [{ functionCall: { name: 'secret' } }, { text: 'x' }, { functionCall: {} }] } }] })],
    ['https://api.openai.com/v1/responses', events(done('function_call', 0), done('custom_tool_call', 1), done('web_search_call', 2))],
    ['https://api.openai.com/v1/responses', events(done('function_call', 0), { response: { output: [{ type: 'function_call' }, { type: 'custom_tool_call' }, { type: 'mcp_call' }] } })],
    ['https://api.openai.com/v1/responses', Response.json({ output: [{ type: 'shell_call', environment: { type: 'container_reference' } }, { type: 'shell_call' }, { type: 'computer_call' }], usage })],
    ['https://api.openai.com/v1/chat/completions', events(...[0, 0, 1].map((index) => ({ choices: [{ index, delta: { function_call: { name: 'secret' } } }] })))],
    ['https://generativelanguage.googleapis.com/v1beta/models/m:streamGenerateContent?alt=sse', events(...[...cut, ...cut].map((functionCall) => ({ candidates: [{ content: { parts: [{ functionCall }] } }] })))],
  ];
  const { side, guarded } = await answering(...asked.map(([, answer]) => answer), Response.json({ choices: [], usage: {} }));
  for (const [url] of asked) await (await guarded(url, post({ model: 'm', stream: true, stream_options: { include_usage: true } }))).text();
  await (await guarded(asked[0]![0], post({ model: 'm' }))).json();
  const counted = (await told(side, asked.length + 1)).map((event) => event['tool_calls']);
  assert.deepEqual(counted, [...asked.map(() => 2), undefined]);
  assert.ok(!side.received.join('').includes('secret'));
});

const schemas = process.env['SPENDFUSE_SCHEMAS'] ?? new URL('../../../schemas', import.meta.url).pathname;

test('prompts are told as fingerprints, those of the shared vectors, where a key is set', async () => {
  const { request: vectors } = JSON.parse(readFileSync(`${schemas}/fingerprint-vectors.json`, 'utf8')) as { request: { key: string; request: object; fingerprint: string | null }[] };
  assert.ok(vectors.length > 10);
  const { side, spendfuse } = await parts({ options: { fingerprintKey: vectors[0]!.key } });
  const guarded = spendfuse.wrap((async () => Response.json({ choices: [], usage: {} })) as typeof fetch);
  for (const { request } of vectors) await (await guarded('https://api.openai.com/v1/chat/completions', post({ model: 'm', ...request }))).json();
  await (await guarded('https://api.openai.com/v1/embeddings', post({ model: 'm', input: 'x' }))).json();
  const found = (await told(side, vectors.length + 1)).map((event) => event['prompt_fingerprint']);
  assert.deepEqual(found, [...vectors.map(({ fingerprint }) => fingerprint ?? undefined), undefined]);
  assert.ok(!side.received.join('').includes('Paris'));
  const { side: without, openai } = await parts();
  await openai.chat.completions.create({ model: 'm', messages });
  assert.equal((await told(without, 1))[0]!['prompt_fingerprint'], undefined);
});

test('a whole answer counts that is read by bytes(), where there is such', async () => {
  class Younger extends Response {
    async bytes(): Promise<any> {
      return new Uint8Array(await Response.prototype.arrayBuffer.call(this));
    }
  }
  const { side, guarded } = await answering(new Younger('{"id":"c-1","usage":{"prompt_tokens":7}}', { headers: { 'content-type': 'application/json' } }));
  await ((await guarded('https://api.openai.com/v1/chat/completions', post({ model: 'm' }))) as Younger).bytes();
  assert.deepEqual((await told(side, 1))[0]!['usage'], { prompt_tokens: 7 });
});

test("a client of OpenAI that is given a guarded fetch tries no refusal again, as LangChain's", async () => {
  const { side, spendfuse, upstream } = await parts({ sidecar: { decide: () => blocked() } });
  const made = new OpenAI({ apiKey: 'k', baseURL: `${upstream.url}/v1`, fetch: spendfuse.wrap(fetch) });
  await assert.rejects(made.chat.completions.create({ model: 'm', messages }), (error: InstanceType<typeof OpenAI.APIError>) => {
    const { budget, spent, limit } = error.error as Told;
    assert.deepEqual([error.status, error.code, budget, spent, limit], [402, 'budget_exceeded', 'cap', '5.000123', '5.00']);
    return error.message.includes('Budget cap is used up');
  });
  assert.deepEqual([side.checks.length, upstream.requests.length], [1, 0]);
  // Where a header of the client's is taken away, a wrapped one does the same.
  const wrapped = spendfuse.wrap(new OpenAI({ apiKey: 'k', baseURL: upstream.url, defaultHeaders: { 'x-stainless-lang': null } }));
  await assert.rejects(wrapped.chat.completions.create({ model: 'm', messages }), BudgetExceededError);
  assert.equal(side.checks.length, 2);
});

test('a stream that is returned to guardedCall() is left alone: its failure is not one of nobody', async () => {
  const { side, spendfuse, upstream } = await parts({ provider: { failFirst: 1, status: 400 } });
  const unhandled: unknown[] = [];
  const note = (error: unknown): number => unhandled.push(error);
  process.on('unhandledRejection', note);
  const model = createOpenAI({ apiKey: 'k', baseURL: `${upstream.url}/v1`, fetch: spendfuse.wrap(fetch) }).chat('gpt-4o');
  const result = await spendfuse.guardedCall({ customer: 'c-42', estimatedCostUsd: '1' }, () => streamText({ model, prompt: 'x', onError: () => {} }));
  await result.consumeStream({ onError: () => {} });
  await aWhile();
  process.off('unhandledRejection', note);
  await spendfuse.flush();
  assert.deepEqual([unhandled, side.events.size], [[], 0]);
});

test('addUsage: of several steps of Vercel\'s all count; what promises its usage has none', async () => {
  const { side, spendfuse, logged } = await parts();
  const step = { inputTokens: 1, outputTokens: 1, totalTokens: 2 };
  spendfuse.addUsage({ usage: step, totalUsage: { inputTokens: 30, outputTokens: 20, totalTokens: 50 }, response: { id: 'v-1', modelId: 'm' } });
  spendfuse.addUsage({ id: 'x', model: 'm', usage: Promise.reject(new Error('of the stream')) });
  spendfuse.addUsage({
    get usage(): never {
      throw new Error('of a getter');
    },
  });
  await spendfuse.flush();
  const [event] = (await told(side, 1)) as [Told];
  assert.deepEqual([event['usage'].input_tokens, event['usage'].output_tokens, side.events.size], [30, 20, 1]);
  assert.ok(logged.some((message) => message.includes('given no usage')));
});

test('addUsage() of an answer of a wrapped client counts nothing again, whatever its server', async () => {
  const { side, spendfuse, openai } = await parts();
  const answer = await openai.chat.completions.create({ model: 'gpt-4o', messages });
  spendfuse.addUsage(answer);
  await spendfuse.guardedCall({ customer: 'c-42' }, (call) => call.addUsage(answer));
  await spendfuse.flush();
  assert.equal(side.events.size, 1);
  spendfuse.addUsage(answer, { id: 'of-my-own' });
  assert.equal((await told(side, 2)).length, 2);
});

test('calls of Bedrock pass, and that they do is said', async () => {
  const { side, guarded, logged } = await answering(Response.json({}));
  await guarded('https://bedrock-runtime.us-east-1.amazonaws.com/model/anthropic.claude-v2%3A1/invoke-with-response-stream', post({}));
  assert.ok(logged.some((message) => message.startsWith('calls of Bedrock')));
  assert.equal(side.checks.length, 0);
});

test('an answer without an id is counted once, by the client and by hand', async () => {
  const { side, spendfuse, openai } = await parts();
  const answer = await openai.embeddings.create({ model: 'text-embedding-3-small', input: 'x' });
  assert.ok(answer._request_id);
  spendfuse.addUsage(answer);
  await spendfuse.flush();
  assert.equal(side.events.size, 1);
});

test('whoever sells a model that is not of OpenAI is not guessed', async () => {
  const { side, spendfuse } = await parts();
  const usage = { prompt_tokens: 1, completion_tokens: 1 };
  for (const model of ['gpt-4o', 'moonshot-v1-8k', 'MiniMax-M2', 'openai/gpt-4o']) spendfuse.addUsage({ id: model, model, usage });
  await spendfuse.flush();
  const events = await told(side, 4);
  assert.deepEqual(events.map((event) => event['provider']), ['openai', undefined, undefined, undefined]);
});

test('a line of an answer that says less than others is read all the same', async () => {
  const line = { budget: 'b', scope: 's', verdict: 'block', spent_usd: '1', limit_usd: '1', unheard_of: [1] };
  const { openai } = await parts({ sidecar: { decide: () => ({ decision: 'block', budgets: [line] }) } });
  const error = await openai.chat.completions.create({ model: 'gpt-4o', messages }).then(() => undefined, (error: unknown) => error);
  assert.ok(error instanceof BudgetExceededError);
  assert.deepEqual([error.resetsAt, error.helpUrl, error.message.includes('undefined')], [null, null, false]);
});

test('an address that leads nowhere by itself is for the given function', async () => {
  const { guarded, side } = await answering(Response.json({}));
  assert.equal((await guarded('/api/chat/completions', post({ model: 'm' }))).status, 200);
  assert.equal(side.checks.length, 0);
});

test('an address without a host is that of the page', async () => {
  const { side, guarded } = await answering(Response.json({ id: 'c-1', usage: { prompt_tokens: 7 } }));
  Object.defineProperty(globalThis, 'location', { value: new URL('https://app.example.com/chat'), configurable: true });
  try {
    await (await guarded('/v1/chat/completions', post({ model: 'm' }))).json();
  } finally {
    delete (globalThis as { location?: unknown }).location;
  }
  assert.equal((await told(side, 1)).length, 1);
});

const chunk = (delta: object, more: object = {}): object => ({ id: 'c', model: 'm', choices: [{ index: 0, delta, finish_reason: null }], usage: null, ...more });
const added = (text: string): object => ({ type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text } });
const said = (delta: string, number: number): object => ({ type: 'response.output_text.delta', sequence_number: number, item_id: 'i', delta });
const response = { id: 'c', model: 'm', status: 'completed' };
const STREAMS: Record<string, object[]> = {
  completions: [
    chunk({ role: 'assistant', content: '' }),
    ...['Hello', 'Hello', 'né漢😀', '', '\n"usage": 7'].map((content) => chunk({ content })),
    // More than text, in the form of text.
    chunk({ content: 'x' }, { usage: { prompt_tokens: 5, completion_tokens: 3 } }),
    chunk({ content: 'x', tool_calls: [{ index: 1, function: { arguments: '{}' } }] }),
    { id: 'c', model: 'n', choices: [{ index: 0, delta: { content: 'two' } }, { index: 1, delta: { content: 'choices' } }] },
    { id: 'c', model: 'm', choices: [{ index: 0, text: 'old', delta: { content: 'x' } }] },
    chunk({ content: 'x' }),
    { id: 'c', model: 'm', choices: [], usage: { prompt_tokens: 5, completion_tokens: 4 } },
  ],
  responses: [
    { type: 'response.created', response: { ...response, status: 'in_progress' } },
    ...['Hello', 'n\né', 'x', 'y'].map(said),
    { type: 'response.output_item.done', output_index: 1, item: { type: 'function_call' }, delta: 'x' },
    { type: 'response.completed', delta: 'x', response: { ...response, usage: { input_tokens: 1, output_tokens: 2 } } },
  ],
  messages: [
    { type: 'message_start', message: { id: 'c', model: 'm', usage: { input_tokens: 9, output_tokens: 1 } } },
    ...['Hello', 'Hello', 'né', 'a\nb', '"usage":{'].map(added),
    { type: 'content_block_start', index: 1, content_block: { type: 'tool_use', name: 'f' }, delta: { type: 'text_delta', text: 'x' } },
    { type: 'content_block_delta', index: 1, delta: { type: 'input_json_delta', partial_json: '{"a":1}' } },
    { type: 'message_delta', delta: { type: 'text_delta', text: 'x' }, usage: { output_tokens: 40 } },
  ],
};

for (const [shape, pieces] of Object.entries(STREAMS)) {
  test(`pieces of ${shape} that are counted without being read come to the same`, () => {
    const kind = routeOf('POST', new URL(`https://api.openai.com/v1/${shape === 'completions' ? 'chat/completions' : shape}`))!;
    const [read, counted] = [new Seen(), new Seen()];
    let unread = 0;
    // Cut anywhere, for what a stream has told so far is what a cut one is charged by.
    for (const piece of pieces) {
      const text = `data: ${JSON.stringify(piece)}\n\n`;
      read.take(kind, piece);
      if (counted.takeText(kind, text)) unread += 1;
      else counted.take(kind, dataOf(text));
      const state = ({ id, model, serviceTier, usage, generated, isFinal, isPending, toolCalls }: Seen) => ({ id, model, serviceTier, usage, generated, isFinal, isPending, toolCalls });
      assert.deepEqual(state(counted), state(read), text);
    }
    assert.ok(unread >= 2);
  });
}
