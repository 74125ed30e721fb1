/** Runtimes with `fetch` and nothing else: edge functions, workers, browsers. */

import type { Platform, Storage } from './types.js';

export const platform: Platform = {
  storage: <T>() => {
    // Workers with Node's compatibility, and Vercel's edge, have it as a global.
    const AsyncLocalStorage = (globalThis as { AsyncLocalStorage?: new () => Storage<T> }).AsyncLocalStorage;
    return AsyncLocalStorage === undefined ? undefined : new AsyncLocalStorage();
  },
  env: (name) => (globalThis as { process?: { env?: Record<string, string | undefined> } }).process?.env?.[name],
  ask: async (target, asked) => {
    if (target.socketPath !== undefined) throw new Error('this runtime has no Unix sockets: set an http(s) address');
    const answer = await fetch(target.base + target.prefix + asked.path, {
      method: asked.method,
      headers: withoutHost(asked.headers),
      ...(asked.body === undefined ? {} : { body: asked.body }),
      signal: AbortSignal.timeout(asked.connectMs + asked.answerMs),
    });
    return { status: answer.status, retryAfter: answer.headers.get('retry-after'), text: await answer.text() };
  },
  hmac: () => undefined,
  unref: (timer) => {
    (timer as { unref?: () => void } | undefined)?.unref?.();
  },
  onExit: () => {},
};

/** `fetch` says it itself. */
function withoutHost({ host: _, ...headers }: Record<string, string>): Record<string, string> {
  return headers;
}
