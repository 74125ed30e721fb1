/** Answers on their way to the app: read, and never held up or changed. */

import { platform } from '#platform';
import type { Meter } from './meter.js';
import type { Route } from './route.js';
import { dataOf, Events, parsed, textOf } from './sse.js';

/** How long an app may leave a whole answer unread before it is read beside it, milliseconds. */
const UNREAD_MS = 1_000;

/**
 * An answer that comes whole. It is read as the app reads it; where the app does not, or in pieces,
 * beside it. It may be of a class of its own: `undici` and `node-fetch` have one.
 */
export function wholeOf(answer: Response, meter: Meter, route: Route): void {
  const { arrayBuffer, blob, clone, formData, text } = answer;
  // Younger runtimes have it.
  const { bytes } = answer as { bytes?: () => Promise<Uint8Array> };
  let isTaken = false;
  const takes = (): boolean => {
    if (isTaken) return false;
    clearTimeout(timer);
    return (isTaken = true);
  };
  const settle = (json?: unknown): void => {
    // Gemini's streams without `alt=sse` are one array.
    for (const piece of Array.isArray(json) ? json : [json]) meter.seen.take(route, piece);
    meter.settle();
  };
  const beside = (): void => {
    if (!takes()) return;
    if (answer.bodyUsed) return meter.settle();
    const read = answer.clone().text();
    void read.then(
      (text) => settle(piecesOf(text)),
      () => meter.settle(),
    );
  };
  const timer = setTimeout(beside, UNREAD_MS);
  platform.unref(timer);

  const own = (name: string, property: PropertyDescriptor): void => {
    Object.defineProperty(answer, name, { configurable: true, enumerable: false, ...property });
  };
  const read = async <T,>(parse: (text: string) => T, json: (parsed: T, text: string) => unknown): Promise<T> => {
    const isOurs = takes();
    try {
      const whole = await text.call(answer);
      const value = parse(whole);
      if (isOurs) settle(json(value, whole));
      return value;
    } catch (error) {
      if (isOurs) meter.settle();
      throw error;
    }
  };
  own('json', { value: () => read(JSON.parse, (value) => value), writable: true });
  own('text', { value: () => read((whole) => whole, piecesOf), writable: true });
  for (const [name, method] of Object.entries({ arrayBuffer, blob, bytes, clone, formData })) {
    if (method === undefined) continue;
    own(name, { value: () => (beside(), (method as () => unknown).call(answer)), writable: true });
  }
  const body = getterOf(answer, 'body');
  if (body !== undefined) own('body', { get: () => (beside(), body.call(answer)) });
}

/** JSON, or the events of a stream that came as a whole. */
function piecesOf(text: string): unknown {
  return parsed(text) ?? text.split(/\r?\n\r?\n/).map((event) => dataOf(event));
}

function getterOf(object: object, name: string): (() => unknown) | undefined {
  for (let at: unknown = object; at !== null; at = Object.getPrototypeOf(at)) {
    const property = Object.getOwnPropertyDescriptor(at, name);
    if (property !== undefined) return property.get;
  }
  return undefined;
}

interface Abandoned {
  meter: Meter;
  reader: ReadableStreamDefaultReader<Uint8Array>;
}

/** Settles calls whose streams are thrown away unread, and gives their connections back: nobody else can any more. */
const abandoned =
  typeof FinalizationRegistry === 'undefined'
    ? undefined
    : new FinalizationRegistry<Abandoned>(({ meter, reader }) => {
        meter.settle();
        reader.cancel().catch(() => {});
      });

/**
 * The same answer, its bytes read as they pass. One chunk is asked for when the app asks for one.
 * With `strips` the event is left out that has nothing but the usage which the app did not ask for.
 */
export function passing(answer: Response, meter: Meter, route: Route, strips: boolean): Response {
  const reader = (answer.body as ReadableStream<Uint8Array>).getReader();
  const events = new Events();
  const take = (event: Uint8Array): boolean => {
    const text = textOf(event);
    if (meter.seen.takeText(route, text)) return false;
    const data = dataOf(text);
    return data !== undefined && meter.seen.take(route, data);
  };
  const stream = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        try {
          for (;;) {
            const { done, value } = await reader.read();
            if (done) {
              const tail = events.tail();
              if (tail.length > 0 && !take(tail) && strips) controller.enqueue(tail);
              meter.settle();
              controller.close();
              return;
            }
            let isUsageOnly = false;
            let kept = 0;
            for (const event of events.push(value)) {
              isUsageOnly = take(event);
              if (!strips || isUsageOnly) continue;
              controller.enqueue(event);
              kept += 1;
            }
            if (!strips) controller.enqueue(value);
            // Without a piece for the app nobody would ask again.
            if (!strips || kept > 0) return;
          }
        } catch (error) {
          meter.settle();
          controller.error(error);
        }
      },
      async cancel(reason) {
        // The provider charges for what it has generated, whether or not anybody reads it.
        meter.settle();
        await reader.cancel(reason);
      },
    },
    { highWaterMark: 0 },
  );
  abandoned?.register(stream, { meter, reader });
  const { status, statusText, headers } = answer;
  const passed = new Response(stream, { status, statusText, headers });
  // A made response has no address of its own; some apps look at it.
  for (const name of ['url', 'redirected', 'type'] as const) Object.defineProperty(passed, name, { value: answer[name] });
  return passed;
}
