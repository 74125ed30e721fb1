/** Usage events as they are sent. Prompts and answers never enter: only named members, and numbers. */

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
    if (value !== undefined && value !== null && value !== '') sent[snake(name)] = value;
  }
  sent['usage_format'] = event.usageFormat ?? formatOf(usage);
  if (event.units !== undefined) {
    sent['units'] = Object.fromEntries(Object.entries(event.units).map(([name, count]) => [name, String(count)]));
  }
  return sent;
}

export function revenueEvent(id: string, source: string | undefined, who: Attribution, revenueUsd: string, time: string): Record<string, unknown> {
  return { type: 'spendfuse.revenue', id, ...(source ? { source } : {}), time, ...dimensionsOf(who), revenue_usd: revenueUsd };
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
  if (typeof answer !== 'object' || answer === null) return undefined;
  const told = answer as Record<string, unknown>;
  const text = (...names: string[]): string | undefined => {
    for (const name of names) if (typeof told[name] === 'string' && told[name] !== '') return told[name];
    return undefined;
  };
  const usage = told['usageMetadata'] ?? told['usage'];
  if (typeof usage !== 'object' || usage === null) return undefined;
  const usageFormat = vercelFormat(usage) ?? formatOf(usage);
  const response = typeof told['response'] === 'object' && told['response'] !== null ? (told['response'] as Record<string, unknown>) : {};
  const model = text('model', 'modelVersion') ?? (typeof response['modelId'] === 'string' ? response['modelId'] : undefined);
  const id = text('id', 'responseId') ?? (typeof response['id'] === 'string' ? response['id'] : undefined);
  const tier = text('service_tier');
  const read: TrackedEvent = { usage: usageFormat === 'otel' ? fromVercel(usage) : usage, usageFormat };
  if (id !== undefined) read.id = id;
  if (model !== undefined) read.model = model;
  if (tier !== undefined) read.serviceTier = tier;
  const provider = PROVIDER_OF_FORMAT[usageFormat];
  if (provider !== undefined) read.provider = provider;
  const tools = new ToolRuns();
  tools.takeAnswer(told);
  const units = tools.units(model ?? '', usage);
  if (units !== undefined) read.units = units;
  return read;
}

const PROVIDER_OF_FORMAT: Partial<Record<UsageFormat, string>> = {
  'openai.chat': 'openai',
  'openai.responses': 'openai',
  'anthropic.messages': 'anthropic',
  gemini: 'gemini',
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

