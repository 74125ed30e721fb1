/** One run with an allowance of its own: what it has cost so far, what is wrong with it, and its end. */

import { within, currentScope } from './context.js';
import type { Core } from './core.js';
import type { Result } from './delivery.js';
import { refusalOf } from './errors.js';
import { amountOf, dollarsOf, nanosOf } from './money.js';
import type { Attribution, BudgetLine, Decision, State, TrackedEvent, Warning } from './types.js';
import { merged, withoutSidecar } from './wire.js';

export interface SessionOptions extends Attribution {
  /** What it may spend, decimal US dollars: `"0.50"`. */
  budget?: string;
  /** Else one is made. */
  id?: string;
}

export interface StepResult {
  /** Of this step. */
  costUsd: string;
  totalCostUsd: string;
  /** Null without a budget. */
  remainingUsd: string | null;
  warnings: Warning[];
}

export interface SessionState extends State {
  totalCostUsd: string;
  remainingUsd: string | null;
}

/** Longest wait for what earlier calls have cost, before the next one is permitted. */
const COSTS_MS = 1_000;
const SETTLE_MS = 2_000;

export class Session {
  readonly id: string;
  /** What it may spend; undefined without a budget. */
  readonly limitUsd: string | undefined;
  /** @internal */
  readonly who: Attribution;
  private readonly limit: bigint | undefined;
  private total = 0n;
  /** Of sessions within this one. */
  private inner = 0n;
  /** The session around this one, in whose budget it counts, too. */
  private readonly outer: Session | undefined;
  /** Events whose cost is not known yet. */
  private pending = 0;
  private waiting: (() => void)[] = [];
  private lastTold = 0;
  private isEnded = false;

  /** @internal */
  constructor(
    private readonly core: Core,
    options: SessionOptions,
  ) {
    this.id = options.id ?? options.session ?? crypto.randomUUID();
    const { who: outer, session: around } = currentScope();
    this.outer = around;
    // A session within another one belongs to its root.
    const root = options.rootSession ?? outer.rootSession ?? outer.session;
    this.who = { ...merged(outer, options), session: this.id };
    delete this.who.rootSession;
    if (root !== undefined && (root !== this.id || options.rootSession !== undefined)) this.who.rootSession = root;
    // Where types do not say otherwise it may be a number, which JavaScript may write with an exponent.
    this.limit = options.budget === undefined ? undefined : nanosOf(typeof options.budget === 'number' ? amountOf(options.budget) : options.budget);
    if (options.budget !== undefined && (this.limit === undefined || this.limit < 0n)) {
      throw new RangeError(`budget is no amount: write dollars as a decimal string such as "0.50", not ${JSON.stringify(options.budget)}`);
    }
    this.limitUsd = this.limit === undefined ? undefined : dollarsOf(this.limit);
  }

  /** Runs `fn` within the session: calls of wrapped clients count in it, and are refused when it is used up. */
  run<R>(fn: () => R): R {
    const scope = currentScope();
    // Its root is its own, wherever it is run.
    const { rootSession: _, ...outer } = scope.who;
    return within({ ...scope, who: merged(outer, this.who), session: this }, fn);
  }

  /** Tells of one call that was made, or runs one; what it has cost, and what is wrong by now. */
  async step(made: TrackedEvent | (() => unknown)): Promise<StepResult> {
    const before = this.total;
    if (typeof made === 'function') await this.run(made);
    else this.run(() => this.core.track(made));
    await this.costs(COSTS_MS);
    const warnings = await this.warnings();
    return { costUsd: dollarsOf(this.total - before), totalCostUsd: dollarsOf(this.total), remainingUsd: this.remaining(), warnings };
  }

  /** Where the session stands by the sidecar's books, which lag some 50 ms; the total is this process's own. */
  async state(): Promise<SessionState> {
    await this.costs(COSTS_MS);
    const state = await this.core.sidecar.state(this.who);
    return { ...state, totalCostUsd: dollarsOf(this.total), remainingUsd: this.remaining() };
  }

