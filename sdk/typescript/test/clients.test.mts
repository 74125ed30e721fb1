// The providers' own clients, unchanged but for wrap(): guarded, metered, streamed, downgraded.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import Anthropic from '@anthropic-ai/sdk';
import { createAnthropic } from '@ai-sdk/anthropic';
import { createGoogleGenerativeAI } from '@ai-sdk/google';
import { createOpenAI } from '@ai-sdk/openai';
import { GoogleGenAI } from '@google/genai';
import { generateText, streamText } from 'ai';
import OpenAI, { AzureOpenAI } from 'openai';
import { BudgetExceededError, Spendfuse, type WrapOptions } from 'spendfuse';
import { blocked, provider, type ProviderOptions, SAID, sidecar, type SidecarOptions, textOf, type Told, told } from './stub.mjs';

const apiKey = 'sk-of-the-provider';
const PROMPT = 'a question that nobody else may see';
const messages = [{ role: 'user' as const, content: PROMPT }];

/** One call of a client: what it says. */
interface Cell {
  format: string;
  model: string;
  /** Whether the whole call may have another model. */
  downgrades: boolean;
  /** Where the app sees the usage that it did not ask for. */
  call: (make: Make) => Promise<string>;
}

interface Make {
  url: string;
  wrap: Spendfuse['wrap'];
  options: WrapOptions;
}

const openai = ({ url, wrap, options }: Make) => wrap(new OpenAI({ apiKey, baseURL: `${url}/v1` }), { ...options, provider: 'openai' });
const anthropic = ({ url, wrap, options }: Make) => wrap(new Anthropic({ apiKey, baseURL: url }), options);
const genai = ({ url, wrap, options }: Make) => wrap(new GoogleGenAI({ apiKey, httpOptions: { baseUrl: url } }), options);
const vercel = ({ wrap, options }: Make) => ({ apiKey, fetch: wrap(fetch, options) });
const ask = { model: 'gpt-4o', messages };
const say = { model: 'claude-sonnet-4-5', max_tokens: 100, messages };
const generate = { model: 'gemini-2.5-flash', contents: PROMPT };

