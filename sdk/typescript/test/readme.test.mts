// The README as a new user takes it: each snippet is compiled, run, and says what stands below it.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { after, test } from 'node:test';
import { promisify } from 'node:util';
import { blocked, provider, sidecar } from './stub.mjs';

const run = promisify(execFile);
const root = new URL('../', import.meta.url);
const folder = new URL('build/readme/', root);
const real = process.env['SPENDFUSE_TEST_URL'];

/** Every snippet, and the output that follows it. */
const snippets = [...readFileSync(new URL('README.md', root), 'utf8').matchAll(/```ts\n([\s\S]*?)```(?:\n```text\n([\s\S]*?)```)?/g)];
const title = (at: number): string => /^import.*$/m.exec(snippets[at]![1]!)![0];

// The snippet of Next.js is called as Next.js calls it.
const CALLED = `
const asked = (customer: string) => POST(new Request('http://localhost/api/chat', { method: 'POST', headers: { 'x-customer': customer }, body: '{"question":"Hello"}' }));
const answers = [await asked('c-42'), await asked('c-2')];
if (answers[0]!.status !== 200 || answers[1]!.status !== 429) throw new Error(answers.map((answer) => answer.status).join());`;
const NEXT = { 'package.json': '{"name":"next","exports":{"./server":{"types":"./server.d.ts","default":"./server.js"}}}', 'server.js': 'exports.after = (then) => setTimeout(then);', 'server.d.ts': 'export declare function after(then: () => unknown): void;' };

test('every snippet of the README runs, and says what it says', { timeout: 180_000 }, async (t) => {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(new URL('node_modules/next/', folder), { recursive: true });
  for (const [name, text] of Object.entries(NEXT)) writeFileSync(new URL(`node_modules/next/${name}`, folder), text);
  for (const [at, [, code]] of snippets.entries()) writeFileSync(new URL(`${at}.mts`, folder), code + (code!.includes('function POST') ? CALLED : ''));
  const config = { extends: '../../tsconfig.test.json', compilerOptions: { rootDir: '.', outDir: '.', noUncheckedIndexedAccess: false }, include: ['*.mts'], exclude: ['node_modules'] };
  writeFileSync(new URL('tsconfig.json', folder), JSON.stringify(config));
  await run('npx', ['--no-install', 'tsc', '-p', 'build/readme'], { cwd: root }).catch((error: { stdout: string }) => assert.fail(error.stdout));

  const upstream = await provider();
  const checks = new Map<string, number>();
  const decide = ({ customer }: Record<string, any>) => {
    checks.set(customer, (checks.get(customer) ?? 0) + 1);
    const line = { scope: `acme/customer=${customer}`, spent_usd: '0.0525', limit_usd: '0.05' };
    return customer === 'c-2' || (customer === 'c-43' && checks.get(customer)! > 3) ? blocked('per-customer', line) : {};
  };
  const side = await sidecar({ decide });
  after(() => Promise.all([upstream.close(), side.close()]));
  const env = {
    ...process.env,
    SPENDFUSE_URL: real ?? side.url,
    SPENDFUSE_WORKSPACE: 'acme',
    OPENAI_BASE_URL: `${upstream.url}/v1`,
    ANTHROPIC_BASE_URL: upstream.url,
    OPENAI_API_KEY: 'k',
    ANTHROPIC_API_KEY: 'k',
  };
  for (const [at, [, , wanted]] of snippets.entries()) {
    await t.test(title(at), async () => {
      const { stdout } = await run(process.execPath, [`build/readme/${at}.mjs`], { cwd: root, env });
      const pattern = (wanted ?? '').trim().replace(/[.*+?^${}()|[\]\\]/g, '\\$&').replaceAll('…', '.*');
      assert.match(stdout.trim(), new RegExp(`^${pattern}$`));
    });
  }
  assert.ok(snippets.length >= 7);
  if (real === undefined) assert.ok(side.events.size > 0);
});
