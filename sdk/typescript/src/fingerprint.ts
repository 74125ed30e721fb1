/** Keyed fingerprints of prompts: all of a prompt that ever leaves the process. Follows sdk/python/src/spendfuse/_fingerprint.py. */

import { bytesOf } from './sse.js';

type Json = Record<string, unknown>;

/** The text under whose HMAC a request's prompt is known; undefined where it holds no message of a user. */
export function canonicalPrompt(request: Json): string | undefined {
  const system = ['system', 'instructions', 'systemInstruction', 'system_instruction'].flatMap((name) => textsOf(request[name]));
  let lastUser: string | undefined;
  const said = ['messages', 'contents', 'input', 'prompt'].map((name) => request[name]).find((value) => (Array.isArray(value) ? value.length > 0 : Boolean(value)));
  if (typeof said === 'string') lastUser = said;
  for (const message of Array.isArray(said) ? (said as unknown[]) : []) {
    if (typeof message === 'string') lastUser = message;
    if (!isObject(message)) continue;
    const texts = textsOf(message['content'] === undefined ? message['parts'] : message['content']);
    // Items of a response that are no messages have no role: calls, results, reasoning.
    const usual = (message['type'] ?? 'message') === 'message' ? 'user' : undefined;
    const role = message['role'] ?? usual;
    if (role === 'system' || role === 'developer') system.push(...texts);
    // Tool results have the role of a user at Anthropic, but no text part.
    else if (role === 'user' && texts.length > 0) lastUser = texts.join('\n');
  }
  if (lastUser === undefined) return undefined;
  const before = system.join('\n');
  return `spendfuse-prompt-v1\n${bytesOf(before)}\n${before}\n${lastUser}`;
}

/** The text parts; images, files and tool results are left out. */
function textsOf(content: unknown): string[] {
  if (typeof content === 'string') return [content];
  if (Array.isArray(content)) return content.flatMap(textsOf);
  if (!isObject(content)) return [];
  if ('parts' in content) return textsOf(content['parts']);
  return typeof content['text'] === 'string' ? [content['text']] : [];
}

const isObject = (value: unknown): value is Json => typeof value === 'object' && value !== null && !Array.isArray(value);