  /** Ends it: everything is told, what is open is closed. Waits for the books as long as `settleMs`. */
  async end({ settleMs = SETTLE_MS }: { settleMs?: number } = {}): Promise<{ totalCostUsd: string; warnings: Warning[] }> {
    await this.costs(settleMs);
    const warnings = await this.warnings(settleMs);
    if (!this.isEnded) {
      this.isEnded = true;
      this.core.endOfSession(this.id, this.who);
      await this.core.delivery.flush(settleMs);
    }
    return { totalCostUsd: dollarsOf(this.total), warnings };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end();
  }

  /**
   * Refuses the next call where the budget is used up by what this process has counted, or that of a session
   * around.
   * @internal
   */
  async permits(): Promise<void> {
    const line = await this.refusal();
    if (line !== undefined) throw refusalOf(refusedBy({ ...withoutSidecar('disabled', 'block', ''), state: 'live' }, line));
  }

  /** `decision`, unless the budget is used up. @internal */
  async judged(decision: Decision): Promise<Decision> {
    const line = decision.decision === 'block' ? undefined : await this.refusal();
    return line === undefined ? decision : refusedBy(decision, line);
  }

  private async refusal(): Promise<BudgetLine | undefined> {
    if (this.limit === undefined) return this.outer?.refusal();
    // Nobody waits for a sidecar that is known to be away.
    if (!this.core.delivery.isStuck && !this.core.sidecar.isAway) await this.costs(COSTS_MS);
    if (this.spent < this.limit) return this.outer?.refusal();
    return {
      budget: 'session',
      scope: `session=${this.id}`,
      verdict: 'block',
      spentUsd: dollarsOf(this.spent),
      limitUsd: dollarsOf(this.limit),
      percent: null,
      window: 'session',
      resetsAt: null,
      message: null,
      helpUrl: null,
    };
  }

  /** What counts in its budget: with what sessions within it cost. */
  private get spent(): bigint {
    return this.total + this.inner;
  }

  /** An event of this session is on its way. @internal */
  expects(): (result: Result | undefined) => void {
    const around: Session[] = [];
    for (let one: Session | undefined = this.outer; one !== undefined; one = one.outer) around.push(one);
    for (const one of [this, ...around]) one.pending += 1;
    return (result) => {
      const cost = result?.status === 'accepted' ? (nanosOf(result.cost_usd) ?? 0n) : 0n;
      this.total += cost;
      for (const one of around) one.inner += cost;
      for (const one of [this, ...around]) one.counted();
    };
  }

  private counted(): void {
    this.pending -= 1;
    this.lastTold = Date.now();
    if (this.pending === 0) for (const resolve of this.waiting.splice(0)) resolve();
  }

  private async costs(timeoutMs: number): Promise<void> {
    if (this.pending === 0) return;
    const known = new Promise<void>((resolve) => this.waiting.push(resolve));
    await Promise.race([known, this.core.delivery.flush(timeoutMs)]);
  }

  /** Of the books, once they contain what was told; and the own budget's. */
  private async warnings(settleMs = 0): Promise<Warning[]> {
    const own: Warning[] = [];
    if (this.limit !== undefined && this.spent >= this.limit) {
      const message = `the session has spent $${dollarsOf(this.spent)} of $${dollarsOf(this.limit)}`;
      own.push({ type: 'budget_exceeded', severity: 'critical', message, wastedUsd: null });
    }
    if (this.core.config.disabled) return own;
    const deadline = Date.now() + settleMs;
    for (;;) {
      try {
        const state = await this.core.sidecar.state(this.who);
        const isSettled = state.completeTo !== null && Date.parse(state.completeTo) >= this.lastTold;
        if (isSettled || Date.now() >= deadline) return [...own, ...state.warnings];
      } catch (error) {
        this.core.config.log(`a session's state is not known: ${error instanceof Error ? error.message : String(error)}`);
        return own;
      }
      await new Promise((resolve) => setTimeout(resolve, 25));
    }
  }

  private remaining(): string | null {
    if (this.limit === undefined) return null;
    return dollarsOf(this.limit > this.spent ? this.limit - this.spent : 0n);
  }
}

const refusedBy = (decision: Decision, line: BudgetLine): Decision => ({ ...decision, decision: 'block', budgets: [line, ...decision.budgets], downgradeTo: null, retryAfterSeconds: null });
