/** What the parts of one `Spendfuse` share. */

import type { Config } from './config.js';
import { currentScope } from './context.js';
import { Delivery, type Result } from './delivery.js';
import { readAnswer, revenueEvent, usageEvent } from './event.js';
import { sourceOf } from './route.js';
import { Sidecar } from './sidecar.js';
import type { Attribution, TrackedEvent } from './types.js';
import { dimensionsOf, merged } from './wire.js';

/** Ids of answers of wrapped clients, so that `addUsage()` of the same answer is not told again. */
const MOST_REMEMBERED = 4_096;

/** A call whose answer is not at its end. */
export interface Open {
  /** It will not be read on: it is charged by what was seen of it. */
  cut(): void;
}

export class Core {
  readonly sidecar: Sidecar;
  readonly delivery: Delivery;
  /** Calls under way: a process that ends charges them by estimate. */
  readonly open = new Set<Open>();
  private readonly remembered = new Set<string>();

  constructor(readonly config: Config) {
    this.sidecar = new Sidecar(config);
    this.delivery = new Delivery(config, () => this.cutAll());
  }

  /** A call is under way, until it is taken out of `open`. */
  opened(call: Open): void {
    this.open.add(call);
    this.delivery.watchExit();
  }

  /** Charges the calls under way by what was seen of them. */
  cutAll(): void {
    for (const open of [...this.open]) open.cut();
  }

  /** A call is told whose answer has this id. */
  remember(id: string): void {
    if (id === '') return;
    this.remembered.delete(id);
    this.remembered.add(id);
    if (this.remembered.size > MOST_REMEMBERED) this.remembered.delete(this.remembered.values().next().value!);
  }

  /** Whether `answer` is one of a wrapped client, which has told of it: its id there may be none of its provider's. */
  isTold(answer: unknown): boolean {
    const id = this.read(answer, false)?.id;
    return id !== undefined && this.remembered.has(id);
  }

  /** Whom an event counts against: the nearest wins. */
  who(...nearer: (Attribution | undefined)[]): Attribution {
    return merged(this.config.defaults, currentScope().who, ...nearer);
  }

  /** Never throws: an event that cannot be told is logged. Its id, where it has one. */
  track(event: TrackedEvent): string | undefined {
    try {
      const id = event.id || crypto.randomUUID();
      const who = this.who(event);
      const time = timeOf(event.time);
      const source = event.source ?? this.config.source;
      const isUsage = event.usage !== undefined || event.units !== undefined;
      if (!isUsage && event.revenueUsd === undefined) {
        this.config.log('track() was given neither usage, units nor revenueUsd: nothing is told');
        return undefined;
      }
      if (isUsage) this.tell({ ...event, id, ...(source ? { source } : {}) }, who, time);
      if (event.revenueUsd !== undefined) {
        const own = isUsage ? `${id}:revenue` : id;
        this.delivery.add(revenueEvent(own, source, who, String(event.revenueUsd), time));
      }
      return id;
    } catch (error) {
      this.config.log(`an event cannot be told: ${error instanceof Error ? error.message : String(error)}`);
      return undefined;
    }
  }

  /** The event of an answer as a provider's SDK gives it; undefined where it says nothing of its usage. */
  eventOf(answer: unknown, more: TrackedEvent = {}): TrackedEvent | undefined {
    const read = this.read(answer, more.usage === undefined);
    if (read === undefined && more.usage === undefined) return undefined;
    const event: TrackedEvent = { ...read, ...more };
    // By the provider's own id the call counts once, whoever else tells of it.
    if (read?.id !== undefined && event.id === read.id && event.source === undefined && event.provider) event.source = sourceOf(event.provider);
    return event;
  }

  private read(answer: unknown, mayBeUsage: boolean): TrackedEvent | undefined {
    try {
      return readAnswer(answer) ?? (mayBeUsage && isUsage(answer) ? { usage: answer } : undefined);
    } catch (error) {
      this.config.log(`an answer cannot be read: ${error instanceof Error ? error.message : String(error)}`);
      return undefined;
    }
  }

  /** Puts a call's event on its way. */
  tell(event: TrackedEvent, who: Attribution, time: string, scope = currentScope()): void {
    const { session, waitUntil = this.config.waitUntil } = scope;
    const sent = usageEvent(event, who, time);
    if (session?.limitUsd !== undefined && this.sidecar.knowsSessionLimits) sent['session_limit_usd'] = session.limitUsd;
    const tells = session !== undefined && session.id === who.session ? session : undefined;
    const done = tells?.expects();
    this.delivery.add(sent, done as ((result: Result | undefined) => void) | undefined, event.reservationId !== undefined);
    waitUntil?.(this.delivery.flush());
  }

  endOfSession(session: string, who: Attribution): void {
    const id = `${session}:end:${crypto.randomUUID()}`;
    const source = this.config.source;
    const sent = { type: 'spendfuse.session_end', id, ...(source ? { source } : {}), time: timeOf(undefined), ...dimensionsOf({ ...this.who(who), session }) };
    this.delivery.add(sent);
  }
}

const isUsage = (value: unknown): value is object =>
  typeof value === 'object' && value !== null && Object.entries(value).some(([name, count]) => /tokens|TokenCount|Tokens$/.test(name) && typeof count === 'number');

function timeOf(time: Date | string | undefined): string {
  if (typeof time === 'string') return time;
  return (time ?? new Date()).toISOString();
}
