/** Node (and whatever takes Node's modules): sockets, a pool of connections, a drain at exit. */

import { AsyncLocalStorage } from 'node:async_hooks';
import { spawnSync } from 'node:child_process';
import http from 'node:http';
import https from 'node:https';
import type { Answer, Asked, LastWords, Platform, Target } from './types.js';

/** Longest that the end of a process is held up. */
const LAST_WORDS_MS = 2_000;

let agents: { http: http.Agent; https: https.Agent } | undefined;

/** One pool for all, made when it is first needed. */
function pool(): { http: http.Agent; https: https.Agent } {
  const options = { keepAlive: true, maxSockets: 64, scheduling: 'lifo' as const };
  agents ??= { http: new http.Agent(options), https: new https.Agent(options) };
  return agents;
}

export const platform: Platform = {
  storage: <T>() => new AsyncLocalStorage<T>(),
  env: (name) => process.env[name],
  ask: async (target, asked) => {
    try {
      return await once(target, asked);
    } catch (error) {
      // The sidecar closed an idle connection in the moment in which it was taken again.
      if (!(error instanceof Error && (error as Reused).wasReused)) throw error;
      return once(target, asked);
    }
  },
  unref: (timer) => {
    (timer as { unref?: () => void }).unref?.();
  },
  onExit: (drain, last) => {
    if (ends.length === 0) {
      process.on('beforeExit', () => ends.forEach((end) => void end.drain()));
      process.on('exit', () => ends.forEach((end) => say(end.last())));
    }
    ends.push({ drain, last });
  },
};

/** Of every `Spendfuse` that has told of something. */
const ends: { drain: () => unknown; last: () => LastWords | undefined }[] = [];

interface Reused extends Error {
  wasReused?: boolean;
}

function once(target: Target, asked: Asked): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const secure = target.base.startsWith('https:');
    const where = target.socketPath === undefined ? splitBase(target.base) : { socketPath: target.socketPath, host: 'localhost' };
    const body = asked.body === undefined ? undefined : Buffer.from(asked.body);
    const headers = body === undefined ? asked.headers : { ...asked.headers, 'content-length': body.length };
    const agent = secure ? pool().https : pool().http;
    const request = (secure ? https : http).request({ ...where, agent, method: asked.method, path: asked.path, headers });
    let timer: NodeJS.Timeout;
    let armed = 0;
    const done = () => {
      armed += 1;
      clearTimeout(timer);
    };
    const limit = (ms: number, what: string) => {
      done();
      const [own, from] = [armed, performance.now()];
      const over = () => {
        if (own !== armed) return;
        // Where the app itself kept the loop busy, the answer may wait in the socket.
        if (performance.now() - from > 2 * ms) return limit(ms, what);
        request.destroy(new Error(`${what} after ${ms} ms`));
      };
      // What has come by now is read first.
      timer = setTimeout(() => setImmediate(over), ms);
    };
    limit(asked.connectMs, 'no connection');
    request.on('socket', (socket) => {
      const connected = () => limit(asked.answerMs, 'no answer');
      if (socket.connecting) socket.once(secure ? 'secureConnect' : 'connect', connected);
      else connected();
    });
    request.on('error', (error: Reused) => {
      done();
      const isReset = (error as NodeJS.ErrnoException).code === 'ECONNRESET' || (error as NodeJS.ErrnoException).code === 'EPIPE';
      error.wasReused = request.reusedSocket && isReset;
      reject(error);
    });
    request.on('response', (response) => {
      const parts: Buffer[] = [];
      response.on('data', (part: Buffer) => parts.push(part));
      response.on('error', (error) => {
        done();
        reject(error);
      });
      response.on('end', () => {
        done();
        resolve({
          status: response.statusCode ?? 0,
          retryAfter: response.headers['retry-after'] ?? null,
          text: Buffer.concat(parts).toString(),
        });
      });
    });
    request.end(body);
  });
}

function splitBase(base: string): { host: string; port: string } {
  const url = new URL(base);
  return { host: url.hostname.replace(/^\[|\]$/g, ''), port: url.port || (url.protocol === 'https:' ? '443' : '80') };
}

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
    spawnSync(process.execPath, ['-e', script], { input: JSON.stringify(words), timeout: LAST_WORDS_MS, stdio: ['pipe', 'ignore', 'ignore'] });
  } catch {
    // There is nobody left to tell.
  }
}
