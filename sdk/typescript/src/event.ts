/** Usage events as they are sent. Prompts and answers never enter: only named members, and numbers. */

import { amountOf } from './money.js';
import { ToolRuns } from './tools.js';
import type { Attribution, TrackedEvent, Usage, UsageFormat } from './types.js';
import { dimensionsOf, snake } from './wire.js';

/** Members beside the dimensions, by their names here; they are sent as `snake_case`. */
export const MEMBERS = [
  'id',
  'source',
  'provider',
  'model',
  'requestModel',
  'operation',
  'serviceTier',
  'usageFormat',
  'toolCalls',
  'callId',
  'attempt',
  'status',
  'latencyMs',
  'region',
  'reportedCostUsd',
  'reservationId',
  'traceId',
  'spanId',
  'parentSpanId',
  'promptFingerprint',
  'toolFingerprint',
  'flags',
] as const satisfies readonly (keyof TrackedEvent)[];

/** Longest text that a usage object may hold, as the sidecar keeps it. */
const LONGEST_TEXT = 64;
const DEEPEST = 16;

/** The event of a call. `event.id` must be there. */
export function usageEvent(event: TrackedEvent, who: Attribution, time: string): Record<string, unknown> {
  const usage = event.usage ?? {};
  const sent: Record<string, unknown> = { time, ...dimensionsOf(who), usage: numbersOf(usage, 0) };
  for (const name of MEMBERS) {
    const value = event[name];
    if (value !== undefined && value !== null && value !== '') sent[snake(name)] = name === 'reportedCostUsd' ? amountOf(value as string) : value;
  }
  sent['usage_format'] = event.usageFormat ?? formatOf(usage);
  if (event.units !== undefined) {
    sent['units'] = Object.fromEntries(Object.entries(event.units).map(([name, count]) => [name, String(count)]));
  }
  return sent;
}

export function revenueEvent(id: string, source: string | undefined, who: Attribution, revenueUsd: string, time: string): Record<string, unknown> {
  return { type: 'spendfuse.revenue', id, ...(source ? { source } : {}), time, ...dimensionsOf(who), revenue_usd: amountOf(revenueUsd) };
}

/** Numbers at any depth with their names, and texts that are words (`standard`, `batch`). */
function numbersOf(value: unknown, depth: number): unknown {
  if (typeof value === 'number' || typeof value === 'boolean') return value;
  if (typeof value === 'bigint') return Number(value);
  if (typeof value === 'string') return value.length <= LONGEST_TEXT ? value : undefined;
  if (typeof value !== 'object' || value === null || depth > DEEPEST) return undefined;
  if (Array.isArray(value)) return value.map((inner) => numbersOf(inner, depth + 1) ?? null);
  const kept: Record<string, unknown> = {};
  for (const [name, inner] of Object.entries(value)) {
    const number = name.length <= LONGEST_TEXT ? numbersOf(inner, depth + 1) : undefined;
    if (number !== undefined) kept[name] = number;
  }
  return kept;
}

/** By whose names a usage object speaks. */
export function formatOf(usage: Usage): UsageFormat {
  const has = (name: string): boolean => name in usage;
  if (has('promptTokenCount') || has('candidatesTokenCount') || has('totalTokenCount')) return 'gemini';
  if (has('inputTokens') && (has('totalTokens') || has('cacheReadInputTokens'))) return 'bedrock.converse';
  if (has('prompt_tokens') || has('completion_tokens')) return 'openai.chat';
  if (has('cache_read_input_tokens') || has('cache_creation_input_tokens') || has('server_tool_use')) return 'anthropic.messages';
  if (has('input_tokens_details') || has('output_tokens_details')) return 'openai.responses';
  if (has('total_input_tokens') || has('total_thought_tokens')) return 'gemini.interactions';
  return 'spendfuse';
}

