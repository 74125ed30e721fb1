// The package as npm delivers it: installed in an empty project, by import and by require.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../', import.meta.url));
const VERBS = ['BudgetExceededError', 'SessionBlockedError', 'Spendfuse', 'SpendfuseError', 'StateUnknownError', 'addUsage', 'check', 'configure', 'context', 'flush', 'guard', 'guardedCall', 'session', 'shutdown', 'track', 'wrap'];

test('the tarball works by import and by require, with types for both, and brings nothing with it', () => {
  const project = mkdtempSync(join(tmpdir(), 'sf-package-'));
  after(() => rmSync(project, { recursive: true }));
  const run = (program: string, ...given: string[]): string => execFileSync(program, given, { cwd: project, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  const packed = JSON.parse(execFileSync('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', project], { cwd: root, encoding: 'utf8' }));
  const [{ filename, files }] = packed as [{ filename: string; files: { path: string }[] }];
  assert.ok(files.every(({ path }) => /^(dist\/.*\.(js|d\.ts)|dist\/\w+\/package\.json|README\.md|package\.json)$/.test(path)), JSON.stringify(files));
  writeFileSync(join(project, 'package.json'), '{"name":"empty","private":true}');
  run('npm', 'install', '--offline', '--no-audit', '--no-fund', filename);
  assert.deepEqual(readdirSync(join(project, 'node_modules')).filter((name) => !name.startsWith('.')), ['spendfuse']);

  writeFileSync(join(project, 'by-import.mjs'), `import * as all from 'spendfuse'; import { createRequire } from 'node:module';
    const other = createRequire(import.meta.url)('spendfuse');
    // Both copies may be loaded: their errors are of one kind, their contexts are one.
    const error = new other.StateUnknownError('x');
    if (!(error instanceof all.StateUnknownError) || error instanceof all.BudgetExceededError) process.exit(2);
    console.log(Object.keys(all).sort().join());`);
  writeFileSync(join(project, 'by-require.cjs'), `console.log(Object.keys(require('spendfuse')).sort().join())`);
  for (const script of ['by-import.mjs', 'by-require.cjs']) assert.equal(run(process.execPath, script).trim(), VERBS.join());

  const typed = `const spendfuse = new Spendfuse({ url: 'unix:/x' });
    const kept: 'fetched' = spendfuse.wrap({ name: 'fetched' as const }).name;
    const answer: Promise<number> = spendfuse.guardedCall({ customer: 'c' }, async (call) => call.model('m').length);
    const guarded: (given: string) => Promise<number> = spendfuse.guard((given: string) => ({ customer: given }), async (given: string) => given.length);
    // @ts-expect-error a misspelt dimension
    void spendfuse.check({ custommer: 'c' });
    void [kept, answer, guarded];`;
  writeFileSync(join(project, 'typed.mts'), `import { Spendfuse } from 'spendfuse';\n${typed}`);
  writeFileSync(join(project, 'typed.cts'), `import { Spendfuse } from 'spendfuse';\n${typed}`);
  symlinkSync(join(root, 'node_modules', 'typescript'), join(project, 'node_modules', 'typescript'));
  try {
    run(process.execPath, join(root, 'node_modules/typescript/bin/tsc'), '--noEmit', '--strict', '--skipLibCheck', 'false', '--module', 'nodenext', '--types', '', '--lib', 'es2022,esnext.disposable,dom', 'typed.mts', 'typed.cts');
  } catch (error) {
    assert.fail((error as { stdout: string }).stdout);
  }
});

test('only what Node runs asks for modules of Node', () => {
  for (const kind of ['esm', 'cjs']) {
    const folder = join(root, 'dist', kind);
    for (const path of readdirSync(folder, { recursive: true }) as string[]) {
      if (!path.endsWith('.js') || /platform\/(node|http1)\.js$/.test(path)) continue;
      assert.ok(!/['"]node:/.test(readFileSync(join(folder, path), 'utf8')), path);
    }
    const scope = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
    assert.deepEqual(Object.entries(scope.imports['#platform']).filter(([, path]) => path === './platform/node.js'), [['node', './platform/node.js']]);
    assert.equal(scope.sideEffects, false);
  }
});
