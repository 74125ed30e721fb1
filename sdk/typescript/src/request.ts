/** What a request asks for, and the edits that are made in it. */

import { tokensOf } from './pictures.js';
import type { Route } from './route.js';
import { parsed } from './sse.js';

type Json = Record<string, unknown>;

export interface Asked {
  model: string;
  streams: boolean;
  maxOutputTokens: number | undefined;
  serviceTier: string | undefined;
  /** Before anybody has counted them. */
  inputTokens: number;
  body: Json | undefined;
}

/** The text of a request's body; undefined where it is none (forms, streams). */
export async function bodyOf(input: RequestInfo | URL, init: RequestInit | undefined): Promise<string | undefined> {
  const body = init?.body;
  if (typeof body === 'string') return body;
  if (body instanceof Uint8Array || body instanceof ArrayBuffer) return new TextDecoder().decode(body);
  if (body === undefined && isRequest(input) && input.method !== 'GET') return input.clone().text();
  return undefined;
}

export const isRequest = (input: unknown): input is Request => typeof Request !== 'undefined' && input instanceof Request;

export function read(route: Route, text: string | undefined): Asked {
  const json = text === undefined ? undefined : parsed(text);
  const body = typeof json === 'object' && json !== null && !Array.isArray(json) ? (json as Json) : undefined;
  const config = body?.['generationConfig'] as Json | undefined;
  const most = [body?.['max_completion_tokens'], body?.['max_output_tokens'], body?.['max_tokens'], config?.['maxOutputTokens']];
  // An agent may be asked in the place of a model.
  const model = [body?.['model'], body?.['agent']].find((name) => typeof name === 'string' && name !== '');
  const tier = body?.['service_tier'];
  return {
    model: route.model || ((model as string | undefined) ?? ''),
    streams: route.streams || body?.['stream'] === true,
    maxOutputTokens: route.shape === 'embeddings' ? 0 : most.find((count): count is number => typeof count === 'number'),
    serviceTier: typeof tier === 'string' ? tier : undefined,
    inputTokens: text === undefined ? 0 : tokensOf(text),
    body,
  };
}

/**
 * Whether a stream's usage has to be asked for. What is not understood is sent as it is.
 * Only chat completions need it: every other language tells by itself.
 */
export function lacksUsage(route: Route, asked: Asked): boolean {
  if (route.shape !== 'completions' || route.model !== '' || !asked.streams || asked.body === undefined) return false;
  const options = asked.body['stream_options'];
  if (options === undefined || options === null) return true;
  return typeof options === 'object' && !Array.isArray(options) && (options as Json)['include_usage'] !== true;
}

export const withUsage = (body: Json): Json => ({ ...body, stream_options: { ...(body['stream_options'] as Json | undefined), include_usage: true } });

/** Where another model can be asked in place: the body names it, or Gemini's path. */
export function canReplaceModel(route: Route, asked: Asked, url: URL, other: string): boolean {
  // What embeds cannot be replaced by what writes.
  if (route.operation === 'embeddings') return false;
  // A deployment of Azure's is no model, whatever the body says.
  if (url.pathname.includes('/deployments/')) return false;
  // In a path: another maker's model has another path, and its answer another form.
  if (route.model !== '') return route.shape === 'generate' && url.pathname.includes(`/models/${route.model}:`) && other.startsWith('gemini');
  return typeof asked.body?.['model'] === 'string';
}

export function replaceModel(route: Route, asked: Asked, url: URL, other: string): { url: URL; body: Json | undefined } {
  if (route.shape !== 'generate') return { url, body: { ...asked.body, model: other } };
  const edited = new URL(url);
  edited.pathname = edited.pathname.replace(`/models/${route.model}:`, `/models/${other}:`);
  return { url: edited, body: asked.body };
}
