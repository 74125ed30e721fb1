/** Answers on their way to the app: read, and never held up or changed. */

import type { Meter } from './meter.js';
import type { Route } from './route.js';
import { dataOf, Events, parsed } from './sse.js';

/** An answer that comes whole. It is read beside the app, whether or not the app reads it. */
export function wholeOf(answer: Response, meter: Meter, route: Route): void {
  let beside: Promise<string>;
  try {
    beside = answer.clone().text();
  } catch {
    return meter.settle();
  }
  void beside.then(
    (text) => {
      const json = parsed(text);
      // Gemini's streams without `alt=sse` are one array.
      for (const piece of Array.isArray(json) ? json : [json]) meter.seen.take(route, piece);
      // What is made in the background is counted when somebody asks for it.
      if (meter.seen.isPending) meter.forget();
      else meter.settle();
    },
    () => meter.settle(),
  );
}

/** Settles calls whose streams are thrown away unread. */
const abandoned = typeof FinalizationRegistry === 'undefined' ? undefined : new FinalizationRegistry<Meter>((meter) => meter.settle());

/**
 * The same answer, its bytes read as they pass. One chunk is asked for when the app asks for one.
 * With `strips` the event is left out that has nothing but the usage which the app did not ask for.
 */
export function passing(answer: Response, meter: Meter, route: Route, strips: boolean): Response {
  const reader = (answer.body as ReadableStream<Uint8Array>).getReader();
  const events = new Events();
  const take = (event: Uint8Array): boolean => {
    const data = dataOf(event);
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
  abandoned?.register(stream, meter);
  const { status, statusText, headers } = answer;
  const passed = new Response(stream, { status, statusText, headers });
  // A made response has no address of its own; some apps look at it.
  for (const name of ['url', 'redirected', 'type'] as const) Object.defineProperty(passed, name, { value: answer[name] });
  return passed;
}
