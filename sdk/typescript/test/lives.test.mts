// What is told counts once: through sidecars that die, and from processes that are killed or have children.

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Spendfuse } from 'spendfuse';
import { parts, run } from './parts.mjs';
import { sidecar } from './stub.mjs';

test('twenty thousand events through a sidecar that dies twice while it is told count once each', async () => {
  const COUNT = 20_000;
  let side = await sidecar({ faults: [...Array<'none'>(20).fill('none'), 'lost'] });
  const port = Number(new URL(side.url).port);
  const lives = [side];
  const spendfuse = new Spendfuse({ url: side.url, maxQueue: COUNT, log: () => {} });
  for (let at = 0; at < COUNT; at += 1) spendfuse.track({ id: `e-${at}`, model: 'm', usage: { input_tokens: at } });
  const flushed = spendfuse.flush(30_000);
  for (const enough of [COUNT / 10, COUNT / 2]) {
    while (lives.reduce((sum, { events }) => sum + events.size, 0) < enough) await new Promise((resolve) => setTimeout(resolve, 1));
    await side.close();
    await new Promise((resolve) => setTimeout(resolve, 100));
    // What it had taken it has on its disk.
    lives.push((side = await sidecar({ listen: port, faults: [...Array<'none'>(5).fill('none'), 'lost'] })));
  }
  after(() => side.close());
  assert.ok(await flushed);
  const counted = new Set(lives.flatMap(({ events }) => [...events.keys()]));
  assert.equal(counted.size, COUNT);
  // Some came twice, because nobody knew whether they had arrived.
  assert.ok(lives.reduce((sum, { received }) => sum + received.join().split('"id":').length - 1, 0) > COUNT);
  const { delivered, dropped, rejected, queued } = spendfuse.statistics;
  assert.deepEqual({ delivered, dropped, rejected, queued }, { delivered: COUNT, dropped: 0, rejected: 0, queued: 0 });
});

test('a process that is killed has lost nothing that was flushed', async () => {
  const { side } = await parts();
  const { said } = await run(`import { track } from 'spendfuse'; for (let at = 0; at < 250; at++) track({ id: 'e-' + at, model: 'gpt-4o', usage: { input_tokens: 1 } }); import { flush } from 'spendfuse'; if (await flush()) process.kill(process.pid, 'SIGKILL');`, { SPENDFUSE_URL: side.url });
  assert.equal(side.events.size, 250, said);
});

test('forked processes and worker threads tell their own, and nothing of their parent twice', async () => {
  const { side } = await parts();
  const script = new URL('./family.mjs', import.meta.url);
  writeFileSync(
    script,
    `import cluster from 'node:cluster'; import { isMainThread, Worker } from 'node:worker_threads'; import { track } from 'spendfuse';
    const name = !isMainThread ? 'thread' : cluster.isPrimary ? 'parent' : 'child';
    track({ id: name, source: 's', model: 'm', usage: { input_tokens: 1 } });
    if (name === 'parent') { cluster.fork(); new Worker(new URL(import.meta.url)); }
    if (name === 'child') process.disconnect();`,
  );
  const { said } = await run(`import { spawnSync } from 'node:child_process'; spawnSync(process.execPath, [${JSON.stringify(fileURLToPath(script))}], { stdio: 'inherit' });`, { SPENDFUSE_URL: side.url });
  assert.deepEqual([...side.events.keys()].sort(), ['s|child', 's|parent', 's|thread'], said);
  assert.equal(side.received.join().split('"id":').length - 1, 3);
});

for (const [status, waits] of Object.entries({ 409: false, 410: false, 415: false, 422: false, 401: true, 404: true, 408: true, 503: true })) {
  test(`events that are refused with ${status} ${waits ? 'wait until they are taken' : 'are dropped and counted, and keep back no others'}`, async () => {
    const { side, spendfuse, logged } = await parts({ sidecar: { faults: [Number(status)] } });
    spendfuse.track({ id: 'refused', model: 'm', usage: { input_tokens: 1 } });
    assert.ok(await spendfuse.flush(3_000), `${side.requests.length} requests`);
    spendfuse.track({ id: 'next', model: 'm', usage: { input_tokens: 1 } });
    assert.ok(await spendfuse.flush(3_000));
    assert.deepEqual([...side.events.values()].map((event) => event['id']), waits ? ['refused', 'next'] : ['next']);
    assert.deepEqual([spendfuse.statistics.dropped, spendfuse.statistics.delivered], waits ? [0, 2] : [1, 1]);
    assert.ok(logged.some((message) => message.includes(status)));
  });
}