const CELLS: Record<string, Cell> = {
  'openai chat': { format: 'openai.chat', model: 'gpt-4o', downgrades: true, call: async (make) => (await openai(make).chat.completions.create(ask)).choices[0]!.message.content! },
  'openai chat stream': {
    format: 'openai.chat',
    model: 'gpt-4o',
    downgrades: true,
    // An app that did not ask for usage has a choice in every chunk, and may rely on it.
    call: async (make) => textOf(await openai(make).chat.completions.create({ ...ask, stream: true }), (chunk) => chunk.choices[0]!.delta.content),
  },
  'openai chat stream helper': {
    format: 'openai.chat',
    model: 'gpt-4o',
    downgrades: true,
    call: async (make) => (await openai(make).chat.completions.stream(ask).finalContent())!.trim(),
  },
  'openai chat raw': {
    format: 'openai.chat',
    model: 'gpt-4o',
    downgrades: true,
    call: async (make) => {
      const { data, response } = await openai(make).chat.completions.create(ask).withResponse();
      assert.ok(response.url.startsWith(make.url));
      return data.choices[0]!.message.content!;
    },
  },
  'openai responses': { format: 'openai.responses', model: 'gpt-4o', downgrades: true, call: async (make) => (await openai(make).responses.create({ model: 'gpt-4o', input: PROMPT })).output_text },
  'openai responses stream': {
    format: 'openai.responses',
    model: 'gpt-4o',
    downgrades: true,
    call: async (make) =>
      textOf(await openai(make).responses.create({ model: 'gpt-4o', input: PROMPT, stream: true }), (event) => (event.type === 'response.output_text.delta' ? event.delta : '')),
  },
  'openai withOptions': {
    format: 'openai.chat',
    model: 'gpt-4o',
    downgrades: true,
    call: async (make) => (await openai(make).withOptions({ timeout: 5_000 }).chat.completions.create(ask)).choices[0]!.message.content!,
  },
  'azure chat': {
    format: 'openai.chat',
    model: 'gpt-4o',
    downgrades: false,
    call: async ({ url, wrap, options }) => {
      const client = wrap(new AzureOpenAI({ apiKey, endpoint: url, apiVersion: '2024-10-21' }), { ...options, provider: 'azure' });
      return (await client.chat.completions.create(ask)).choices[0]!.message.content!;
    },
  },
  'anthropic messages': { format: 'anthropic.messages', model: 'claude-sonnet-4-5', downgrades: true, call: async (make) => textIn(await anthropic(make).messages.create(say)) },
  'anthropic messages stream': {
    format: 'anthropic.messages',
    model: 'claude-sonnet-4-5',
    downgrades: true,
    call: async (make) =>
      textOf(await anthropic(make).messages.create({ ...say, stream: true }), (event) => (event.type === 'content_block_delta' && event.delta.type === 'text_delta' ? event.delta.text : '')),
  },
  'anthropic messages stream helper': {
    format: 'anthropic.messages',
    model: 'claude-sonnet-4-5',
    downgrades: true,
    call: async (make) => textIn(await anthropic(make).messages.stream(say).finalMessage()).trim(),
  },
  'anthropic messages raw': { format: 'anthropic.messages', model: 'claude-sonnet-4-5', downgrades: true, call: async (make) => textIn((await anthropic(make).messages.create(say).withResponse()).data) },
  'genai generateContent': { format: 'gemini', model: 'gemini-2.5-flash', downgrades: true, call: async (make) => (await genai(make).models.generateContent(generate)).text! },
  'genai generateContentStream': { format: 'gemini', model: 'gemini-2.5-flash', downgrades: true, call: async (make) => textOf(await genai(make).models.generateContentStream(generate), (chunk) => chunk.text) },
  'genai chat': { format: 'gemini', model: 'gemini-2.5-flash', downgrades: true, call: async (make) => (await genai(make).chats.create({ model: generate.model }).sendMessage({ message: PROMPT })).text! },
  'vercel openai': {
    format: 'openai.chat',
    model: 'gpt-4o',
    downgrades: true,
    call: async (make) => (await generateText({ model: createOpenAI({ ...vercel(make), baseURL: `${make.url}/v1` }).chat('gpt-4o'), prompt: PROMPT })).text,
  },
  'vercel openai stream': {
    format: 'openai.chat',
    model: 'gpt-4o',
    downgrades: true,
    call: async (make) =>
      textOf(streamText({ model: createOpenAI({ ...vercel(make), baseURL: `${make.url}/v1` }).chat('gpt-4o'), prompt: PROMPT, onError: raise }).textStream, (text) => text),
  },
  'vercel openai responses': {
    format: 'openai.responses',
    model: 'gpt-4o',
    downgrades: true,
    call: async (make) => (await generateText({ model: createOpenAI({ ...vercel(make), baseURL: `${make.url}/v1` })('gpt-4o'), prompt: PROMPT })).text,
  },
  'vercel anthropic stream': {
    format: 'anthropic.messages',
    model: 'claude-sonnet-4-5',
    downgrades: true,
    call: async (make) =>
      textOf(streamText({ model: createAnthropic({ ...vercel(make), baseURL: `${make.url}/v1` })('claude-sonnet-4-5'), prompt: PROMPT, onError: raise }).textStream, (text) => text),
  },
  'vercel google': {
    format: 'gemini',
    model: 'gemini-2.5-flash',
    downgrades: true,
    call: async (make) => (await generateText({ model: createGoogleGenerativeAI({ ...vercel(make), baseURL: `${make.url}/v1beta` })('gemini-2.5-flash'), prompt: PROMPT })).text,
  },
};

const textIn = (message: { content: { type: string; text?: string }[] }): string => message.content.map((block) => block.text ?? '').join('');
const raised: unknown[] = [];
function raise({ error }: { error: unknown }): void {
  raised.push(error);
}

