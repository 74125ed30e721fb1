// By which source and id a call is known, whichever part of spendfuse sees it.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import type { TrackedEvent } from 'spendfuse';
import { parts } from './parts.mjs';
import { told } from './stub.mjs';

interface Call {
  name: string;
  method: string;
  url: string;
  provider: string | null;
  answer_id: string;
  request_id: string;
  source: string;
  id: string;
}

const schemas = process.env['SPENDFUSE_SCHEMAS'] ?? new URL('../../../schemas', import.meta.url).pathname;
const vectors = JSON.parse(readFileSync(`${schemas}/source-vectors.json`, 'utf8')) as {
  tools: { typescript: string };
  calls: Call[];
  answers: { name: string; answer: object; told: TrackedEvent; source: string | null; id: string }[];
  names: Record<string, string>;
};
/** In every provider's language at once. */
const ANSWER = {
  model: 'm',
  status: 'completed',
  background: true,
  created_at: 1_700_000_000,
  usage: { prompt_tokens: 1, input_tokens: 1, output_tokens: 1 },
  usageMetadata: { promptTokenCount: 1 },
};
const BODY = JSON.stringify({ model: 'm', messages: [], background: true });

for (const call of vectors.calls) {
  test(`a call has the source and id that all parts of spendfuse give it: ${call.name}`, async () => {
    const { side, spendfuse } = await parts();
    const id = call.answer_id ? { id: call.answer_id, responseId: call.answer_id } : {};
    const headers: Record<string, string> = call.request_id ? { 'x-request-id': call.request_id } : {};
    const guarded = spendfuse.wrap((async () => Response.json({ ...ANSWER, ...id }, { headers })) as typeof fetch, call.provider ? { provider: call.provider } : {});
    await (await guarded(call.url, call.method === 'POST' ? { method: 'POST', body: BODY } : {})).text();
    const [event] = await told(side, 1);
    assert.equal(event!['source'], call.source.replace('{tool}', vectors.tools.typescript));
    const [before, after] = call.id.split('{call}') as [string, string?];
    if (after === undefined) return assert.equal(event!['id'], before);
    assert.match(event!['id'].slice(0, 36), /^[0-9a-f-]{36}$/);
    assert.equal(event!['id'].slice(36), after);
  });
}

test('a name that the app has given its requests is none of the answers', async () => {
  const { side, spendfuse } = await parts();
  const headers = { 'x-request-id': 'of-one-web-request' };
  const guarded = spendfuse.wrap((async () => Response.json(ANSWER, { headers })) as typeof fetch);
  for (let call = 0; call < 2; call += 1) await (await guarded('https://api.openai.com/v1/embeddings', { method: 'POST', body: BODY, headers })).text();
  const [first, second] = await told(side, 2);
  assert.notEqual(first!['id'], second!['id']);
});

test('of a server of one\'s own, too, what was made in the background counts once, however often it is asked for', async () => {
  const { side, spendfuse } = await parts();
  const guarded = spendfuse.wrap((async () => Response.json({ ...ANSWER, id: 'resp_1' })) as typeof fetch);
  for (let asking = 0; asking < 2; asking += 1) await (await guarded('http://10.0.0.5:8000/v1/responses/resp_1')).text();
  await told(side, 1);
  assert.ok(await spendfuse.flush());
  assert.equal(side.events.size, 1);
});

for (const { name, answer, told: more, source, id } of vectors.answers) {
  test(`an answer that is told has the source and id of its call: ${name}`, async () => {
    const { side, spendfuse } = await parts({ options: { source: 'of-the-app' } });
    spendfuse.addUsage(answer, more);
    const [event] = await told(side, 1);
    assert.deepEqual([event!['source'], event!['id']], [source ?? 'of-the-app', id]);
  });
}

test('a provider has one source whatever telemetry calls it', async () => {
  const { side, spendfuse } = await parts();
  for (const [at, [provider, source]] of Object.entries(vectors.names).entries()) {
    spendfuse.addUsage({ id: `${at}`, model: 'm', usage: { prompt_tokens: 1 } }, { provider });
    assert.equal((await told(side, at + 1)).at(-1)!['source'], source, provider);
  }
});
