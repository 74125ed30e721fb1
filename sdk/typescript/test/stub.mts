// A provider that answers as OpenAI, Anthropic and Gemini do, and a sidecar that writes down what it is told.

import http from 'node:http';
import type { AddressInfo } from 'node:net';

export interface Request {
  method: string;
  path: string;
  headers: http.IncomingHttpHeaders;
  body: string;
}

export interface Stub {
  url: string;
  requests: Request[];
  close(): Promise<void>;
}

type Answer = (request: Request, response: http.ServerResponse) => void | Promise<void>;

export async function serve(answer: Answer, listen: number | string = 0): Promise<Stub> {
  const requests: Request[] = [];
  const server = http.createServer((incoming, response) => {
    const parts: Buffer[] = [];
    incoming.on('data', (part: Buffer) => parts.push(part));
    incoming.on('end', () => {
      const request = { method: incoming.method!, path: incoming.url!, headers: incoming.headers, body: Buffer.concat(parts).toString() };
      requests.push(request);
      void answer(request, response);
    });
  });
  await new Promise<void>((resolve) => (typeof listen === 'string' ? server.listen(listen, resolve) : server.listen(listen, '127.0.0.1', resolve)));
  const url = typeof listen === 'string' ? `unix:${listen}` : `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const close = (): Promise<void> =>
    new Promise((resolve) => {
      server.closeAllConnections();
      server.close(() => resolve());
    });
  return { url, requests, close };
}

export const json = (response: http.ServerResponse, status: number, body: unknown, headers: http.OutgoingHttpHeaders = {}): void => {
  response.writeHead(status, { 'content-type': 'application/json', ...headers });
  response.end(JSON.stringify(body));
};

// ---- providers

const CHAT_USAGE = { prompt_tokens: 1000, completion_tokens: 100, total_tokens: 1100, prompt_tokens_details: { cached_tokens: 0 } };
const MESSAGE_USAGE = { input_tokens: 1000, output_tokens: 100, cache_read_input_tokens: 0, cache_creation_input_tokens: 0 };
const GEMINI_USAGE = { promptTokenCount: 1000, candidatesTokenCount: 100, totalTokenCount: 1100 };
/** What the model says; it must never reach the sidecar. */
export const SAID = 'the secret of the answer';

export interface ProviderOptions {
  /** Bytes of a stream that are written at once; events are cut anywhere. */
  pieceBytes?: number;
  /** Before each piece, milliseconds. */
  pauseMs?: number;
  /** Answers of the first requests, such as 500. */
  failFirst?: number;
  status?: number;
  headers?: http.OutgoingHttpHeaders;
  lineEnd?: string;
  /** Streams break off before their end. */
  breaksOff?: boolean;
  refusesStreamOptions?: boolean;
  /** With this status; default 400. */
  refusalStatus?: number;
  /** No answer before this is fulfilled. */
  answersAfter?: Promise<void>;
}

/** Names every response anew, as providers do. */
export async function provider(options: ProviderOptions = {}): Promise<Stub & { sent: string[] }> {
  let count = 0;
  const sent: string[] = [];
  const stub = await serve(async (request, response) => {
    const number = ++count;
    await options.answersAfter;
    if (options.failFirst !== undefined && number <= options.failFirst) return json(response, options.status ?? 500, { error: { message: 'not now' } });
    if (options.refusesStreamOptions && request.body.includes('stream_options')) {
      return json(response, options.refusalStatus ?? 400, { error: { message: 'unknown field stream_options' } });
    }
    const asked = request.body === '' ? {} : (JSON.parse(request.body) as Record<string, any>);
    const id = `of-call-${number}`;
    const streams = asked['stream'] === true || request.path.includes('stream');
    const pieces = piecesOf(request.path, id, asked, streams);
    if (!streams) return json(response, 200, pieces[0], { 'x-request-id': `req-${number}`, ...options.headers });
    const end = options.lineEnd ?? '\n';
    const named = request.path.includes('messages') || request.path.includes('responses');
    let text = pieces.map((piece) => `${named ? `event: ${(piece as any).type}${end}` : ''}data: ${JSON.stringify(piece)}${end}${end}`).join('');
    if (request.path.includes('completions')) text += `data: [DONE]${end}${end}`;
    if (options.breaksOff) text = text.slice(0, text.length >> 1);
    sent.push(text);
    const bytes = Buffer.from(text);
    response.writeHead(200, { 'content-type': 'text/event-stream', 'x-request-id': `req-${number}`, ...options.headers });
    const size = options.pieceBytes ?? bytes.length;
    for (let from = 0; from < bytes.length; from += size) {
      if (response.destroyed) return;
      response.write(bytes.subarray(from, from + size));
      if (options.pauseMs !== undefined) await new Promise((resolve) => setTimeout(resolve, options.pauseMs));
    }
    if (options.breaksOff) setTimeout(() => response.destroy(), 30);
    else response.end();
  });
  return { ...stub, sent };
}

function piecesOf(path: string, id: string, asked: Record<string, any>, streams: boolean): unknown[] {
  const model = asked['model'];
  if (path.includes('embeddings')) return [{ object: 'list', model, data: [{ object: 'embedding', index: 0, embedding: [0.1] }], usage: { prompt_tokens: 1000, total_tokens: 1000 } }];
  if (path.includes('completions')) {
    const chat = { id, object: streams ? 'chat.completion.chunk' : 'chat.completion', created: 1, model };
    const choice = (more: object) => [{ index: 0, finish_reason: null, ...more }];
    if (!streams) return [{ ...chat, choices: choice({ message: { role: 'assistant', content: SAID }, finish_reason: 'stop' }), usage: CHAT_USAGE }];
    const words = SAID.split(' ').map((word) => ({ ...chat, choices: choice({ delta: { role: 'assistant', content: `${word} ` } }) }));
    const last = { ...chat, choices: choice({ delta: {}, finish_reason: 'stop' }) };
    const usage = asked['stream_options']?.include_usage ? [{ ...chat, choices: [], usage: CHAT_USAGE }] : [];
    return [...words, last, ...usage];
  }
  if (path.includes('responses')) {
    const usage = { input_tokens: 1000, output_tokens: 100, total_tokens: 1100, input_tokens_details: { cached_tokens: 0 }, output_tokens_details: { reasoning_tokens: 0 } };
    const item = { type: 'message', id: 'm', role: 'assistant', status: 'completed', content: [{ type: 'output_text', text: SAID, annotations: [] }] };
    const whole = { id, object: 'response', created_at: Math.floor(Date.now() / 1000), status: 'completed', model, output: [item], usage };
    if (!streams) return [whole];
    return [
      { type: 'response.created', sequence_number: 0, response: { ...whole, status: 'in_progress', output: [], usage: null } },
      { type: 'response.output_text.delta', sequence_number: 1, item_id: 'm', output_index: 0, content_index: 0, delta: SAID },
      { type: 'response.completed', sequence_number: 2, response: whole },
    ];
  }
  if (path.includes('messages')) {
    const whole = { id, type: 'message', role: 'assistant', model, content: [{ type: 'text', text: SAID }], stop_reason: 'end_turn', stop_sequence: null, usage: MESSAGE_USAGE };
    if (!streams) return [whole];
    return [
      { type: 'message_start', message: { ...whole, content: [], stop_reason: null, usage: { ...MESSAGE_USAGE, output_tokens: 1 } } },
      { type: 'content_block_start', index: 0, content_block: { type: 'text', text: '' } },
      { type: 'ping' },
      ...SAID.split(' ').map((word) => ({ type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text: `${word} ` } })),
      { type: 'content_block_stop', index: 0 },
      { type: 'message_delta', delta: { stop_reason: 'end_turn', stop_sequence: null }, usage: { output_tokens: 100 } },
      { type: 'message_stop' },
    ];
  }
  const generated = (text: string) => ({ candidates: [{ content: { role: 'model', parts: [{ text }] }, index: 0 }], modelVersion: modelOf(path), responseId: id });
  if (!streams) return [{ ...generated(SAID), usageMetadata: GEMINI_USAGE }];
  return [{ ...generated('the secret '), usageMetadata: { promptTokenCount: 1000 } }, { ...generated('of the answer'), usageMetadata: GEMINI_USAGE }];
}

const modelOf = (path: string): string | undefined => /models\/([^:]+):/.exec(path)?.[1];

// ---- the sidecar

export type Told = Record<string, any>;

export interface SidecarStub extends Stub {
  /** Questions, in the order in which they came. */
  checks: Told[];
  /** Events that were taken, by source and id: the same one twice counts once, as ever. */
  events: Map<string, Told>;
  released: string[];
  /** What was received, to the byte. */
  received: string[];
}

export interface SidecarOptions {
  decide?: (question: Told, count: number) => Told;
  /** Answers to `/v1/usage` before it takes events: statuses, or `lost`: taken, but the answer is lost; `none`: as ever. */
  faults?: (number | 'lost' | 'none' | 'reset')[];
  cost?: (event: Told) => string;
  listen?: number | string;
  slowMs?: number;
}

const ALLOWED = {
  decision: 'allow',
  budgets: [],
  downgrade_to: null,
  warnings: [],
  retry_after_seconds: null,
  state: 'live',
  state_age_ms: 5,
  complete_to: '2099-01-01T00:00:00Z',
  reservation_id: null,
  reserved_usd: null,
  reserve_rule: null,
  reserved_until: null,
};

export const blocked = (budget = 'cap', more: Told = {}): Told => ({
  decision: 'block',
  budgets: [
    {
      budget,
      scope: 'acme/customer=c-42',
      verdict: 'block',
      spent_usd: '5.000123',
      limit_usd: '5.00',
      percent: 100,
      window: 'day:2026-11-22',
      resets_at: '2026-11-23T05:00:00Z',
      message: null,
      help_url: 'https://example.com/upgrade',
      ...more,
    },
  ],
  retry_after_seconds: 17070,
});

export async function sidecar(options: SidecarOptions = {}): Promise<SidecarStub> {
  const checks: Told[] = [];
  const events = new Map<string, Told>();
  const released: string[] = [];
  const received: string[] = [];
  const faults = [...(options.faults ?? [])];
  const stub = await serve(async (request, response) => {
    received.push(request.path, request.body);
    if (options.slowMs !== undefined) await new Promise((resolve) => setTimeout(resolve, options.slowMs));
    if (request.path === '/v1/check') {
      const question = JSON.parse(request.body) as Told;
      checks.push(question);
      const decision = { ...ALLOWED, ...options.decide?.(question, checks.length) };
      const holds = question['reserve'] === true && decision.decision !== 'block' && decision.reservation_id === null;
      return json(response, 200, holds ? { ...decision, reservation_id: `stub.1-${checks.length}`, reserved_usd: '0.01' } : decision);
    }
    if (request.path.startsWith('/v1/reservations/')) {
      released.push(request.path.split('/').at(-1)!);
      return void response.writeHead(204).end();
    }
    if (request.path.startsWith('/v1/state')) return json(response, 200, { ...ALLOWED, findings: [], figures: '', budget_version: 1 });
    if (request.path !== '/v1/usage') return json(response, 404, { error: { code: 'not_found', message: request.path } });
    const fault = faults.shift();
    if (fault === 'reset') return void response.destroy();
    if (typeof fault === 'number') return json(response, fault, { error: { code: 'x', message: 'not now' } });
    const batch = JSON.parse(request.body) as Told[];
    const results = batch.map((event, index) => {
      const key = `${event['source']}|${event['id']}`;
      if (event['model'] === 'reject-me') return { index, id: event['id'], status: 'rejected', reason: 'missing_field', detail: 'of the test' };
      const status = events.has(key) ? 'duplicate' : 'accepted';
      events.set(key, event);
      return { index, id: event['id'], status, cost_usd: options.cost?.(event) ?? '0.0035' };
    });
    if (fault === 'lost') return void response.destroy();
    const rejected = results.filter((result) => result.status === 'rejected').length;
    json(response, rejected > 0 ? 400 : 202, { accepted: results.length - rejected, rejected, results });
  }, options.listen);
  return { ...stub, checks, events, released, received };
}

/** The events that a stub has taken, once there are `count`. */
export async function told(stub: SidecarStub, count: number): Promise<Told[]> {
  const deadline = Date.now() + 5_000;
  while (stub.events.size < count && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 5));
  return [...stub.events.values()];
}

export async function textOf<T>(stream: AsyncIterable<T>, read: (piece: T) => string | null | undefined): Promise<string> {
  let text = '';
  for await (const piece of stream) text += read(piece) ?? '';
  return text.trim();
}
