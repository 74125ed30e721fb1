// Calls each SDK once per mode through a gateway that refuses, and prints what the SDK made of it.
//
//     node refusals.mjs GATEWAY MODE...
//
// GATEWAY/CLIENT.MODE/ is where a client's calls go. A line of JSON for each; waits of half a second
// and more are noted, not waited for. Whole minutes are time-outs of requests; shorter ones, and four
// seconds for a connection kept alive, belong to Node's HTTP client.

import fs from 'node:fs';
import Anthropic from '@anthropic-ai/sdk';
import { createOpenAI } from '@ai-sdk/openai';
import { GoogleGenAI } from '@google/genai';
import { generateText } from 'ai';
import OpenAI from 'openai';

let sleeps = [];
const wait = globalThis.setTimeout;
globalThis.setTimeout = (then, milliseconds, ...rest) => {
  if (milliseconds < 500 || milliseconds === 4000 || milliseconds % 60_000 === 0) return wait(then, milliseconds, ...rest);
  sleeps.push(Math.round(milliseconds));
  return wait(then, 1, ...rest);
};

const apiKey = 'sk-of-the-provider';
const messages = [{ role: 'user', content: 'x' }];
const genai = (baseUrl, retryOptions) =>
  new GoogleGenAI({ apiKey, httpOptions: { baseUrl, retryOptions } }).models.generateContent({
    model: 'gemini-2.5-flash',
    contents: 'x',
  });

const clients = {
  'openai-node': ['openai', (url) =>
    new OpenAI({ apiKey, baseURL: `${url}/v1` }).chat.completions.create({ model: 'gpt-4o', messages })],
  'anthropic-node': ['@anthropic-ai/sdk', (url) =>
    new Anthropic({ apiKey, baseURL: url }).messages.create({ model: 'claude-opus-4-8', max_tokens: 5, messages })],
  'genai-node': ['@google/genai', (url) => genai(url)],
  'genai-node-with-retries': ['@google/genai', (url) => genai(url, { attempts: 3 })],
  'vercel-ai': ['ai', (url) =>
    generateText({ model: createOpenAI({ apiKey, baseURL: `${url}/v1` }).chat('gpt-4o'), prompt: 'x' })],
};

const version = (name) =>
  JSON.parse(fs.readFileSync(new URL(`node_modules/${name}/package.json`, import.meta.url))).version;

const [gateway, ...modes] = process.argv.slice(2);
for (const [client, [module, call]] of Object.entries(clients)) {
  for (const mode of modes) {
    sleeps = [];
    let seen = { error: null, status: null };
    try {
      await call(`${gateway}/${client}.${mode}`);
    } catch (error) {
      const last = error.lastError ?? error;
      seen = { error: `${error.constructor.name}: ${error.message}`, status: last.status ?? last.statusCode };
    }
    console.log(JSON.stringify({ client, version: version(module), mode, sleeps, ...seen }));
  }
}
process.exit(0);
