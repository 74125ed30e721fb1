/** Node (and whatever takes Node's modules): sockets, a pool of connections, a drain at exit. */

import { AsyncLocalStorage } from 'node:async_hooks';
import { spawnSync } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { Agent, request } from 'node:https';
import { ask } from './http1.js';
import type { Answer, Asked, End, LastWords, Platform, Target } from './types.js';
import { platform as web } from './web.js';

/** Longest that the end of a process is held up. */
const LAST_WORDS_MS = 2_000;

export const platform: Platform = {
  storage: <T>() => new AsyncLocalStorage<T>(),
  env: (name) => process.env[name],
  // TLS is Node's own business; it is for sidecars that are far, where a tenth of a millisecond is little.
  ask: (target, asked) => {
    if (!target.base.startsWith('https:')) return ask(target, asked);
    return asked.isBackground === true ? askInBackground(target, asked) : web.ask(target, asked);
  },
  hmac: (key, text) => createHmac('sha256', key).update(text).digest('hex'),
  unref: (timer) => {
    (timer as { unref?: () => void }).unref?.();
  },
  onExit: (end) => {
    if (!isListening) {
      isListening = true;
      process.on('beforeExit', () => ends.forEach((end) => void end.deref()?.drain()));
      process.on('exit', () => ends.forEach((end) => say(end.deref()?.last())));
    }
    const held = new WeakRef(end);
    ends.add(held);
    gone.register(end, held);
  },
};

/** `fetch` keeps the process alive while it waits, and has no way to say otherwise. */
function askInBackground(target: Target, asked: Asked): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const { method, headers } = asked;
    const asking = request(target.base + target.prefix + asked.path, { method, headers, agent: IN_BACKGROUND, signal: AbortSignal.timeout(asked.connectMs + asked.answerMs) });
    asking.on('socket', (socket) => socket.unref());
    asking.on('error', reject);
    asking.on('response', (answer) => {
      const parts: Buffer[] = [];
      answer.on('data', (part: Buffer) => parts.push(part));
      answer.on('error', reject);
      answer.on('end', () => resolve({ status: answer.statusCode ?? 0, retryAfter: answer.headers['retry-after'] ?? null, text: Buffer.concat(parts).toString() }));
    });
    asking.end(asked.body);
  });
}

const IN_BACKGROUND = new Agent({ keepAlive: true, maxSockets: 4 });

/** Of every `Spendfuse` that has told of something. */
const ends = new Set<WeakRef<End>>();
const gone = new FinalizationRegistry<WeakRef<End>>((held) => ends.delete(held));
let isListening = false;

/** Nothing asynchronous runs any more: another process says it. */
function say(words: LastWords | undefined): void {
  if (words === undefined) return;
  const script = `
    const { target, path, headers, bodies } = JSON.parse(require('fs').readFileSync(0, 'utf8'));
    const url = new URL(target.base);
    const where = target.socketPath ? { socketPath: target.socketPath } : { host: url.hostname.replace(/^\\[|\\]$/g, ''), port: url.port };
    const { request } = require(url.protocol === 'https:' ? 'https' : 'http');
    const next = () => {
      const body = bodies.shift();
      if (body === undefined) return;
      const asking = request({ ...where, method: 'POST', path, headers: { ...headers, 'content-length': Buffer.byteLength(body) } });
      asking.on('response', (answer) => answer.resume().on('end', next)).on('error', () => {}).end(body);
    };
    next();`;
  try {
    // The token travels by standard input: arguments can be read by everybody on the machine.
    spawnSync(process.execPath, ['-e', script], { input: JSON.stringify({ ...words, path: words.target.prefix + words.path }), timeout: LAST_WORDS_MS, stdio: ['pipe', 'ignore', 'ignore'] });
  } catch {
    // There is nobody left to tell.
  }
}
