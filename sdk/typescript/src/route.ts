/** Which requests cost money, and how their answers are read. Follows crates/proxy/src/route.rs. */

import type { UsageFormat } from './types.js';

export type Shape = 'completions' | 'responses' | 'embeddings' | 'messages' | 'generate' | 'interactions';

export interface Route {
  shape: Shape;
  operation: string;
  format: UsageFormat;
  /** Named by the path, as Gemini does; empty where the body names it. */
  model: string;
  /** Whether the path alone says that the answer is a stream. */
  streams: boolean;
  /** Whether an answer that was made in the background is asked for. */
  retrieves: boolean;
}

const route = (shape: Shape, operation: string, format: UsageFormat, more: Partial<Route> = {}): Route => ({
  shape,
  operation,
  format,
  model: '',
  streams: false,
  retrieves: false,
  ...more,
});

/** Undefined where nothing is metered: models, files, token counts, what nobody knows. */
export function routeOf(method: string, url: URL): Route | undefined {
  const path = url.pathname.replace(/\/+$/, '');
  if (method === 'GET') {
    return /\/responses\/[^/]+$/.test(path) && !url.searchParams.has('stream')
      ? route('responses', 'responses', 'openai.responses', { retrieves: true })
      : undefined;
  }
  if (method !== 'POST') return undefined;
  const called = /\/models\/([^/:]+(?:\/[^/:]+)*):(\w+)$/.exec(path);
  if (called !== null) {
    const [, model, name] = called as unknown as [string, string, string];
    switch (name) {
      case 'generateContent':
        return route('generate', 'generate_content', 'gemini', { model });
      case 'streamGenerateContent':
        return route('generate', 'generate_content', 'gemini', { model, streams: true });
      case 'embedContent':
      case 'batchEmbedContents':
        return route('generate', 'embeddings', 'gemini', { model });
      // Anthropic's models at Vertex.
      case 'rawPredict':
      case 'streamRawPredict':
        return path.includes('/publishers/anthropic/') ? route('messages', 'chat', 'anthropic.messages', { model }) : undefined;
      default:
        return undefined;
    }
  }
  if (path.endsWith('/chat/completions')) return route('completions', 'chat', 'openai.chat');
  if (path.endsWith('/completions')) return route('completions', 'completion', 'openai.chat');
  if (path.endsWith('/responses')) return route('responses', 'responses', 'openai.responses');
  if (path.endsWith('/embeddings')) return route('embeddings', 'embeddings', 'openai.chat');
  // OpenAI's Assistants: a message is put into a thread, which costs nothing.
  if (/\/threads\/[^/]+\/messages$/.test(path)) return undefined;
  if (path.endsWith('/messages')) return route('messages', 'chat', 'anthropic.messages');
  if (path.endsWith('/interactions')) return route('interactions', 'generate_content', 'gemini.interactions');
  return undefined;
}

/** Hosts whose ids are identities, and whose prices hold. */
const PROVIDERS: readonly (readonly [RegExp, string])[] = [
  [/(^|\.)api\.openai\.com$/, 'openai'],
  [/^api\.anthropic\.com$/, 'anthropic'],
  [/^generativelanguage\.googleapis\.com$/, 'gemini'],
  [/(^|-)aiplatform\.googleapis\.com$/, 'vertex_ai'],
  [/\.(openai|cognitiveservices|services\.ai)\.azure\.com$/, 'azure'],
  [/^api\.mistral\.ai$/, 'mistral'],
  [/^api\.deepseek\.com$/, 'deepseek'],
  [/^api\.groq\.com$/, 'groq'],
  [/^api\.x\.ai$/, 'xai'],
  [/^api\.together\.(xyz|ai)$/, 'together_ai'],
  [/^api\.fireworks\.ai$/, 'fireworks_ai'],
  [/^api\.perplexity\.ai$/, 'perplexity'],
  [/^api\.cerebras\.ai$/, 'cerebras'],
  [/^api\.moonshot\.(ai|cn)$/, 'moonshot'],
  [/^api\.deepinfra\.com$/, 'deepinfra'],
  [/^openrouter\.ai$/, 'openrouter'],
];

/** Undefined for gateways and servers of one's own. */
export function providerOf(url: URL): string | undefined {
  return PROVIDERS.find(([host]) => host.test(url.hostname))?.[1];
}
