// Which requests are calls, of whom they are asked, how large they are, and what is told of answers that are cut.
// sdk/python/tests/test_parts.py has the same rows.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parts } from './parts.mjs';
import { type Told, told } from './stub.mjs';

const post = (body: object): RequestInit => ({ method: 'POST', body: JSON.stringify(body) });
const aWhile = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 50));
const events = (...pieces: object[]): Response =>
  new Response(pieces.map((piece) => `data: ${JSON.stringify(piece)}\n\n`).join(''), { headers: { 'content-type': 'text/event-stream' } });

/** A `fetch` that gives these answers, or one that says nothing, guarded. */
async function answering(...answers: Response[]) {
  const of = await parts();
  return { ...of, guarded: of.spendfuse.wrap((async () => answers.shift() ?? Response.json({})) as typeof fetch) };
}

const VERTEX = '/v1/projects/p/locations/l';
const PATHS: [string, string | undefined, string?][] = [
  ['/v1/chat/completions', 'chat'],
  ['/v1/completions', 'completion'],
  ['/openai/deployments/d/embeddings', 'embeddings'],
  ['/v1/responses', 'responses'],
  ['/v1/responses/compact', 'responses'],
  ['/v1/messages', 'chat'],
  ['/v1beta/interactions', 'generate_content'],
  ['/v1beta/models/gemini-3:streamGenerateContent', 'generate_content', 'gemini-3'],
  ['/v1beta/models/e:batchEmbedContents', 'embeddings', 'e'],
  ['/v1beta/tunedModels/mine:generateContent', 'generate_content', 'mine'],
  [`${VERTEX}/endpoints/7:generateContent`, 'generate_content', '7'],
  [`${VERTEX}/publishers/anthropic/models/claude@1:rawPredict`, 'chat', 'claude@1'],
  [`${VERTEX}/publishers/mistralai/models/mistral:rawPredict`, 'chat', 'mistral'],
  // However it is written.
  ['/v1/chat%2Fcompletion%73', 'chat'],
  ['//v1//chat///completions/', 'chat'],
  ['/openai/deployments/d/Chat/Completions', 'chat'],
  ['/v1beta/models/gemini-3%3AgenerateContent', 'generate_content', 'gemini-3'],
  [`${VERTEX}/publishers/anthropic/models/count-tokens:rawPredict`, undefined],
  ['/v1/models', undefined],
  ['/v1/messages/count_tokens', undefined],
  ['/v1/messages/batches', undefined],
  ['/v1//threads/thread_1/messages', undefined],
  ['/v1beta/models/gemini-3:countTokens', undefined],
  ['/v1/responses/resp_1/cancel', undefined],
  ['/v1/my-embeddings', undefined],
];

test('calls that cost money are known by their paths, however they are written', async () => {
  const { side, spendfuse, guarded } = await answering();
  for (const [path, operation, model = 'of-the-body'] of PATHS) {
    side.checks.length = 0;
    side.events.clear();
    await (await guarded(`https://gateway.example.com${path}`, post({ model: 'of-the-body', messages: [] }))).text();
    assert.ok(await spendfuse.flush());
    const told = [...side.events.values()].map((event) => [event['operation'], event['model']]);
    assert.deepEqual([told, side.checks.length], operation === undefined ? [[], 0] : [[[operation, model]], 1], path);
  }
});

const HOSTS: [string, string | undefined][] = [
  ['api.openai.com', 'openai'],
  ['eu.api.openai.com', 'openai'],
  ['me.openai.azure.com', 'azure'],
  ['me.cognitiveservices.azure.com', 'azure'],
  ['us-central1-aiplatform.googleapis.com', 'vertex_ai'],
  ['aiplatform.eu.rep.googleapis.com', 'vertex_ai'],
  ['bedrock-runtime.us-east-1.amazonaws.com', 'bedrock'],
  ['bedrock-runtime-fips.us-gov-west-1.amazonaws.com', 'bedrock'],
  ['bedrock-runtime.us-east-1.api.aws', 'bedrock'],
  ['bedrock-runtime-fips.us-east-1.api.aws', 'bedrock'],
  ['bedrock-mantle.us-east-1.api.aws', 'bedrock'],
  ['bedrock-runtime.cn-north-1.amazonaws.com.cn', 'bedrock'],
  ['bedrock-runtime.cn-northwest-1.api.amazonwebservices.com.cn', 'bedrock'],
  ['bedrock-runtime.eusc-de-east-1.amazonaws.eu', 'bedrock'],
  ['vpce-0a1-b2.bedrock-runtime.us-east-1.vpce.amazonaws.com', 'bedrock'],
  ['api.groq.com', 'groq'],
  ['api.together.ai', 'together_ai'],
  ['api.together.xyz', 'together_ai'],
  ['api.moonshot.ai', 'moonshot'],
  ['api.moonshot.cn', 'moonshot'],
  ['dashscope-intl.aliyuncs.com', 'dashscope'],
  // Another name of what is at `*.openai.azure.com`, and models of others.
  ['me.services.ai.azure.com/openai', 'azure'],
  ['me.services.ai.azure.com/models', 'azure_ai'],
  ['notapi.openai.com', undefined],
  ['api.openai.com.evil.org', undefined],
  ['bedrock-1.us-east-1.elb.amazonaws.com', undefined],
  ['bedrock-runtime.us-east-1.api.aws.evil.org', undefined],
  ['bedrock-runtime.us-east-1.amazonaws.com.evil.org', undefined],
  ['bedrock-runtime.api.aws', undefined],
];

