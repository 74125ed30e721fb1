/**
 * Budgets and metering for AI calls.
 *
 * ```ts
 * import OpenAI from 'openai';
 * import { context, wrap } from 'spendfuse';
 *
 * const openai = wrap(new OpenAI());
 * await context({ customer: 'c-42' }, () => openai.responses.create({ model: 'gpt-5-mini', input: 'Hello' }));
 * ```
 */

import { Spendfuse } from './spendfuse.js';
import type { Options } from './types.js';

export { BudgetExceededError, SessionBlockedError, SpendfuseError, StateUnknownError } from './errors.js';
export { Spendfuse, type CallOptions, type ContextOptions } from './spendfuse.js';
export type { Call } from './call.js';
export type { Session, SessionOptions, SessionState, StepResult } from './session.js';
export type * from './types.js';

const SHARED = Symbol.for('spendfuse.default.1');
const shared = globalThis as { [SHARED]?: Spendfuse };

/** The one that the functions below use; made when it is first needed, by the environment. */
const own = (): Spendfuse => (shared[SHARED] ??= new Spendfuse());

/** Sets up the functions of this module, and clients that they have wrapped already. */
export function configure(options: Options): Spendfuse {
  return own().configure(options);
}

export const wrap: Spendfuse['wrap'] = (client, options) => own().wrap(client, options);
export const context: Spendfuse['context'] = (who, fn, options) => own().context(who, fn, options);
export const check: Spendfuse['check'] = (question) => own().check(question);
export const guardedCall: Spendfuse['guardedCall'] = (question, fn, options) => own().guardedCall(question, fn, options);
export const guard: Spendfuse['guard'] = ((...given: Parameters<Spendfuse['guard']>) => own().guard(...given)) as Spendfuse['guard'];
export const track: Spendfuse['track'] = (event) => own().track(event);
export const addUsage: Spendfuse['addUsage'] = (answer, more) => own().addUsage(answer, more);
export const session: Spendfuse['session'] = (options) => own().session(options);
export const flush: Spendfuse['flush'] = (timeoutMs) => own().flush(timeoutMs);
export const shutdown: Spendfuse['shutdown'] = (timeoutMs) => own().shutdown(timeoutMs);
