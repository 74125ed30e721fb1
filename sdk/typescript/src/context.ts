/** Whom calls count against, carried along asynchronous calls. */

import { platform } from '#platform';
import type { Call } from './call.js';
import type { Storage } from './platform/types.js';
import type { Session } from './session.js';
import type { Attribution, WaitUntil } from './types.js';

/** What is known at a place in the program. */
export interface Scope {
  who: Attribution;
  waitUntil?: WaitUntil | undefined;
  /** The guarded call that is under way here. */
  call?: Call | undefined;
  session?: Session | undefined;
}

const SHARED = Symbol.for('spendfuse.context.1');
const NOTHING: Scope = { who: {} };

/** One for all copies of this package in a process; made when it is first needed. */
function storage(): Storage<Scope> | undefined {
  const shared = globalThis as { [SHARED]?: { storage: Storage<Scope> | undefined } };
  shared[SHARED] ??= { storage: platform.storage<Scope>() };
  return shared[SHARED].storage;
}

export function currentScope(): Scope {
  return storage()?.getStore() ?? NOTHING;
}

/** Runs `fn`, and what it starts, within `scope`. Where the runtime cannot follow, `fn` only runs. */
export function within<R>(scope: Scope, fn: () => R): R {
  const follows = storage();
  return follows === undefined ? fn() : follows.run(scope, fn);
}

/**
 * A generator whose every step runs within `scope`: nothing is attached across a `yield`, so that
 * what its consumer does in between counts against the consumer.
 */
export function generatorWithin<T>(scope: Scope, made: AsyncGenerator<T>): AsyncGenerator<T> {
  const step = (take: () => Promise<IteratorResult<T>>) => within(scope, take);
  const wrapped: AsyncGenerator<T> = {
    next: (...given) => step(() => made.next(...given)),
    return: (value) => step(() => made.return(value)),
    throw: (error) => step(() => made.throw(error)),
    [Symbol.asyncIterator]: () => wrapped,
  } as AsyncGenerator<T>;
  return wrapped;
}
