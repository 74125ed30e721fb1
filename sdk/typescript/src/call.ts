/** One guarded call, from its permission to its usage. */

import type { Core } from './core.js';
import { refusalOf } from './errors.js';
import type { Attribution, Decision, OnDowngrade, OnUnavailable, Question, TrackedEvent } from './types.js';

/** Longest wait of a call that would be refused for events that settle others, milliseconds. */
const SETTLING_MS = 250;

/** What `guardedCall` hands to its function. */
export class Call {
  private isTold = false;
  /** Whether another model than the app's was given to it. @internal */
  isDowngraded = false;
  private reservation: string | undefined;

  /** @internal */
  constructor(
    private readonly core: Core,
    private readonly who: Attribution,
    /** What was answered: figures of each budget, warnings. */
    readonly decision: Decision,
  ) {
    this.reservation = decision.reservationId ?? undefined;
  }

  /** The model to ask: `asked`, or the cheaper one that a budget wants. */
  model(asked: string): string {
    const used = this.decision.downgradeTo ?? asked;
    this.isDowngraded ||= used !== asked;
    return used;
  }

  /** Counts an answer of a provider, or a usage object with `more` beside it. Never throws. */
  addUsage(answer: unknown, more: TrackedEvent = {}): void {
    if (more.id === undefined && this.core.isTold(answer)) return this.metered();
    const event = this.core.eventOf(answer, more);
    if (event === undefined) {
      this.core.config.log('addUsage() was given no usage: its call is not counted');
      return;
    }
    const reservationId = event.reservationId ?? this.hold();
    this.isTold = true;
    const flags = this.isDowngraded ? { flags: ['downgraded'] } : {};
    this.core.track({ ...this.who, ...flags, ...event, ...(reservationId ? { reservationId } : {}) });
  }

  /**
   * A wrapped client's call within this one takes over what is held: it does not ask again.
   * @internal
   */
  adopt(): { decision: Decision; reservation: string } | undefined {
    const reservation = this.hold();
    return reservation === undefined ? undefined : { decision: this.decision, reservation };
  }

  /** A wrapped client counts a call within this one. @internal */
  metered(): void {
    this.isTold = true;
  }

  /** @internal */
  returned(result: unknown): void {
    if (!this.isTold && this.core.eventOf(result) !== undefined) this.addUsage(result);
    if (!this.isTold && !this.core.config.disabled) {
      this.core.config.log('guardedCall() returned an answer without usage, its call is not counted: wrap() the client, or call addUsage()');
    }
    this.release();
  }

  /** What is held is free again. @internal */
  release(): void {
    const reservation = this.hold();
    if (reservation !== undefined) this.core.sidecar.release(reservation);
  }

  private hold(): string | undefined {
    const { reservation } = this;
    this.reservation = undefined;
    return reservation;
  }
}

/** Asks, and throws where the call is refused. */
export async function permitted(core: Core, question: Question, onUnavailable: OnUnavailable, downgrade: OnDowngrade): Promise<Decision> {
  let decision = await core.sidecar.permit(question, onUnavailable);
  if (decision.decision === 'block' && core.delivery.queued > 0 && (await core.delivery.flush(SETTLING_MS))) {
    // Calls of this process that are at their end may be all that was in the way.
    decision = await core.sidecar.permit(question, onUnavailable);
  }
  const isRefused = decision.decision === 'block' || (decision.decision === 'downgrade' && downgrade === 'raise');
  if (!isRefused) return decision;
  if (decision.reservationId !== null) core.sidecar.release(decision.reservationId);
  if (decision.decision === 'block') throw refusalOf(decision);
  const lines = decision.budgets.map((line) => (line.verdict === 'downgrade' ? { ...line, verdict: 'block' as const } : line));
  throw refusalOf({ ...decision, budgets: lines });
}
