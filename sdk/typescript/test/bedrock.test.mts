// A client with the parts of `@aws-sdk/client-bedrock-runtime` that are used: its stack of middleware.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { BudgetExceededError, Spendfuse, SpendfuseError, type WrapOptions } from 'spendfuse';
import { blocked, sidecar, type SidecarOptions, told } from './stub.mjs';

const HAIKU = 'anthropic.claude-haiku-4-5-20251001-v1:0';
const NOVA = 'amazon.nova-lite-v1:0';
const USAGE = { inputTokens: 1000, outputTokens: 100, totalTokens: 1900, cacheReadInputTokens: 800 };
const MESSAGE = {
  type: 'message',
  id: 'msg_1',
  model: 'claude-haiku-4-5-20251001',
  content: [{ type: 'text', text: 'Hello' }],
  usage: { input_tokens: 200, output_tokens: 100, cache_read_input_tokens: 800 },
};
const asked = { modelId: HAIKU, messages: [{ role: 'user', content: [{ text: 'the secret prompt' }] }], inferenceConfig: { maxTokens: 200 } };
const bytes = (json: object): Uint8Array => new TextEncoder().encode(JSON.stringify(json));

type Json = Record<string, any>;
type Handler = (args: { input: Json }) => Promise<{ output: Json; response: Json }>;
type Middleware = (next: Handler, context: { commandName: string }) => Handler;

class BedrockRuntimeClient {
  config = { serviceId: 'Bedrock Runtime', region: async () => 'us-east-1' };
  readonly sent: Json[] = [];
  error: object | undefined;
  headers: Record<string, string> = {};
  private readonly stack = new Map<string, Middleware>();
  readonly middlewareStack = {
    add: (middleware: Middleware, { name }: { name: string }): void => void this.stack.set(name, middleware),
  };

  async send(commandName: string, input: Json): Promise<Json> {
    let handler: Handler = async (args) => {
      this.sent.push(args.input);
      if (this.error !== undefined) throw this.error;
      const $metadata = { requestId: `req-${this.sent.length}` };
      return { output: { $metadata, ...ANSWERS[commandName]!(args.input) }, response: { headers: this.headers } };
    };
    for (const middleware of this.stack.values()) handler = middleware(handler, { commandName });
    return (await handler({ input })).output;
  }
}

async function* of(...events: Json[]): AsyncGenerator<Json> {
  yield* events;
}

const ANSWERS: Record<string, (input: Json) => Json> = {
  ConverseCommand: () => ({ output: { message: { content: [{ text: 'Hello' }, { toolUse: { name: 'search' } }] } }, usage: USAGE }),
  ConverseStreamCommand: () => ({
    stream: of(
      { contentBlockStart: { start: { toolUse: { name: 'search' } }, contentBlockIndex: 1 } },
      { contentBlockDelta: { delta: { text: 'Hello'.repeat(8) }, contentBlockIndex: 0 } },
      { messageStop: { stopReason: 'end_turn' } },
      { metadata: { usage: USAGE } },
    ),
  }),
  InvokeModelCommand: ({ modelId }) => ({ body: bytes(modelId === HAIKU ? MESSAGE : { results: [] }) }),
  InvokeModelWithResponseStreamCommand: () => ({
    body: of(
      { chunk: { bytes: bytes({ type: 'message_start', message: { ...MESSAGE, usage: { ...MESSAGE.usage, output_tokens: 1 } } }) } },
      { chunk: { bytes: bytes({ type: 'message_delta', usage: { output_tokens: 100 } }) } },
      { chunk: { bytes: bytes({ type: 'message_stop', 'amazon-bedrock-invocationMetrics': { inputTokenCount: 200 } }) } },
    ),
  }),
  CountTokensCommand: () => ({ inputTokens: 7 }),
};

async function parts(given: SidecarOptions = {}, wrap: WrapOptions = {}) {
  const side = await sidecar(given);
  const logged: string[] = [];
  const spendfuse = new Spendfuse({ url: side.url, workspace: 'acme', flushIntervalMs: 1, log: (message) => logged.push(message) });
  after(() => side.close());
  const client = new BedrockRuntimeClient();
  assert.equal(spendfuse.wrap(client, wrap), client);
  return { side, spendfuse, client, logged };
}

const readToTheEnd = async (stream: AsyncIterable<Json>): Promise<Json[]> => {
  const events = [];
  for await (const event of stream) events.push(event);
  return events;
};

