/** Events on their way to the sidecar, in the background: none is lost while the process lives, none counts twice. */

import { platform } from '#platform';
import type { Config } from './config.js';
import type { End, LastWords } from './platform/types.js';
import { encoded } from './wire.js';

const BATCH = 100;
const SOON_MS = 5;
const ANSWER_MS = 10_000;
const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 30_000;
/** Bytes of a batch; the sidecar takes 8 MiB. */
const BATCH_BYTES = 1 << 20;

/** Refusals that are of the moment, or of the settings: not of the events. */
const MAY_PASS: ReadonlySet<number> = new Set([401, 403, 404, 405, 408, 429]);

/** What the sidecar says about one event. */
export interface Result {
  status: 'accepted' | 'late' | 'duplicate' | 'grown' | 'echo' | 'conflict' | 'rejected' | 'unavailable';
  cost_usd?: string | null;
  reason?: string;
  detail?: string;
}

interface Queued {
  body: string;
  done: ((result: Result | undefined) => void) | undefined;
}

export class Delivery {
  delivered = 0;
  rejected = 0;
  dropped = 0;
  private queue: Queued[] = [];
  /** Sent, and not answered yet. */
  private underWay: Queued[] = [];
  private pump: Promise<void> | undefined;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private due = 0;
  private wake: (() => void) | undefined;
  private pauseMs = 0;
  private isWatching = false;
  /** At the end of the process the sidecar was waited for in vain. */
  private isGivenUp = false;
  private isClosed = false;
  private readonly end: End = {
    drain: () => {
      if (this.queued === 0 || this.isGivenUp) return undefined;
      const before = this.settled;
      return this.flush(2_000).then((isFlushed) => {
        // One that takes events, and is slow, is waited for again.
        this.isGivenUp = !isFlushed && this.settled === before;
      });
    },
    last: () => this.lastWords(),
  };

  /** `ending` is called when the process ends now: what it adds is sent, too. */
  constructor(
    private readonly config: Config,
    private readonly ending: () => void = () => {},
  ) {}

  /** Whether the sidecar did not take the last batch that was sent. */
  get isStuck(): boolean {
    return this.pauseMs > 0;
  }

  private get settled(): number {
    return this.delivered + this.rejected + this.dropped;
  }

  get queued(): number {
    return this.queue.length + this.underWay.length;
  }

  /**
   * Never throws, never waits. `done` is told what became of it; undefined where it was dropped.
   * What `settles` a hold goes soon: until then the hold keeps other calls out.
   */
  add(event: Record<string, unknown>, done?: (result: Result | undefined) => void, settles = false): void {
    if (this.config.disabled) return done?.(undefined);
    if (this.queued >= this.config.maxQueue || this.isClosed) {
      this.dropped += 1;
      const why = this.isClosed ? 'after shutdown()' : `${this.config.maxQueue} wait already, the sidecar does not take them`;
      this.config.log(`an event is dropped, its call is not counted: ${why}`);
      return done?.(undefined);
    }
    this.queue.push({ body: encoded(event), done });
    this.watchExit();
    if (this.queue.length >= BATCH) void this.run();
    else this.later(settles ? Math.min(SOON_MS, this.config.flushIntervalMs) : this.config.flushIntervalMs);
  }

  /** Sends what waits; whether all of it was taken within the time. */
  async flush(timeoutMs = 5_000): Promise<boolean> {
    const deadline = Date.now() + timeoutMs;
    while (this.queued > 0) {
      const left = deadline - Date.now();
      if (left <= 0) return false;
      // Who flushes does not sit out a pause between attempts.
      this.wake?.();
      await within(this.run(), Math.min(left, 250));
    }
    return true;
  }

  /** Flushes, and takes no more. */
  async shutdown(timeoutMs: number): Promise<boolean> {
    const isFlushed = await this.flush(timeoutMs);
    this.isClosed = true;
    return isFlushed;
  }

  private later(ms: number): void {
    const due = performance.now() + ms;
    if (this.pump !== undefined || (this.timer !== undefined && this.due <= due)) return;
    clearTimeout(this.timer);
    this.due = due;
    this.timer = setTimeout(() => void this.run(), ms);
    platform.unref(this.timer);
  }

  private run(): Promise<void> {
    clearTimeout(this.timer);
    this.timer = undefined;
    this.pump ??= this.sendAll().finally(() => {
      this.pump = undefined;
      // What came when all had been sent, and the pump still stood.
      if (this.queue.length > 0) this.later(SOON_MS);
    });
    return this.pump;
  }

  private async sendAll(): Promise<void> {
    let size = BATCH;
    while (this.queue.length > 0 || this.underWay.length > 0) {
      if (this.underWay.length === 0) this.underWay = this.take(size);
      const outcome = await this.send(this.underWay);
      if (outcome === 'again') {
        await this.pause();
        continue;
      }
      this.pauseMs = 0;
      if (outcome === 'smaller') {
        // Sent again in parts; what was taken before counts once all the same.
        size = Math.max(1, this.underWay.length >> 1);
        this.queue.unshift(...this.underWay.splice(size));
        continue;
      }
      size = Math.min(size * 2, BATCH);
      this.underWay = [];
    }
  }

