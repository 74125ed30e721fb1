/** The verbs. */

import { Call, permitted } from './call.js';
import { configOf } from './config.js';
import { currentScope, generatorWithin, within } from './context.js';
import { Core } from './core.js';
import { Session, type SessionOptions } from './session.js';
import type { Attribution, Decision, OnDowngrade, OnUnavailable, Options, Question, Statistics, TrackedEvent, WaitUntil, WrapOptions } from './types.js';
import { merged } from './wire.js';
import { wrap } from './wrap.js';

export interface CallOptions {
  /** Default `apply`: the function asks `call.model(…)`. */
  downgrade?: OnDowngrade;
  onUnavailable?: OnUnavailable;
}

export interface ContextOptions {
  /** For runtimes that give each request its own, as Cloudflare does. */
  waitUntil?: WaitUntil;
}

/** A sidecar, and all that is asked of it and told to it. Starts nothing until it is used. */
export class Spendfuse {
  private readonly core: Core;

  constructor(options: Options = {}) {
    this.core = new Core(configOf(options));
  }

  /** Other settings from now on. What is not given is as the environment says. */
  configure(options: Options): this {
    Object.assign(this.core.config, configOf(options));
    this.core.sidecar.reconfigured();
    return this;
  }

  /**
   * A client of `openai`, `@anthropic-ai/sdk` or `@google/genai`, or a `fetch` function, of the same
   * type: each call is permitted before it is sent, and counted as its answer passes.
   */
  wrap<T extends object>(client: T, options: WrapOptions = {}): T {
    return wrap(this.core, client, options);
  }

  /** Calls within `fn`, and within what it awaits, count against `who`. */
  context<R>(who: Attribution, fn: () => R, options: ContextOptions = {}): R {
    const scope = currentScope();
    const waitUntil = options.waitUntil ?? scope.waitUntil;
    return within({ ...scope, who: merged(scope.who, who), waitUntil }, fn);
  }

  /**
   * May this call go ahead? A refusal is an answer here, not an error; so is an unreachable sidecar.
   *
   * @throws {SpendfuseError} where the question itself is wrong, or the token.
   */
  check(question: Question = {}): Promise<Decision> {
    return this.checked({ ...question, ...this.core.who(question) });
  }

  /**
   * Runs `fn` where it is permitted. What it returns is read for its usage; `call.addUsage(…)` tells more.
   *
   * @throws {BudgetExceededError}, {SessionBlockedError}, {StateUnknownError}, before `fn` is run.
   */
  async guardedCall<R>(question: Question, fn: (call: Call) => R | PromiseLike<R>, options: CallOptions = {}): Promise<R> {
    const who = this.core.who(question);
    const scope = currentScope();
    const session = scope.session;
    await session?.permits();
    const asked = withLimit({ ...question, ...who }, session);
    asked.reserve ??= question.estimate !== undefined || question.estimatedCostUsd !== undefined;
    const decision = await permitted(this.core, asked, options.onUnavailable ?? this.core.config.onUnavailable, options.downgrade ?? 'apply');
    const call = new Call(this.core, who, decision);
    try {
      const result = await within({ ...scope, who: merged(scope.who, question), call }, () => fn(call));
      call.returned(result);
      return result;
    } catch (error) {
      call.release();
      throw error;
    }
  }

  /**
   * The same function, guarded: `guard({ feature: 'search' }, search)`, or as a decorator of a method:
   * `@guard({ feature: 'search' })`. Of asynchronous generators every step is run in the context.
   */
  guard<F extends (...given: never[]) => unknown>(question: Question | ((...given: Parameters<F>) => Question), fn: F, options?: CallOptions): F;
  guard(question: Question, options?: CallOptions): <F extends (...given: never[]) => unknown>(fn: F, context?: unknown) => F;
  guard(question: Question | ((...given: never[]) => Question), given?: unknown, options?: CallOptions): unknown {
    if (typeof given !== 'function') return (fn: never) => this.guard(question as Question, fn, given as CallOptions | undefined);
    const spendfuse = this;
    const fn = given as (...given: never[]) => unknown;
    const asked = (args: never[]): Question => (typeof question === 'function' ? question(...args) : question);
    if (fn.constructor.name === 'AsyncGeneratorFunction') {
      return async function* (this: unknown, ...args: never[]): AsyncGenerator<unknown> {
        const question = asked(args);
        await spendfuse.permit(question, options);
        const scope = currentScope();
        const own = { ...scope, who: merged(scope.who, question) };
        yield* generatorWithin(own, within(own, () => fn.apply(this, args)) as AsyncGenerator<unknown>);
      };
    }
    return function (this: unknown, ...args: never[]) {
      return spendfuse.guardedCall(asked(args), () => fn.apply(this, args), options);
    };
  }

  /**
   * Counts a call that was made elsewhere, or what a customer has paid (`revenueUsd`). Returns the
   * event's id at once; it is delivered in the background. Never throws.
   */
  track(event: TrackedEvent): string | undefined {
    return this.core.track(event);
  }

  /** Counts an answer of a provider, whichever SDK it came from, in the context; one of a wrapped client is counted already. Never throws. */
  addUsage(answer: unknown, more: TrackedEvent = {}): void {
    const { call } = currentScope();
    if (call !== undefined) return call.addUsage(answer, more);
    if (more.id === undefined && this.core.isTold(answer)) return;
    const event = this.core.eventOf(answer, more);
    if (event === undefined) this.core.config.log('addUsage() was given no usage: its call is not counted');
    else this.core.track(event);
  }

  /** A run with an allowance of its own: `session({ budget: '0.50' })`. */
  session(options: SessionOptions = {}): Session {
    return new Session(this.core, options);
  }

  /** Sends what waits; whether all of it was taken within the time (5 s). Never throws. */
  async flush(timeoutMs?: number): Promise<boolean> {
    return this.core.delivery.flush(timeoutMs);
  }

  /** Charges calls under way by estimate, sends what waits, and takes no more. For the end of a process. */
  async shutdown(timeoutMs = 2_000): Promise<boolean> {
    this.core.cutAll();
    this.core.sidecar.watch.stop();
    return this.core.delivery.shutdown(timeoutMs);
  }

  get statistics(): Statistics {
    const { queued, delivered, rejected, dropped } = this.core.delivery;
    return { queued, delivered, rejected, dropped, unavailable: this.core.sidecar.unavailable };
  }

  /** By the session's own budget, too. */
  private async checked(asked: Question): Promise<Decision> {
    const { session } = currentScope();
    const decision = await this.core.sidecar.check(withLimit(asked, session), this.core.config.onUnavailable);
    const judged = (await session?.judged(decision)) ?? decision;
    if (judged === decision || decision.reservationId === null) return judged;
    // Nobody makes the call.
    this.core.sidecar.release(decision.reservationId);
    return { ...judged, reservationId: null };
  }

  private async permit(question: Question, options: CallOptions = {}): Promise<Decision> {
    const { session } = currentScope();
    await session?.permits();
    const asked = withLimit({ ...question, ...this.core.who(question), reserve: false }, session);
    return permitted(this.core, asked, options.onUnavailable ?? this.core.config.onUnavailable, options.downgrade ?? 'apply');
  }
}

function withLimit(asked: Question, session: Session | undefined): Question {
  if (session?.limitUsd !== undefined) asked.sessionLimitUsd ??= session.limitUsd;
  return asked;
}