for (const [command, input, format, usage] of [
  ['ConverseCommand', asked, 'bedrock.converse', USAGE],
  ['ConverseStreamCommand', asked, 'bedrock.converse', USAGE],
  ['InvokeModelCommand', { modelId: HAIKU, body: '{"max_tokens":200}' }, 'anthropic.messages', MESSAGE.usage],
  ['InvokeModelWithResponseStreamCommand', { modelId: HAIKU, body: bytes({ max_tokens: 200 }) }, 'anthropic.messages', MESSAGE.usage],
] as const) {
  test(`${command} is asked about and counted, and notices nothing`, async () => {
    const { side, client } = await parts({}, { customer: 'c-42' });
    const answer = await client.send(command, input);
    if (command.includes('Stream')) assert.ok((await readToTheEnd(answer['stream'] ?? answer['body'])).length > 2);
    const [event] = await told(side, 1);
    const [question] = side.checks;
    assert.deepEqual([question!['model'], question!['provider'], question!['customer'], question!['estimate'].max_output_tokens], [HAIKU, 'bedrock', 'c-42', 200]);
    assert.deepEqual([event!['source'], event!['id'], event!['model'], event!['region']], ['llm:bedrock', 'req-1', HAIKU, 'us-east-1']);
    assert.deepEqual([event!['usage_format'], event!['usage']], [format, usage]);
    assert.equal(event!['tool_calls'], command.startsWith('Converse') ? 1 : undefined);
    assert.ok(!JSON.stringify([side.checks, event]).includes('secret'));
  });
}

test('a refused call is not sent; what costs nothing is not asked for', async () => {
  const { side, client } = await parts({ decide: () => blocked() });
  await assert.rejects(client.send('ConverseCommand', asked), BudgetExceededError);
  await client.send('CountTokensCommand', asked);
  assert.deepEqual([client.sent.length, side.checks.length, side.events.size], [1, 1, 0]);
});

test('what is counted in headers, and a stream that is left', async () => {
  const { side, client } = await parts();
  client.headers = { 'x-amzn-bedrock-input-token-count': '7', 'x-amzn-bedrock-output-token-count': '3' };
  await client.send('InvokeModelCommand', { modelId: 'amazon.titan-text-lite-v1', body: '{}' });
  const { stream } = await client.send('ConverseStreamCommand', asked);
  for await (const event of stream) if ('contentBlockDelta' in event) break;
  const [whole, left] = await told(side, 2);
  assert.deepEqual(whole!['usage'], { inputTokens: 7, outputTokens: 3 });
  assert.deepEqual([left!['usage_format'], left!['usage'].output_tokens], ['estimated', 10]);
});

test('a call that fails costs nothing, one that broke off is charged by estimate', async () => {
  const { side, client } = await parts();
  client.error = Object.assign(new Error('throttled'), { name: 'ThrottlingException', $metadata: { httpStatusCode: 429 } });
  await assert.rejects(client.send('ConverseCommand', asked), /throttled/);
  client.error = Object.assign(new Error('reset'), { code: 'ECONNRESET' });
  await assert.rejects(client.send('ConverseCommand', asked), /reset/);
  const [event] = await told(side, 1);
  assert.equal(event!['usage_format'], 'estimated');
});

test('a cheaper model is asked where it is Bedrock\'s and has the same form', async () => {
  const cheaper = { to: NOVA };
  const { side, client, logged } = await parts({ decide: () => ({ ...blocked(), decision: 'downgrade', downgrade_to: cheaper.to }) });
  await client.send('ConverseCommand', asked);
  cheaper.to = 'gpt-4.1-mini';
  await client.send('ConverseCommand', asked);
  assert.deepEqual(client.sent.map((input) => input['modelId']), [NOVA, HAIKU]);
  const events = await told(side, 2);
  assert.deepEqual(events.map((event) => event['flags']), [['downgraded'], undefined]);
  assert.ok(logged.some((message) => message.includes('cannot be asked here')));
});

test('wrapped twice is counted once, as said last; other clients of Amazon are refused', async () => {
  const { side, spendfuse, client } = await parts({}, { feature: 'first', customer: 'c-42' });
  spendfuse.wrap(client, { feature: 'second' });
  await client.send('ConverseCommand', asked);
  const [event] = await told(side, 1);
  assert.deepEqual([event!['feature'], event!['customer'], side.checks.length], ['second', 'c-42', 1]);
  const other = new BedrockRuntimeClient();
  other.config.serviceId = 'S3';
  assert.throws(() => spendfuse.wrap(other), SpendfuseError);
});

test('a picture counts by its size on the screen, in whatever list of bytes it is given', async () => {
  const { side, client } = await parts();
  for (const bytes of [new Uint8Array(300_000), Buffer.alloc(300_000)]) {
    await client.send('ConverseCommand', { ...asked, messages: [{ role: 'user', content: [{ image: { format: 'png', source: { bytes } } }, { json: 7n }] }] });
  }
  const [one, other] = side.checks.map((question) => question['estimate'].input_tokens as number);
  assert.ok(one! < 5_100 && one === other, `${one}, ${other}`);
});

test('an answer told by hand too is counted once', async () => {
  const { side, spendfuse, client } = await parts();
  const answer = await client.send('ConverseCommand', asked);
  spendfuse.addUsage(answer, { model: HAIKU });
  const { cacheReadInputTokens, ...usage } = USAGE;
  spendfuse.addUsage({ $metadata: { requestId: 'req-2' }, usage }, { model: HAIKU });
  await spendfuse.flush();
  const events = [...side.events.values()];
  assert.deepEqual(events.map(({ source, id, usage_format }) => [source, id, usage_format]), [['llm:bedrock', 'req-1', 'bedrock.converse'], ['llm:bedrock', 'req-2', 'bedrock.converse']]);
});