/** What a provider's answer says of itself, whichever SDK it came from. */
export function readAnswer(answer: unknown): TrackedEvent | undefined {
  // Results of streams promise their usage: to ask for it would read the stream, and leave its error to nobody.
  if (typeof answer !== 'object' || answer === null || 'textStream' in answer) return undefined;
  const told = answer as Record<string, unknown>;
  const text = (...names: string[]): string | undefined => {
    for (const name of names) if (typeof told[name] === 'string' && told[name] !== '') return told[name];
    return undefined;
  };
  // Of several steps Vercel's `usage` may be the last one's.
  const usage = told['usageMetadata'] ?? told['totalUsage'] ?? told['usage'];
  if (usage instanceof Promise) usage.catch(() => {});
  if (typeof usage !== 'object' || usage === null || usage instanceof Promise) return undefined;
  const amazon = told['$metadata'] as { requestId?: unknown } | undefined;
  const isConverse = typeof amazon === 'object' && 'inputTokens' in usage;
  const usageFormat = isConverse ? 'bedrock.converse' : told['type'] === 'message' ? 'anthropic.messages' : (vercelFormat(usage) ?? formatOf(usage));
  const response = typeof told['response'] === 'object' && told['response'] !== null ? (told['response'] as Record<string, unknown>) : {};
  const model = text('model', 'modelVersion') ?? (typeof response['modelId'] === 'string' ? response['modelId'] : undefined);
  // The last are as clients of OpenAI, Anthropic and Amazon keep it; it names what has no other name, embeddings.
  const requestId = text('_request_id') ?? (typeof amazon?.requestId === 'string' ? amazon.requestId : undefined);
  const id = text('id', 'responseId') ?? (typeof response['id'] === 'string' ? response['id'] : undefined) ?? requestId;
  const tier = text('service_tier');
  const read: TrackedEvent = { usage: usageFormat === 'otel' ? fromVercel(usage) : usage, usageFormat };
  if (id !== undefined) read.id = id;
  if (model !== undefined) read.model = model;
  if (tier !== undefined) read.serviceTier = tier;
  const inventor = PROVIDER_OF_FORMAT[usageFormat];
  const provider = inventor === 'openai' ? sellerOf(told, model ?? '') : inventor;
  if (provider !== undefined) read.provider = provider;
  const tools = new ToolRuns();
  tools.takeAnswer(told);
  const units = tools.units(model ?? '', usage);
  if (units !== undefined) read.units = units;
  return read;
}

/** Who sold an answer in OpenAI's language; undefined where it may be anybody. */
function sellerOf(answer: object, model: string): string | undefined {
  if ('prompt_filter_results' in answer) return 'azure';
  return OF_OTHERS.test(model) ? undefined : 'openai';
}

/** Models that OpenAI does not sell, although their answers speak its language. */
const OF_OTHERS =
  /^(.*\/|bge-|chatglm|claude|codestral|command|deepseek|devstral|dolphin|doubao|embed-|ernie|gemini|gemma|glm|gpt-oss|granite|grok|hermes|hunyuan|jamba|jina|kimi|lfm|llama|longcat|magistral|mercury|mimo|minimax|ministral|mistral|mixtral|moonshot|nemotron|nomic|nova|olmo|open-mi[sx]tral|phi|pixtral|qwen|qwq|r1|reka|seed-|solar|sonar|step-|voyage|wizardlm|yi-)/i;

const PROVIDER_OF_FORMAT: Partial<Record<UsageFormat, string>> = {
  'openai.chat': 'openai',
  'openai.responses': 'openai',
  'anthropic.messages': 'anthropic',
  gemini: 'gemini',
  'gemini.interactions': 'gemini',
  'bedrock.converse': 'bedrock',
};

/** Vercel's AI SDK counts in words of its own. */
const vercelFormat = (usage: object): UsageFormat | undefined =>
  'inputTokens' in usage && 'outputTokens' in usage && !('cacheReadInputTokens' in usage) ? 'otel' : undefined;

function fromVercel(usage: object): Usage {
  const told = usage as Record<string, unknown>;
  const detail = (names: string, name: string): unknown => (told[names] as Record<string, unknown> | undefined)?.[name];
  return {
    input_tokens: told['inputTokens'],
    output_tokens: told['outputTokens'],
    cache_read_tokens: detail('inputTokenDetails', 'cacheReadTokens') ?? told['cachedInputTokens'],
    cache_write_tokens: detail('inputTokenDetails', 'cacheWriteTokens'),
    reasoning_tokens: detail('outputTokenDetails', 'reasoningTokens') ?? told['reasoningTokens'],
  };
}

