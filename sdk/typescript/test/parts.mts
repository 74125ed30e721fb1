// A stub provider, a stub sidecar, and clients between them; processes.

import { spawn } from 'node:child_process';
import { after } from 'node:test';
import Anthropic from '@anthropic-ai/sdk';
import OpenAI from 'openai';
import { type Options, Spendfuse, type WrapOptions } from 'spendfuse';
import { provider, type ProviderOptions, sidecar, type SidecarOptions } from './stub.mjs';

export async function parts(given: { provider?: ProviderOptions; sidecar?: SidecarOptions; options?: Options; wrap?: WrapOptions } = {}) {
  const upstream = await provider(given.provider);
  const side = await sidecar(given.sidecar);
  const logged: string[] = [];
  const spendfuse = new Spendfuse({ url: side.url, workspace: 'acme', flushIntervalMs: 1, log: (message) => logged.push(message), ...given.options });
  after(() => Promise.all([upstream.close(), side.close()]));
  const bare = new OpenAI({ apiKey: 'k', baseURL: `${upstream.url}/v1` });
  const openai = spendfuse.wrap(bare, { provider: 'openai', ...given.wrap });
  const anthropic = spendfuse.wrap(new Anthropic({ apiKey: 'k', baseURL: upstream.url }), given.wrap);
  return { upstream, side, spendfuse, openai, anthropic, bare, logged };
}

/** Runs a script in a process of its own; its exit code. */
export async function run(script: string, env: Record<string, string>): Promise<{ code: number | null; ms: number; said: string }> {
  const began = performance.now();
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
  let said = '';
  child.stdout.on('data', (data) => (said += data));
  child.stderr.on('data', (data) => (said += data));
  const code = await new Promise<number | null>((resolve) => child.on('close', resolve));
  return { code, ms: performance.now() - began, said };
}
