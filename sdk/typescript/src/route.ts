/** Which requests cost money, and how their answers are read. Follows crates/proxy/src/route.rs. */

import type { UsageFormat } from './types.js';

export type Shape = 'completions' | 'responses' | 'embeddings' | 'messages' | 'generate' | 'interactions' | 'converse' | 'invoke';

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

/** @internal */
export const route = (shape: Shape, operation: string, format: UsageFormat, more: Partial<Route> = {}): Route => ({
  shape,
  operation,
  format,
  model: '',
  streams: false,
  retrieves: false,
  ...more,
});

const MESSAGES = route('messages', 'chat', 'anthropic.messages');
const RESPONSES = route('responses', 'responses', 'openai.responses');
/** By the ends of their paths, the longer ones first. */
const ENDS: readonly (readonly [string, Route])[] = [
  ['chat/completions', route('completions', 'chat', 'openai.chat')],
  ['completions', route('completions', 'completion', 'openai.chat')],
  ['responses', RESPONSES],
  // A compaction is an answer like any other.
  ['responses/compact', RESPONSES],
  ['embeddings', route('embeddings', 'embeddings', 'openai.chat')],
  ['messages', MESSAGES],
  ['interactions', route('interactions', 'generate_content', 'gemini.interactions')],
];
/** OpenAI's Assistants: a message is put into a thread, which costs nothing. */
const OF_A_THREAD = /(^|\/)threads\/[^/]+\/messages$/i;

/** The call that a request makes, however its path is written. Undefined where nothing is metered: models, files, token counts, what nobody knows. */
export function routeOf(method: string, url: URL): Route | undefined {
  const path = plain(url.pathname);
  if (method === 'GET') {
    const isOne = path.includes('/') && ends(path.slice(0, path.lastIndexOf('/')), 'responses');
    return isOne ? { ...RESPONSES, retrieves: true } : undefined;
  }
  if (method !== 'POST' || OF_A_THREAD.test(path)) return undefined;
  return byMethod(path) ?? ENDS.find(([end]) => ends(path, end))?.[1];
}

/** As servers may read it: escapes undone, without empty parts, `.` and `..`. */
function plain(path: string): string {
  const parts: string[] = [];
  for (const part of decoded(path).split('/')) {
    if (part === '..') parts.pop();
    else if (part !== '' && part !== '.') parts.push(part);
  }
  return parts.join('/');
}

function decoded(path: string): string {
  try {
    return decodeURIComponent(path);
  } catch {
    return path;
  }
}

/** Azure takes them in any case. */
const ends = (path: string, end: string): boolean => `/${path}`.toLowerCase().endsWith(`/${end}`);

/**
 * The call that the method behind a model's name makes of it, as Google's paths end. Tuned models, and
 * endpoints of Vertex AI, stand in the place of models.
 */
function byMethod(path: string): Route | undefined {
  const at = path.lastIndexOf('models/');
  const last = path.slice(at < 0 ? path.lastIndexOf('/') + 1 : at + 'models/'.length);
  const colon = last.lastIndexOf(':');
  if (colon < 0) return undefined;
  const model = last.slice(0, colon);
  const method = last.slice(colon + 1);
  switch (method) {
    case 'generateContent':
      return route('generate', 'generate_content', 'gemini', { model });
    case 'streamGenerateContent':
      return route('generate', 'generate_content', 'gemini', { model, streams: true });
    case 'embedContent':
    case 'batchEmbedContents':
      return route('generate', 'embeddings', 'gemini', { model });
    // Other makers' models at Vertex AI. To count tokens has a path like a model's, and costs nothing.
    case 'rawPredict':
    case 'streamRawPredict': {
      if (model === 'count-tokens') return undefined;
      const streams = method === 'streamRawPredict';
      if (at >= 0 && path.slice(0, at).endsWith('publishers/anthropic/')) return { ...MESSAGES, model, streams };
      return route('completions', 'chat', 'openai.chat', { model, streams });
    }
    default:
      return undefined;
  }
}

/** Hosts whose ids are identities, and whose prices hold. */
const PROVIDERS: readonly (readonly [RegExp, string])[] = [
  [/^(.+\.)?api\.openai\.com$/, 'openai'],
  [/^.+\.(openai|cognitiveservices)\.azure\.com$/, 'azure'],
  [/^.+\.services\.ai\.azure\.com$/, 'azure_ai'],
  [/^api\.anthropic\.com$/, 'anthropic'],
  [/^generativelanguage\.googleapis\.com$/, 'gemini'],
  [/^(.+-)?aiplatform\.googleapis\.com$/, 'vertex_ai'],
  // Of the multi-regions `us` and `eu`.
  [/^aiplatform\.\w+\.rep\.googleapis\.com$/, 'vertex_ai'],
  // By IPv4 or both, by FIPS, in China and in the European sovereign cloud, and from a private network. And not
  // a balancer of one's own: bedrock-1.us-east-1.elb.amazonaws.com.
  [/^(.+\.)?bedrock-(agent-runtime|mantle|runtime)(-fips)?\.[\w-]+\.(vpce\.)?(amazonaws\.(com|com\.cn|eu)|api\.aws|api\.amazonwebservices\.(com\.cn|eu))$/, 'bedrock'],
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
  [/^dashscope-intl\.aliyuncs\.com$/, 'dashscope'],
];

/** Other names of providers, with `_` for every separator: OpenTelemetry's and SDKs'. */
const OTHER_NAMES: Readonly<Record<string, string>> = {
  amazon_bedrock: 'bedrock',
  aws_bedrock: 'bedrock',
  bedrock_converse: 'bedrock',
  az_ai_inference: 'azure_ai',
  azure_ai_inference: 'azure_ai',
  az_ai_openai: 'azure',
  azure_ai_openai: 'azure',
  azure_openai: 'azure',
  gcp_gemini: 'gemini',
  gcp_gen_ai: 'gemini',
  google: 'gemini',
  google_genai: 'gemini',
  google_generative_ai: 'gemini',
  gcp_vertex_ai: 'vertex_ai',
  google_vertex: 'vertex_ai',
  vertex: 'vertex_ai',
  vertexai: 'vertex_ai',
  vertex_anthropic: 'vertex_ai',
  fireworks: 'fireworks_ai',
  mistral_ai: 'mistral',
  mistralai: 'mistral',
  moonshotai: 'moonshot',
  perplexity_ai: 'perplexity',
  text_completion_openai: 'openai',
  together: 'together_ai',
  togetherai: 'together_ai',
  x_ai: 'xai',
};
/** What stands behind a provider's name for the API that is called: `openai.responses`. */
const API = /^(.+)\.(chat|completions?|converse|embeddings?|messages|responses)$/;

/** Under what source all of spendfuse tells of a provider's answers, which its own ids name: `schemas/source-vectors.json`. */
export function sourceOf(provider: string): string {
  for (let name = provider.toLowerCase(); ; ) {
    const unified = name.replace(/[-. ]/g, '_');
    if (Object.hasOwn(OTHER_NAMES, unified)) return `llm:${OTHER_NAMES[unified]}`;
    const before = API.exec(name)?.[1];
    if (before === undefined) return `llm:${name}`;
    name = before;
  }
}

/** Undefined for gateways and servers of one's own. */
export function providerOf(url: URL): string | undefined {
  const provider = PROVIDERS.find(([host]) => host.test(url.hostname))?.[1];
  // The models of OpenAI are those of `*.openai.azure.com`, which is another name of the same resource.
  return provider === 'azure_ai' && plain(url.pathname).toLowerCase().startsWith('openai/') ? 'azure' : provider;
}
