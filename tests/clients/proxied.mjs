// As proxied.py, by SDKs for Node.
//
//     node proxied.mjs PROXY UPSTREAM

import fs from 'node:fs';
import Anthropic from '@anthropic-ai/sdk';
import { createOpenAI } from '@ai-sdk/openai';
import { GoogleGenAI } from '@google/genai';
import { generateText, streamText } from 'ai';
import OpenAI from 'openai';

const [proxy, upstream] = process.argv.slice(2);
const apiKey = 'sk-of-the-provider';
const customer = (name) => ({ 'x-spendfuse-customer': name });
const messages = (content) => [{ role: 'user', content }];

async function joined(stream, textOf) {
  let text = '';
  for await (const part of stream) text += textOf(part) ?? '';
  return { text };
}

const openai = (base, name) =>
  new OpenAI({ apiKey, baseURL: `${base}/openai/v1`, defaultHeaders: customer(name) });
const anthropic = (base, name) =>
  new Anthropic({ apiKey, baseURL: `${base}/anthropic`, defaultHeaders: customer(name) });
const claude = (content) => ({ model: 'claude-sonnet-4-5', max_tokens: 200, messages: messages(content) });
const gemini = (base, name) =>
  new GoogleGenAI({ apiKey, httpOptions: { baseUrl: `${base}/gemini`, headers: customer(name) } }).models;
const vercel = (base, name) =>
  createOpenAI({ apiKey, baseURL: `${base}/openai/v1`, headers: customer(name) }).chat('gpt-4o');

const clients = {
  'openai-node': {
    module: 'openai',
    whose: 'openai',
    async whole(base, name) {
      const chat = await openai(base, name).chat.completions.create({ model: 'gpt-4o', messages: messages('x') });
      return { text: chat.choices[0].message.content, model: chat.model };
    },
    async streamed(base, name, content = 'x') {
      const asked = { model: 'gpt-4o', messages: messages(content), stream: true };
      // Every piece has a choice, for nobody asked for usage.
      return joined(await openai(base, name).chat.completions.create(asked), (part) => part.choices[0].delta.content);
    },
  },
  'anthropic-node': {
    module: '@anthropic-ai/sdk',
    whose: 'anthropic',
    async whole(base, name) {
      const message = await anthropic(base, name).messages.create(claude('x'));
      return { text: message.content[0].text, model: message.model };
    },
    async streamed(base, name, content = 'x') {
      return { text: await anthropic(base, name).messages.stream(claude(content)).finalText() };
    },
  },
  'genai-node': {
    module: '@google/genai',
    whose: 'gemini',
    async whole(base, name) {
      const answer = await gemini(base, name).generateContent({ model: 'gemini-2.5-flash', contents: 'x' });
      return { text: answer.text, model: answer.modelVersion };
    },
    async streamed(base, name, contents = 'x') {
      const asked = { model: 'gemini-2.5-flash', contents };
      return joined(await gemini(base, name).generateContentStream(asked), (part) => part.text);
    },
  },
  'vercel-ai': {
    module: 'ai',
    whose: 'openai',
    async whole(base, name) {
      const { text, response } = await generateText({ model: vercel(base, name), prompt: 'x', maxRetries: 0 });
      return { text, model: response.modelId };
    },
    async streamed(base, name, prompt = 'x') {
      let failed;
      const onError = ({ error }) => { failed = error; };
      const { textStream } = streamText({ model: vercel(base, name), prompt, maxRetries: 0, onError });
      const seen = await joined(textStream, (part) => part);
      if (failed) throw failed;
      return seen;
    },
  },
};

async function tried(call) {
  try {
    return await call();
  } catch (error) {
    const status = error.status ?? error.statusCode;
    return { error: error.constructor.name, status, message: `${error.message}` };
  }
}

const version = (name) =>
  JSON.parse(fs.readFileSync(new URL(`node_modules/${name}/package.json`, import.meta.url))).version;

for (const [name, client] of Object.entries(clients)) {
  const cells = {
    whole: () => client.whole(proxy, 'c-1'),
    streamed: () => client.streamed(proxy, 'c-1'),
    refused: () => client.whole(proxy, 'c-2'),
    downgraded: () => client.whole(proxy, `d-${client.whose}`),
    cut: () => client.streamed(proxy, 'c-4', 'cut'),
  };
  for (const [kind, call] of Object.entries(cells)) {
    const seen = await tried(call);
    if (kind === 'cut') seen.direct = await tried(() => client.streamed(upstream, 'c-4', 'cut'));
    console.log(JSON.stringify({ client: name, version: version(client.module), case: kind, ...seen }));
  }
}
process.exit(0);
