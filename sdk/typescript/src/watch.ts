/**
 * `mode: 'watch'`: follows the blocklist in the background, and decides in this process. The loop starts
 * with the first check and keeps no process alive.
 */

import { platform } from '#platform';
import type { Config } from './config.js';
import { MOST_ENTRIES, type Page, Standings } from './standings.js';

/** How long a request waits for a change; less where state is stale sooner. */
const LONGEST_WAIT_MS = 5_000;
/** For an answer, beyond its wait. */
const PATIENCE_MS = 10_000;
/** How long the very first check waits until anything is known. */
const FIRST_WAIT_MS = 2_000;
const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 10_000;
/** Between requests where no place to wait is free at the sidecar. */
const WITHOUT_WAIT_MS = 1_000;

export class Watch {
  private standings: Standings | undefined;
  /** What is being read from the beginning, while what was known before still counts. */
  private coming: Standings | undefined;
  private cursor: string | undefined;
  private mayWait = true;
  /** Counts starts: a loop of an earlier one ends. */
  private started = 0;
  private isRunning = false;
  private hasTried = false;
  /** Until when checks wait for that, which all have in common. */
  private knownBy: number | undefined;
  private tried: (() => void)[] = [];

  constructor(private readonly config: Config) {}

  /** As the sidecar would answer; undefined where nothing is known. */
  async check(question: Record<string, unknown>): Promise<Record<string, unknown> | undefined> {
    if (!this.isRunning) {
      this.isRunning = true;
      this.started += 1;
      void this.follow(this.started);
    }
    if (this.standings === undefined && !this.hasTried) await this.firstTry();
    return this.standings?.decide(question, performance.now());
  }

  /** The loop ends with its request; a check starts another one. */
  stop(): void {
    this.isRunning = false;
    this.started += 1;
  }

  private firstTry(): Promise<void> {
    const now = performance.now();
    this.knownBy ??= now + FIRST_WAIT_MS;
    const left = this.knownBy - now;
    if (left <= 0) return Promise.resolve();
    return new Promise((resolve) => {
      // Keeps the process alive, as the request does not.
      const timer = setTimeout(resolve, left);
      this.tried.push(() => {
        clearTimeout(timer);
        resolve();
      });
    });
  }

  private async follow(own: number): Promise<void> {
    let pause = FIRST_PAUSE_MS;
    while (this.started === own) {
      let waits: number;
      try {
        waits = await this.next(own);
      } catch (error) {
        const { base, socketPath } = this.config.target;
        this.config.log(`the blocklist cannot be followed: ${socketPath ?? base}: ${error instanceof Error ? error.message : String(error)}`);
        waits = FIRST_PAUSE_MS;
        this.isTried();
      }
      if (waits === 0) {
        pause = FIRST_PAUSE_MS;
        continue;
      }
      // Half of it by chance: many processes lose the same sidecar at the same time.
      const ms = Math.max(waits, pause) * (0.5 + Math.random() / 2);
      await new Promise<void>((resolve) => platform.unref(setTimeout(resolve, ms)));
      pause = Math.min(pause * 2, LONGEST_PAUSE_MS);
    }
  }

  /** One request; how long to wait until the next one. */
  private async next(own: number): Promise<number> {
    let path = '/v1/blocklist?view=standings';
    let waitMs = 0;
    if (this.cursor !== undefined) {
      path += `&cursor=${encodeURIComponent(this.cursor)}`;
      if (this.mayWait && this.coming === undefined && this.standings !== undefined) {
        waitMs = Math.floor(Math.min(LONGEST_WAIT_MS, this.standings.longestWait));
        path += `&wait=${waitMs}ms`;
      }
    }
    const askedAt = performance.now();
    const { target, headers } = this.config;
    const asked = { method: 'GET' as const, path, headers, connectMs: PATIENCE_MS, answerMs: waitMs + PATIENCE_MS, isBackground: true };
    const answer = await platform.ask(target, asked);
    if (this.started !== own) return 0;
    if (answer.status === 410) {
      this.coming = this.cursor = undefined;
      return 0;
    }
    if (answer.status !== 200) {
      // Where too many wait already, this one asks now and then.
      this.mayWait = answer.status !== 503;
      throw new Error(`status ${answer.status}: ${answer.text.slice(0, 200)}`);
    }
    const page = JSON.parse(answer.text) as Page;
    if (typeof page.waited_ms !== 'number') throw new Error('the sidecar is older than this SDK: it knows no view=standings');
    if (this.cursor === undefined) this.coming = new Standings();
    const standings = this.coming ?? this.standings!;
    standings.take(page, askedAt + page.waited_ms);
    this.cursor = page.cursor;
    if (standings.leftOut > 0) this.config.log(`the blocklist has more than ${MOST_ENTRIES} entries: ${standings.leftOut} are not known here`);
    if (this.coming !== undefined && !page.more) {
      this.standings = this.coming;
      this.coming = undefined;
      this.isTried();
    }
    const waited = this.mayWait;
    this.mayWait = true;
    return waited || page.more ? 0 : WITHOUT_WAIT_MS;
  }

  private isTried(): void {
    this.hasTried = true;
    for (const told of this.tried.splice(0)) told();
  }
}