test('whose address it is, is known by its host', async () => {
  const { side, spendfuse, guarded } = await answering();
  for (const [host, provider] of HOSTS) {
    side.events.clear();
    await (await guarded(`https://${host}/v1/chat/completions`, post({ model: 'm' }))).text();
    assert.ok(await spendfuse.flush());
    const sources = [...side.events.values()].map((event) => [event['provider'], event['source']]);
    assert.deepEqual(sources, [[provider, provider === undefined ? 'spendfuse-sdk:completions' : `llm:${provider}`]], host);
  }
});

test('a picture in a request costs by its size on the screen, and not by its bytes', async () => {
  const { side, guarded } = await answering();
  const coded = 'A'.repeat(400_000);
  const sizeOf = async (url: string): Promise<number> => {
    await (await guarded('https://api.openai.com/v1/chat/completions', post({ model: 'm', messages: [{ role: 'user', content: [{ type: 'image_url', image_url: { url } }] }] }))).text();
    return side.checks.at(-1)!['estimate'].input_tokens;
  };
  for (const picture of [`data:image/png;base64,${coded}`, `iVBORw0KGgo${coded}`, `/9j/${coded}==`]) {
    const size = await sizeOf(picture);
    assert.ok(size > 5_000 && size < 5_050, `${size}`);
  }
  // Documents have as many words as their bytes may tell.
  for (const text of [`data:application/pdf;base64,${coded}`, `data:image/png;base64,${coded} and words`, coded]) assert.ok((await sizeOf(text)) >= 100_000);
  const estimated = (await told(side, 6)).map((event) => event['usage'].input_tokens);
  assert.ok(estimated[0] < 5_050, 'the estimate of what was not told');
});

test("searches of Anthropic's that a cut stream shows are told; at its end its usage counts them", async () => {
  const block = (index: number, name: string) => ({ type: 'content_block_start', index, content_block: { type: 'server_tool_use', id: `s${index}`, name, input: {} } });
  const usage = { input_tokens: 9, output_tokens: 1, server_tool_use: { web_search_requests: 0 } };
  const cut = [{ type: 'message_start', message: { id: 'msg_1', model: 'claude', usage } }, block(1, 'web_search'), block(2, 'web_fetch'), block(3, 'web_search')];
  const end = { type: 'message_delta', usage: { output_tokens: 5, server_tool_use: { web_search_requests: 2 } } };
  const { side, guarded } = await answering(events(...cut), events(...cut, end));
  for (let call = 0; call < 2; call += 1) await (await guarded('https://gateway.example.com/v1/messages', post({ model: 'claude', stream: true }))).text();
  const units = (await told(side, 2)).map((event) => [event['usage_format'], event['units']]);
  assert.deepEqual(units, [['estimated', { web_search_calls: '2' }], ['anthropic.messages', undefined]]);
});

test('a stream of what is made in the background is not charged where it is cut within its text', async () => {
  const whole = { id: 'resp_1', background: true, model: 'm', status: 'in_progress', usage: null };
  const { side, guarded } = await answering(events({ type: 'response.created', response: whole }, { type: 'response.output_text.delta', delta: 'Hello' }));
  await (await guarded('https://api.openai.com/v1/responses', post({ model: 'm', background: true, stream: true }))).text();
  await aWhile();
  assert.deepEqual([side.events.size, side.released], [0, ['stub.1-1']]);
});

test('an answer of a gateway that is asked for twice is told by one name', async () => {
  const done = { id: 'resp_1', background: true, created_at: 1_700_000_000, model: 'm', status: 'completed', usage: { input_tokens: 1, output_tokens: 1 } };
  const { side, spendfuse, guarded } = await answering(Response.json(done), Response.json(done));
  for (let asking = 0; asking < 2; asking += 1) await (await guarded('https://gateway.example.com/v1/responses/resp_1')).text();
  assert.ok(await spendfuse.flush());
  assert.deepEqual([...side.events.keys()], ['spendfuse-sdk:responses|background-resp_1']);
});

test('an agent is asked in the place of a model', async () => {
  const { side, guarded } = await answering(Response.json({ id: 'i-1', status: 'in_progress', outputs: [{ text: 'x'.repeat(40) }] }));
  await (await guarded('https://generativelanguage.googleapis.com/v1beta/interactions', post({ agent: 'deep-research', input: 'x' }))).text();
  const [event] = (await told(side, 1)) as [Told];
  assert.deepEqual([side.checks[0]!['model'], event['model'], event['usage'].output_tokens], ['deep-research', 'deep-research', 10]);
});
