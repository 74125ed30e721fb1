/** One request at the transport: asked for, sent, and metered as its answer passes. */

import { platform } from '#platform';
import { permitted } from './call.js';
import { currentScope, type Scope } from './context.js';
import type { Core } from './core.js';
import { canonicalPrompt } from './fingerprint.js';
import { Meter } from './meter.js';
import { passing, wholeOf } from './passing.js';
import { type Asked, bodyOf, canReplaceModel, isRequest, lacksUsage, read, replaceModel, withUsage } from './request.js';
import { providerOf, type Route, routeOf } from './route.js';
import type { Attribution, Decision, WrapOptions } from './types.js';
import { merged } from './wire.js';

const OF_BEDROCK = /\/model\/[^/]+\/(invoke|converse)[\w-]*$/;

export type Send = (input: RequestInfo | URL, init: RequestInit | undefined) => Promise<Response>;

/** Statuses of those who do not know a member of the body; 422 is Mistral's, and that of all who check bodies with pydantic. */
const REFUSES_BODY: ReadonlySet<number> = new Set([400, 422]);
/** Upstreams that refuse to be asked for a stream's usage, by origin. */
const MOST_REFUSING = 256;
const refusing = new Set<string>();

/**
 * Sends a request by `send`. What is no call of a model passes untouched.
 *
 * @throws {BudgetExceededError} and its like, before anything is sent.
 */
export async function exchange(core: Core, options: WrapOptions, send: Send, input: RequestInfo | URL, init?: RequestInit): Promise<Response> {
  if (core.config.disabled) return send(input, init);
  // Browsers take addresses without a host.
  let original: URL;
  try {
    original = new URL(isRequest(input) ? input.url : String(input), typeof location === 'undefined' ? undefined : location.href);
  } catch {
    // Some functions that are called like `fetch` know where an address without a host leads; no provider is there.
    return send(input, init);
  }
  const route = routeOf((init?.method ?? (isRequest(input) ? input.method : 'GET')).toUpperCase(), original);
  if (route === undefined) {
    if (OF_BEDROCK.test(original.pathname)) core.config.log('calls of Bedrock by fetch pass unguarded and uncounted: wrap a BedrockRuntimeClient, use the proxy, or guardedCall()');
    return send(input, init);
  }

  const text = await bodyOf(input, init);
  const asked = read(route, text);
  const scope = currentScope();
  const who = merged(core.config.defaults, options, scope.who);
  const provider = options.provider ?? providerOf(original);
  const decision = route.retrieves ? undefined : await permission(core, options, scope, who, provider, asked);
  scope.call?.metered();

  let url = original;
  let body = asked.body;
  let model = asked.model;
  const other = decision?.downgradeTo;
  if (other && (options.downgrade ?? 'apply') === 'apply') {
    if (canReplaceModel(route, asked, url, other)) {
      ({ url, body } = replaceModel(route, asked, url, other));
      model = other;
    } else core.config.log(`a cheaper model is wanted and cannot be asked here: ${other} for ${asked.model}`);
  }
  const asksUsage = lacksUsage(route, asked) && !refusing.has(url.origin);

  const meter = new Meter({
    core,
    scope: options.waitUntil === undefined ? scope : { ...scope, waitUntil: options.waitUntil },
    who,
    route,
    url,
    provider: options.provider,
    askedModel: model,
    askedTier: asked.serviceTier,
    requestTokens: asked.inputTokens,
    reservation: decision?.reservationId ?? undefined,
    isDowngraded: model !== asked.model || (scope.call?.isDowngraded === true && scope.call.decision.downgradeTo === model),
    promptFingerprint: fingerprintOf(core, route, asked.body),
  });
  const sent = new Headers(init?.headers ?? (isRequest(input) ? input.headers : undefined));
  // What is not edited is sent as the app has made it, to the byte.
  const isEdited = model !== asked.model || asksUsage;
  const once = (edited: Record<string, unknown> | undefined): Promise<Response> =>
    isEdited ? send(...requestWith(input, init, url, JSON.stringify(edited))) : send(input, init);
  let answer: Response;
  // Given up while it was asked for: nothing is sent.
  const isGivenUp = (init?.signal ?? (isRequest(input) ? input.signal : undefined))?.aborted === true;
  try {
    answer = await once(asksUsage && body !== undefined ? withUsage(body) : body);
    if (asksUsage && REFUSES_BODY.has(answer.status) && (await names(answer, 'stream_options', 'include_usage'))) {
      answer = await send(...requestWith(input, init, url, model === asked.model && text !== undefined ? text : JSON.stringify(body)));
      // Only where that succeeds was the question at fault, and not something else in the request.
      if (answer.ok && refusing.size < MOST_REFUSING) refusing.add(url.origin);
      return metered(answer, meter, asked.streams, false, route, sent);
    }
  } catch (error) {
    // What was sent may be charged, whatever has become of the answer.
    if (!isGivenUp && wasSent(error)) meter.cut();
    else meter.forget();
    throw error;
  }
  return metered(answer, meter, asked.streams, asksUsage, route, sent);
}