  private take(size: number): Queued[] {
    let bytes = 0;
    let count = 0;
    for (const { body } of this.queue) {
      bytes += body.length;
      if (count === size || (count > 0 && bytes > BATCH_BYTES)) break;
      count += 1;
    }
    return this.queue.splice(0, count);
  }

  private async send(batch: Queued[]): Promise<'taken' | 'again' | 'smaller'> {
    const body = `[${batch.map((event) => event.body).join(',')}]`;
    let answer;
    try {
      const { target, headers } = this.config;
      // Whoever waits for it keeps the process alive: a flush, and the end of the process for two seconds. By TLS
      // it goes by `fetch`, as an app may have sent that through a proxy.
      const isBackground = target.base.startsWith('http:');
      answer = await platform.ask(target, { method: 'POST', path: '/v1/usage', headers, body, connectMs: ANSWER_MS, answerMs: ANSWER_MS, isBackground });
    } catch (error) {
      this.config.log(`events wait for the sidecar: ${error instanceof Error ? error.message : String(error)}`);
      return this.again();
    }
    if (answer.status === 202 || answer.status === 400) {
      const results = resultsOf(answer.text);
      if (results !== undefined) {
        batch.forEach((event, index) => this.settle(event, results.get(index)));
        return 'taken';
      }
      // They are safe, whatever else it says.
      if (answer.status === 202) {
        batch.forEach((event) => this.settle(event, undefined));
        return 'taken';
      }
    }
    if (answer.status === 413 && batch.length > 1) return 'smaller';
    // A wrong token or address can be put right while events wait; what else is refused is refused at every asking.
    if (answer.status >= 400 && answer.status < 500 && !MAY_PASS.has(answer.status)) {
      this.dropped += batch.length;
      this.config.log(`events are dropped, their calls are not counted: the sidecar answers ${answer.status}`);
      batch.forEach((event) => event.done?.(undefined));
      return 'taken';
    }
    this.config.log(`events wait for the sidecar: it answers ${answer.status}`);
    return this.again(Number(answer.retryAfter ?? 0) * 1_000);
  }

  private settle(event: Queued, result: Result | undefined): void {
    if (result?.status === 'rejected') {
      this.rejected += 1;
      this.config.log(`an event is rejected, its call is not counted: ${result.reason}, ${result.detail}`);
    } else this.delivered += 1;
    try {
      event.done?.(result);
    } catch (error) {
      this.config.log(`a listener threw: ${String(error)}`);
    }
  }

  private again(atLeastMs = 0): 'again' {
    const doubled = Math.min(Math.max(this.pauseMs * 2, FIRST_PAUSE_MS), LONGEST_PAUSE_MS);
    this.pauseMs = Math.min(Math.max(doubled, atLeastMs || 0), LONGEST_PAUSE_MS);
    return 'again';
  }

  /** Waits between attempts, not all processes at the same time; a flush ends it. */
  private pause(): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, this.pauseMs * (0.5 + Math.random() / 2));
      platform.unref(timer);
      this.wake = () => {
        clearTimeout(timer);
        this.wake = undefined;
        // Even a flush leaves a dead sidecar a breath.
        setTimeout(resolve, 20);
      };
    });
  }

  /** From the first call or event on: importing this package, or making a client, starts nothing. */
  watchExit(): void {
    if (this.isWatching) return;
    this.isWatching = true;
    platform.onExit(this.end);
  }

  private lastWords(): LastWords | undefined {
    this.ending();
    const left = [...this.underWay, ...this.queue];
    if (left.length === 0) return undefined;
    if (this.isGivenUp) {
      this.config.log(`the process ends, events are lost: ${left.length} that the sidecar did not take`);
      return undefined;
    }
    const bodies = [];
    for (let from = 0; from < left.length; from += BATCH) {
      bodies.push(`[${left.slice(from, from + BATCH).map((event) => event.body).join(',')}]`);
    }
    this.underWay = this.queue = [];
    return { target: this.config.target, path: '/v1/usage', headers: this.config.headers, bodies };
  }
}

function resultsOf(text: string): Map<number, Result> | undefined {
  try {
    const { results } = JSON.parse(text) as { results?: (Result & { index: number })[] };
    return results && new Map(results.map((result) => [result.index, result]));
  } catch {
    return undefined;
  }
}

/** Waits for `done`, and not longer than `ms`; leaves no timer behind. */
async function within(done: Promise<void>, ms: number): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const over = new Promise<void>((resolve) => (timer = setTimeout(resolve, ms)));
  await Promise.race([done, over]).finally(() => clearTimeout(timer));
}