async function parts(options: { provider?: ProviderOptions; sidecar?: SidecarOptions } = {}) {
  const upstream = await provider(options.provider);
  const side = await sidecar(options.sidecar);
  const spendfuse = new Spendfuse({ url: side.url, workspace: 'acme', flushIntervalMs: 1 });
  after(() => Promise.all([upstream.close(), side.close()]));
  const make = (more: WrapOptions = {}): Make => ({ url: upstream.url, wrap: (client, own) => spendfuse.wrap(client, own), options: { customer: 'c-42', ...more } });
  return { upstream, side, spendfuse, make };
}

for (const [name, { format, model, call, downgrades }] of Object.entries(CELLS)) {
  test(`${name}: is guarded, counted once, with its hold, and nothing of the prompt leaves`, async () => {
    const { side, make, upstream } = await parts({ provider: { pieceBytes: 7 } });
    assert.equal(await call(make()), SAID);
    const [event] = (await told(side, 1)) as [Told];
    assert.equal(side.checks.length, 1);
    const [question] = side.checks as [Told];
    assert.deepEqual([question['customer'], question['workspace'], question['model'], question['reserve']], ['c-42', 'acme', model, true]);
    assert.ok(question['estimate'].input_tokens > 0);
    assert.deepEqual([event['usage_format'], event['model'], event['customer'], event['reservation_id']], [format, model, 'c-42', 'stub.1-1']);
    const usage = event['usage'];
    const [input, output] = [usage.prompt_tokens ?? usage.input_tokens ?? usage.promptTokenCount, usage.completion_tokens ?? usage.output_tokens ?? usage.candidatesTokenCount];
    assert.deepEqual([input, output], [1000, 100]);
    const received = side.received.join('\n');
    for (const secret of ['nobody else may see', 'secret', apiKey]) assert.ok(!received.includes(secret), `the sidecar has got "${secret}"`);
    assert.equal(upstream.requests.length, 1);
    assert.equal(Object.keys(upstream.requests[0]!.headers).filter((header) => header.startsWith('x-spendfuse')).length, 0);
  });

  test(`${name}: is refused before anything is sent, once`, async () => {
    const { side, make, upstream } = await parts({ sidecar: { decide: () => blocked() } });
    raised.length = 0;
    const error = await call(make()).then(
      () => raised[0],
      (error: unknown) => error,
    );
    assert.ok(error instanceof BudgetExceededError, String(error));
    assert.deepEqual([error.budget, error.scope, error.spent, error.limit, error.retryAfter], ['cap', 'acme/customer=c-42', '5.000123', '5.00', 17070]);
    assert.match(error.message, /Budget cap is used up \(acme\/customer=c-42: \$5\.000123 of \$5\.00 spent, resets 2026-11-23T05:00:00Z\)/);
    assert.deepEqual([upstream.requests.length, side.checks.length, side.events.size], [0, 1, 0]);
  });

  test(`${name}: a cheaper model is asked where a budget wants it`, async () => {
    const cheaper = format === 'gemini' ? 'gemini-2.5-flash-lite' : 'cheaper-model';
    const { side, make, upstream } = await parts({ sidecar: { decide: () => ({ decision: 'downgrade', downgrade_to: cheaper }) } });
    assert.equal(await call(make()), SAID);
    const [event] = (await told(side, 1)) as [Told];
    const sent = upstream.requests[0]!;
    const asked = (JSON.parse(sent.body) as Told)['model'] ?? /models\/([^:]+):/.exec(sent.path)?.[1];
    assert.equal(asked, downgrades ? cheaper : model);
    assert.equal(event['model'], asked);
    assert.deepEqual(event['flags'], downgrades ? ['downgraded'] : undefined);
    assert.equal(Number(sent.headers['content-length']), Buffer.byteLength(sent.body));
  });
}

test('no model that writes is asked to embed', async () => {
  const { side, make, upstream } = await parts({ sidecar: { decide: () => ({ decision: 'downgrade', downgrade_to: 'gpt-4o-mini' }) } });
  await openai(make()).embeddings.create({ model: 'text-embedding-3-small', input: 'x', encoding_format: 'float' });
  const [event] = (await told(side, 1)) as [Told];
  assert.deepEqual([(JSON.parse(upstream.requests[0]!.body) as Told)['model'], event['flags']], ['text-embedding-3-small', undefined]);
});
