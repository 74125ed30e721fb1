/**
 * `BedrockRuntimeClient` of `@aws-sdk/client-bedrock-runtime`, guarded and metered by a middleware before all others:
 * a refusal is thrown before anything is signed, and the client's own retries stay within one hold.
 */

import { currentScope } from './context.js';
import type { Core } from './core.js';
import { fingerprintOf, permission } from './exchange.js';
import { Meter } from './meter.js';
import { tokensOf } from './pictures.js';
import { providerOf, type Route, route } from './route.js';
import { parsed } from './sse.js';
import type { WrapOptions } from './types.js';
import { merged } from './wire.js';

type Json = Record<string, unknown>;
type Next = (args: { input: Json }) => Promise<{ output: Json; response?: unknown }>;

export interface Runtime {
  config: { serviceId?: string; region?: unknown; endpoint?: unknown };
  middlewareStack: { add(middleware: (next: Next, context: { commandName?: string }) => Next, options: object): void };
}

/** The calls that cost money, and how their answers are read. */
const CALLS: Partial<Record<string, Route>> = {
  ConverseCommand: route('converse', 'chat', 'bedrock.converse'),
  ConverseStreamCommand: route('converse', 'chat', 'bedrock.converse', { streams: true }),
  InvokeModelCommand: route('invoke', 'invoke_model', 'bedrock.converse'),
  InvokeModelWithResponseStreamCommand: route('invoke', 'invoke_model', 'bedrock.converse', { streams: true }),
};
/** Models that Bedrock has: `us.anthropic.claude-…`, `amazon.nova-…`, and their ARNs. */
const OF_BEDROCK = /^(arn:|([a-z-]+\.)?[a-z0-9]+\.[a-z])/;
/** What Bedrock counts in headers, where a model does not say it in a form that is known. */
const COUNTS = {
  'x-amzn-bedrock-input-token-count': 'inputTokens',
  'x-amzn-bedrock-output-token-count': 'outputTokens',
  'x-amzn-bedrock-cache-read-input-token-count': 'cacheReadInputTokens',
  'x-amzn-bedrock-cache-write-input-token-count': 'cacheWriteInputTokens',
};
/** Errors after which a request may have reached Bedrock. */
const SENT: ReadonlySet<unknown> = new Set(['AbortError', 'TimeoutError', 'ECONNRESET', 'EPIPE', 'ETIMEDOUT', 'UND_ERR_SOCKET']);
/** Of a picture or a document a text as long as what it costs at most. */
const LONGEST_BYTES = 20_000;

const OPTIONS = Symbol.for('spendfuse.bedrock');

export const isRuntime = (client: object): client is Runtime =>
  (client as Partial<Runtime>).config?.serviceId === 'Bedrock Runtime' && typeof (client as Partial<Runtime>).middlewareStack?.add === 'function';

/** In place, as its commands find it. */
export function wrapRuntime(core: Core, client: Runtime & { [OPTIONS]?: WrapOptions }, options: WrapOptions): Runtime {
  const all = { ...client[OPTIONS], ...options };
  Object.defineProperty(client, OPTIONS, { value: all, configurable: true, enumerable: false });
  const guard = (next: Next, { commandName = '' }: { commandName?: string }): Next => {
    const kind = CALLS[commandName];
    return kind === undefined || core.config.disabled ? next : (args) => call(core, client, all, { ...kind, model: String(args.input['modelId'] ?? '') }, next, args);
  };
  client.middlewareStack.add(guard, { step: 'initialize', priority: 'high', name: 'spendfuse', override: true });
  return client;
}

