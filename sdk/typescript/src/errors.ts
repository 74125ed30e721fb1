/** What is thrown: everything is a `SpendfuseError`. */

import { nanosOf } from './money.js';
import type { BudgetLine, Decision } from './types.js';

const KINDS = Symbol.for('spendfuse.error.kinds');

type Kind = typeof SpendfuseError & { kind?: string };

export class SpendfuseError extends Error {
  /** @internal */
  static kind = 'SpendfuseError';

  /** What was answered, where there was an answer. */
  readonly decision: Decision | undefined;

  constructor(message: string, decision?: Decision, options?: { cause?: unknown }) {
    super(message, options);
    this.decision = decision;
    const kinds: string[] = [];
    for (let made: Kind = new.target; made.kind !== undefined; made = Object.getPrototypeOf(made) as Kind) {
      if (Object.hasOwn(made, 'kind')) kinds.push(made.kind);
    }
    Object.defineProperty(this, KINDS, { value: kinds });
    this.name = Object.hasOwn(new.target, 'kind') ? kinds[0]! : new.target.name;
  }

  /** Of a kind in whichever copy of this package it was made: ESM and CommonJS may both be loaded. */
  static override [Symbol.hasInstance](value: unknown): boolean {
    if (!Object.hasOwn(this, 'kind')) return Function.prototype[Symbol.hasInstance].call(this, value);
    const kinds = (value as { [KINDS]?: readonly string[] } | null | undefined)?.[KINDS];
    return kinds?.includes(this.kind) ?? false;
  }
}

/** A call was refused, and not made. */
export class BudgetExceededError extends SpendfuseError {
  /** @internal */
  static override kind = 'BudgetExceededError';

  /** The budget's id, such as `per-customer`. */
  readonly budget: string;
  /** Such as `acme/customer=c-42`. */
  readonly scope: string;
  /** Such as `"5.000123"`: dollars, or tokens or calls where the budget counts those. */
  readonly spent: string;
  readonly limit: string;
  readonly window: string;
  /** When the budget begins anew; null where it never does. */
  readonly resetsAt: Date | null;
  /** Seconds until every blocking budget has reset, 1 where only other calls are in the way; null where one never does. */
  readonly retryAfter: number | null;
  readonly helpUrl: string | null;

  constructor(line: BudgetLine, decision: Decision) {
    super(messageOf(line, decision), decision);
    this.budget = line.budget;
    this.scope = line.scope;
    this.spent = spentOf(line);
    this.limit = limitOf(line);
    this.window = line.window;
    this.resetsAt = line.resetsAt === null ? null : new Date(line.resetsAt);
    this.retryAfter = decision.retryAfterSeconds;
    this.helpUrl = line.helpUrl;
  }
}

/** A detector has stopped the session: it runs in circles, or its context explodes. */
export class SessionBlockedError extends SpendfuseError {
  /** @internal */
  static override kind = 'SessionBlockedError';

  /** The detector's rule. */
  readonly rule: string;
  readonly scope: string;
  readonly resetsAt: Date | null;
  readonly retryAfter: number | null;

  constructor(line: BudgetLine, decision: Decision) {
    const why = decision.warnings.find((warning) => warning.budget === line.budget) ?? decision.warnings[0];
    super(line.message ?? `${line.scope} is stopped by ${line.budget}${why ? `: ${why.message}` : ''}`, decision);
    this.rule = line.budget;
    this.scope = line.scope;
    this.resetsAt = line.resetsAt === null ? null : new Date(line.resetsAt);
    this.retryAfter = decision.retryAfterSeconds;
  }
}

/** Nobody knows what has been spent, and the call was refused for that (`onUnavailable: 'block'`). */
export class StateUnknownError extends SpendfuseError {
  /** @internal */
  static override kind = 'StateUnknownError';
}

/** The error of a decision that refuses. */
export function refusalOf(decision: Decision): SpendfuseError {
  // Those refuse because what is known of them is old (their `on_stale`), and not by what is spent.
  const late = new Set(decision.warnings.filter((warning) => warning.type === 'stale').map((warning) => warning.budget));
  const line = decision.budgets.find((line) => line.verdict === 'block' && !late.has(line.budget));
  if (line === undefined) {
    const why = decision.warnings.map((warning) => warning.message).join('; ');
    return new StateUnknownError(why || 'nobody knows what has been spent', decision);
  }
  return limitOf(line) === '' ? new SessionBlockedError(line, decision) : new BudgetExceededError(line, decision);
}

const spentOf = (line: BudgetLine): string => String(line.spentUsd ?? line.spentTokens ?? line.spentCalls ?? '');
const limitOf = (line: BudgetLine): string => String(line.limitUsd ?? line.limitTokens ?? line.limitCalls ?? '');

function messageOf(line: BudgetLine, decision: Decision): string {
  const [dollar, unit] = line.limitUsd !== null ? ['$', ''] : ['', line.limitTokens !== undefined ? ' tokens' : ' calls'];
  const held = line.reservedUsd !== undefined && isMore(line.reservedUsd, '0') ? `, $${line.reservedUsd} held by calls under way` : '';
  const reset = line.resetsAt === null ? '' : `, resets ${line.resetsAt}`;
  const figures = `${line.scope}: ${dollar}${spentOf(line)} of ${dollar}${limitOf(line)}${unit} spent${held}${reset}`;
  const own = line.message === null ? '' : `${line.message} `;
  const isUsedUp = line.limitUsd === null || !isMore(line.limitUsd, line.spentUsd);
  if (isUsedUp) return `${own}Budget ${line.budget} is used up (${figures})`;
  const cost = decision.reservedUsd === null ? '' : `, which may cost $${decision.reservedUsd}`;
  return `${own}Budget ${line.budget} has no room for this call${cost} (${figures})`;
}

const isMore = (one: string, other: string | null): boolean => (nanosOf(one) ?? 0n) > (nanosOf(other) ?? 0n);