/** Whether a call may be made, by the guarded call around it or by the sidecar; throws where it may not. */
export async function permission(
  core: Core,
  options: WrapOptions,
  scope: Scope,
  who: Attribution,
  provider: string | undefined,
  asked: Pick<Asked, 'model' | 'inputTokens' | 'maxOutputTokens'>,
): Promise<Decision> {
  const adopted = scope.call?.adopt();
  if (adopted !== undefined) return { ...adopted.decision, reservationId: adopted.reservation };
  await scope.session?.permits();
  const price = { model: asked.model, inputTokens: asked.inputTokens, ...(provider ? { provider } : {}) };
  const question = {
    ...who,
    model: asked.model,
    ...(provider ? { provider } : {}),
    ...(asked.model === '' ? {} : { estimate: asked.maxOutputTokens === undefined ? price : { ...price, maxOutputTokens: asked.maxOutputTokens } }),
    reserve: options.reserve !== false && asked.model !== '',
    ...(options.callTimeoutS === undefined ? {} : { callTimeoutS: options.callTimeoutS }),
    ...(scope.session?.limitUsd === undefined ? {} : { sessionLimitUsd: scope.session.limitUsd }),
  };
  return permitted(core, question, options.onUnavailable ?? core.config.onUnavailable, options.downgrade ?? 'apply');
}

/** Of the prompt, where a key for it is set. */
export function fingerprintOf({ config }: Core, route: Route, body: Record<string, unknown> | undefined): string | undefined {
  if (config.fingerprintKey === undefined || body === undefined || route.operation === 'embeddings') return undefined;
  const prompt = canonicalPrompt(body);
  if (prompt === undefined) return undefined;
  const hex = platform.hmac(config.fingerprintKey, prompt);
  if (hex === undefined) config.log('this runtime makes no fingerprints: calls are told without');
  return hex?.slice(0, 16);
}

/** How providers name a request whose answer has no id. */
const REQUEST_IDS = ['x-request-id', 'request-id', 'apim-request-id', 'x-amzn-requestid'];

function metered(answer: Response, meter: Meter, streams: boolean, strips: boolean, route: Parameters<typeof wholeOf>[2], sent: Headers): Response {
  // Behind a proxy of spendfuse the proxy tells.
  if (!answer.ok || answer.headers.has('x-spendfuse-decision')) {
    meter.forget();
    return answer;
  }
  // A name that the app has sent is no name: all its calls could have one.
  const named = REQUEST_IDS.map((name) => answer.headers.get(name) ?? '');
  meter.requestId = named.find((name) => name !== '' && ![...sent.values()].includes(name)) ?? '';
  const isEvents = answer.headers.get('content-type')?.startsWith('text/event-stream') ?? false;
  // The streams of `node-fetch` are Node's: they are read beside the app.
  const isReadable = typeof answer.body?.getReader === 'function';
  if (isReadable && (isEvents || (streams && !answer.headers.get('content-type')?.startsWith('application/json')))) {
    return passing(answer, meter, route, strips);
  }
  wholeOf(answer, meter, route);
  return answer;
}

function requestWith(input: RequestInfo | URL, init: RequestInit | undefined, url: URL, body: string): [RequestInfo | URL, RequestInit] {
  const from = isRequest(input) ? { method: input.method, headers: input.headers, signal: input.signal } : {};
  const headers = new Headers(init?.headers ?? (isRequest(input) ? input.headers : undefined));
  // It is counted anew where it is sent.
  headers.delete('content-length');
  return [typeof input === 'string' ? url.href : url, { ...from, ...init, headers, body }];
}

async function names(answer: Response, ...words: string[]): Promise<boolean> {
  const text = await answer
    .clone()
    .text()
    .catch(() => '');
  return words.some((word) => text.includes(word));
}

const NEVER_SENT = new Set(['ECONNREFUSED', 'ENOTFOUND', 'EAI_AGAIN', 'EHOSTUNREACH', 'ENETUNREACH', 'UND_ERR_CONNECT_TIMEOUT', 'UND_ERR_INVALID_ARG', 'CERT_HAS_EXPIRED', 'DEPTH_ZERO_SELF_SIGNED_CERT']);

/** Whether the request may have reached its provider. */
function wasSent(error: unknown): boolean {
  for (let cause: unknown = error, depth = 0; cause instanceof Error && depth < 5; cause = cause.cause, depth += 1) {
    const { code } = cause as { code?: unknown };
    if (typeof code === 'string' && NEVER_SENT.has(code)) return false;
  }
  return true;
}
