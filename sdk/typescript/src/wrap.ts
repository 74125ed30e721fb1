/** Clients guarded and metered at their transport: the same class, the same types, nothing patched. */

import { isRuntime, wrapRuntime } from './bedrock.js';
import type { Core } from './core.js';
import { BudgetExceededError, SpendfuseError } from './errors.js';
import { exchange } from './exchange.js';
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
  if (isRuntime(client)) return wrapRuntime(core, client, options) as unknown as T;
  const name = (client as object).constructor?.name ?? typeof client;
  throw new SpendfuseError(
    `wrap() knows clients of openai, @anthropic-ai/sdk, @google/genai and @aws-sdk/client-bedrock-runtime, and fetch functions, not ${name}; ` +
      'give its client `fetch: wrap(fetch)`, or use guardedCall()',
  );
}

const isStainless = (client: object): client is Stainless =>
  typeof (client as Partial<Stainless>).withOptions === 'function' &&
  typeof (client as Partial<Stainless>).fetch === 'function' &&
  typeof (client as Partial<Stainless>).makeStatusError === 'function';

const isGoogle = (client: object): client is Google => typeof (client as Partial<Google>).apiClient?.apiCall === 'function';

/**
 * A `fetch` for whoever takes one: Vercel's providers, LangChain, OpenAI-like clients. Refusals are thrown;
 * to clients of OpenAI and Anthropic, which would try a thrown error again and hide it in one of their own,
 * they are answers of status 402, which no client tries again.
 */
function guarded(core: Core, given: Guarded, options: WrapOptions, answers = false): Fetch {
  const { bare, options: outer } = given[GUARDED] ?? { bare: given, options: {} };
  const all = { ...outer, ...options };
  const guard: Guarded = async (input, init) => {
    try {
      return await exchange(core, all, (...sent) => bare(...sent), input as RequestInfo | URL, init);
    } catch (error) {
      if (!(error instanceof SpendfuseError && (answers || isOfStainless(init)))) throw error;
      const refusal = Response.json({ error: { message: error.message, code: 'budget_exceeded', ...figuresOf(error) } }, { status: 402 });
      refusals.set(refusal.headers, error);
      return refusal;
    }
  };
  guard[GUARDED] = { bare, options: all };
  return guard;
}

/** Whether a client asks that the companies' own generator has made. */
const isOfStainless = (init: RequestInit | undefined): boolean => new Headers(init?.headers).has('x-stainless-lang');

function figuresOf(error: SpendfuseError): object {
  if (!(error instanceof BudgetExceededError)) return {};
  const { budget, scope, spent, limit, resetsAt, helpUrl } = error;
  return { budget, scope, spent, limit, resets_at: resetsAt, help_url: helpUrl };
}

/** Refusals on their way through a wrapped client, which raises them. */
const refusals = new WeakMap<Headers, Error>();

function wrapStainless(core: Core, client: Stainless, options: WrapOptions): Stainless {
  // A copy of an AzureOpenAI forgets these (openai 6.49).
  const { apiVersion, deploymentName: deployment } = client;
  const azure = apiVersion ? { apiVersion, ...(deployment ? { deployment } : {}) } : {};
  return raising(client.withOptions({ ...azure, fetch: guarded(core, client.fetch, options, true) }));
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
