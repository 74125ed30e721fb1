/** Clients guarded and metered at their transport: the same class, the same types, nothing patched. */

import type { Core } from './core.js';
import { SpendfuseError } from './errors.js';
import { exchange, type Send } from './exchange.js';
import type { WrapOptions } from './types.js';

type Fetch = typeof globalThis.fetch;

/** Marks a guarded `fetch`, and keeps what it guards: wrapping twice is wrapping once. */
const GUARDED = Symbol.for('spendfuse.fetch');

interface Guarded extends Fetch {
  [GUARDED]?: { bare: Fetch; options: WrapOptions };
}

/** OpenAI's and Anthropic's clients, and what others build on them (Azure, Bedrock, Vertex). */
interface Stainless {
  fetch: Fetch;
  apiVersion?: string;
  deploymentName?: string;
  withOptions(options: object): Stainless;
  makeStatusError(status: number, error: unknown, message: unknown, headers: Headers): Error;
}

/** `@google/genai`. */
interface Google {
  apiClient: { apiCall: ((url: string, init: RequestInit, ...rest: unknown[]) => Promise<Response>) & { [GUARDED]?: { bare: Google['apiClient']['apiCall']; options: WrapOptions } } };
}

export function wrap<T extends object>(core: Core, client: T, options: WrapOptions): T {
  if (typeof client === 'function') return guarded(core, client as unknown as Fetch, options) as unknown as T;
  if (isStainless(client)) return wrapStainless(core, client, options) as unknown as T;
  if (isGoogle(client)) return wrapGoogle(core, client, options) as unknown as T;
  const name = (client as object).constructor?.name ?? typeof client;
  throw new SpendfuseError(
    `wrap() knows clients of openai, @anthropic-ai/sdk and @google/genai, and fetch functions, not ${name}; ` +
      'give its client `fetch: wrap(fetch)`, or use guardedCall()',
  );
}

const isStainless = (client: object): client is Stainless =>
  typeof (client as Partial<Stainless>).withOptions === 'function' &&
  typeof (client as Partial<Stainless>).fetch === 'function' &&
  typeof (client as Partial<Stainless>).makeStatusError === 'function';

const isGoogle = (client: object): client is Google => typeof (client as Partial<Google>).apiClient?.apiCall === 'function';

/** A `fetch` for whoever takes one: Vercel's providers, LangChain, OpenAI-like clients. Refusals are thrown. */
function guarded(core: Core, given: Guarded, options: WrapOptions): Fetch {
  const { bare, options: outer } = bareOf(given);
  const all = { ...outer, ...options };
  const guard: Guarded = (input, init) => exchange(core, all, (...sent: Parameters<Send>) => bare(...sent), input as RequestInfo | URL, init);
  guard[GUARDED] = { bare, options: all };
  return guard;
}

const bareOf = (given: Guarded): { bare: Fetch; options: WrapOptions } => given[GUARDED] ?? { bare: given, options: {} };

/** Refusals on their way through a client: it would try a thrown error again, and hide it in an error of its own. */
const refusals = new WeakMap<Headers, Error>();

function wrapStainless(core: Core, client: Stainless, options: WrapOptions): Stainless {
  const throwing = guarded(core, client.fetch, options) as Guarded;
  const answering: Guarded = async (input, init) => {
    try {
      return await throwing(input, init);
    } catch (error) {
      if (!(error instanceof SpendfuseError)) throw error;
      // No client tries a 402 again.
      const refusal = Response.json({ error: { message: error.message, code: 'budget_exceeded' } }, { status: 402 });
      refusals.set(refusal.headers, error);
      return refusal;
    }
  };
  const mark = throwing[GUARDED];
  if (mark !== undefined) answering[GUARDED] = mark;
  // A copy of an AzureOpenAI forgets these (openai 6.49).
  const { apiVersion, deploymentName: deployment } = client;
  const azure = apiVersion ? { apiVersion, ...(deployment ? { deployment } : {}) } : {};
  return raising(client.withOptions({ ...azure, fetch: answering }));
}

/** Hidden on the instance: class, prototype and `instanceof` stay what they are. Copies raise, too. */
function raising(client: Stainless): Stainless {
  const { makeStatusError, withOptions } = client;
  const hide = (name: keyof Stainless, value: unknown): void => {
    Object.defineProperty(client, name, { value, configurable: true, enumerable: false, writable: true });
  };
  hide('makeStatusError', function (this: Stainless, status: number, error: unknown, message: unknown, headers: Headers) {
    const made = makeStatusError.call(this, status, error, message, headers);
    const refusal = refusals.get(headers);
    // An error of both kinds: the clients' stream helpers hide foreign ones in errors of their own.
    return refusal === undefined ? made : Object.defineProperties(made, Object.getOwnPropertyDescriptors(refusal));
  });
  hide('withOptions', function (this: Stainless, given: object) {
    return raising(withOptions.call(this, given));
  });
  return client;
}

/** In place: its modules hold one transport, which cannot be copied. Its own retries stay within one hold. */
function wrapGoogle(core: Core, client: Google, options: WrapOptions): Google {
  const { apiClient } = client;
  const given = apiClient.apiCall;
  const { bare, options: outer } = given[GUARDED] ?? { bare: given, options: {} };
  const all = { ...outer, ...options };
  const apiCall: Google['apiClient']['apiCall'] = (url, init, ...rest) =>
    exchange(core, all, (input, init) => bare.call(apiClient, String(input), init ?? {}, ...rest), url, init);
  apiCall[GUARDED] = { bare, options: all };
  Object.defineProperty(apiClient, 'apiCall', { value: apiCall, configurable: true, enumerable: false, writable: true });
  return client;
}