async function call(core: Core, client: Runtime, options: WrapOptions, kind: Route, next: Next, args: { input: Json }): ReturnType<Next> {
  const scope = currentScope();
  const who = merged(core.config.defaults, options, scope.who);
  const region = String(await told(client.config.region));
  const url = await addressOf(client, region);
  const provider = options.provider ?? providerOf(url) ?? 'bedrock';
  const { text, body } = askedOf(kind, args.input);
  const config = body?.['inferenceConfig'] as Json | undefined;
  const most = [config?.['maxTokens'], body?.['max_tokens']].find((count): count is number => typeof count === 'number');
  const inputTokens = tokensOf(text);
  const decision = await permission(core, options, scope, who, provider, { model: kind.model, inputTokens, maxOutputTokens: most });
  scope.call?.metered();
  const other = (options.downgrade ?? 'apply') === 'apply' ? decision.downgradeTo : null;
  let model = kind.model;
  // Only Bedrock's own form is the same for all models.
  if (other && kind.shape === 'converse' && OF_BEDROCK.test(other)) model = other;
  else if (other && other !== model) core.config.log(`a cheaper model is wanted and cannot be asked here: ${other} for ${model}`);
  const meter = new Meter({
    core,
    scope: options.waitUntil === undefined ? scope : { ...scope, waitUntil: options.waitUntil },
    who,
    route: kind,
    url,
    provider: options.provider,
    askedModel: model,
    askedTier: undefined,
    requestTokens: inputTokens,
    reservation: decision.reservationId ?? undefined,
    isDowngraded: model !== kind.model || (scope.call?.isDowngraded === true && scope.call.decision.downgradeTo === model),
    promptFingerprint: fingerprintOf(core, kind, body),
    region,
  });
  let result;
  try {
    result = await next({ ...args, input: { ...args.input, modelId: model } });
  } catch (error) {
    const { name, code, $metadata } = error as { name?: unknown; code?: unknown; $metadata?: { httpStatusCode?: number } };
    if ($metadata?.httpStatusCode === undefined && (SENT.has(name) || SENT.has(code))) meter.cut();
    else meter.forget();
    throw error;
  }
  const { output } = result;
  const headers = ((result.response as { headers?: Record<string, string> } | undefined)?.headers ?? {}) as Record<string, string>;
  meter.requestId = (output['$metadata'] as { requestId?: string } | undefined)?.requestId ?? headers['x-amzn-requestid'] ?? '';
  if (kind.streams) {
    const name = kind.shape === 'converse' ? 'stream' : 'body';
    output[name] = followed(output[name] as AsyncIterable<Json>, meter, kind);
    return result;
  }
  meter.seen.take(kind, kind.shape === 'converse' ? output : parsed(textOf(output['body'])));
  if (kind.shape === 'invoke') countByHeaders(meter, headers);
  meter.settle();
  return result;
}

/** Settles calls whose streams are thrown away unread. */
const abandoned = typeof FinalizationRegistry === 'undefined' ? undefined : new FinalizationRegistry<Meter>((meter) => meter.settle());

function followed(stream: AsyncIterable<Json>, meter: Meter, kind: Route): AsyncIterable<Json> {
  const events = (async function* () {
    try {
      for await (const event of stream) {
        for (const part of Object.values(event)) {
          const bytes = (part as { bytes?: unknown } | undefined)?.bytes;
          meter.seen.take(kind, bytes === undefined ? part : parsed(textOf(bytes)));
        }
        yield event;
      }
    } finally {
      // Left or broken, it is charged by what was seen.
      meter.settle();
    }
  })();
  abandoned?.register(events, meter);
  return events;
}

function countByHeaders({ seen }: Meter, headers: Record<string, string>): void {
  seen.serviceTier = headers['x-amzn-bedrock-service-tier'] || seen.serviceTier;
  const counts = Object.entries(COUNTS).filter(([header]) => /^\d+$/.test(headers[header] ?? ''));
  if (seen.isFinal || counts.length === 0) return;
  seen.usage = Object.fromEntries(counts.map(([header, name]) => [name, Number(headers[header])]));
  seen.format = undefined;
  seen.isFinal = true;
}

/** Of a list of bytes only its length counts. A `Buffer` has become a list of numbers before it is handed in here. */
function short(this: Json, name: string, value: unknown): unknown {
  const given = this[name];
  if (ArrayBuffer.isView(given)) return 'x'.repeat(Math.min(given.byteLength, LONGEST_BYTES));
  return typeof value === 'bigint' ? String(value) : value;
}

function askedOf(kind: Route, input: Json): { text: string; body: Json | undefined } {
  if (kind.shape === 'converse') {
    const { messages, system, toolConfig } = input;
    return { text: JSON.stringify({ messages, system, toolConfig }, short), body: input };
  }
  const text = textOf(input['body']);
  return { text, body: parsed(text) as Json | undefined };
}

const textOf = (body: unknown): string => (ArrayBuffer.isView(body) ? new TextDecoder().decode(body) : typeof body === 'string' ? body : '');

/** Settings are functions by the time that a client is used. */
const told = async (value: unknown): Promise<unknown> => (typeof value === 'function' ? (value as () => unknown)() : value);

async function addressOf({ config }: Runtime, region: string): Promise<URL> {
  const endpoint = (await told(config.endpoint)) as { protocol: string; hostname: string; port?: number } | undefined;
  if (endpoint?.hostname === undefined) return new URL(`https://bedrock-runtime.${region}.amazonaws.com`);
  return new URL(`${endpoint.protocol}//${endpoint.hostname}${endpoint.port === undefined ? '' : `:${endpoint.port}`}`);
}
