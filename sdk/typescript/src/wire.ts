/** Between the names of this API (`rootSession`) and those on the wire (`root_session`). */

import type { Attribution, Decision } from './types.js';

export const DIMENSIONS = [
  'workspace',
  'customer',
  'feature',
  'project',
  'user',
  'agent',
  'plan',
  'environment',
  'account',
  'session',
  'rootSession',
] as const satisfies readonly (keyof Attribution)[];

export const snake = (name: string): string => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
/** Of the sidecar's names, which are few; those of budgets and tags, which are not, are values. */
const camels = new Map<string, string>();
const MOST_CAMELS = 256;

function camel(name: string): string {
  const known = camels.get(name);
  if (known !== undefined) return known;
  const made = name.replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());
  if (camels.size < MOST_CAMELS) camels.set(name, made);
  return made;
}

/** An answer of the sidecar in this API's names. */
export function camelized(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(camelized);
  if (typeof value !== 'object' || value === null) return value;
  const renamed: Record<string, unknown> = {};
  for (const [name, inner] of Object.entries(value)) renamed[camel(name)] = camelized(inner);
  return renamed;
}

/** The dimensions of `who` as they are sent; empty ones are left out. */
export function dimensionsOf(who: Attribution): Record<string, unknown> {
  const sent: Record<string, unknown> = {};
  for (const name of DIMENSIONS) {
    const value = who[name];
    if (value !== undefined && value !== null && value !== '') sent[snake(name)] = String(value);
  }
  const tags = Object.entries(who.tags ?? {}).filter(([, value]) => value !== undefined && value !== null);
  if (tags.length > 0) sent['tags'] = Object.fromEntries(tags.map(([name, value]) => [name, String(value)]));
  return sent;
}

/**
 * JSON without halves of surrogate pairs, as texts have them that were cut: they are no text to the sidecar,
 * which would refuse a question with one, and a whole batch of events.
 */
export function encoded(value: unknown): string {
  const json = JSON.stringify(value);
  // Whole pairs are not escaped.
  return json.includes('\\ud') ? json.replace(/\\(?:\\|ud[89a-f][0-9a-f]{2})/g, (found) => (found === '\\\\' ? found : '\\ufffd')) : json;
}

/** Later ones win; tags are put together. */
export function merged(...all: (Attribution | undefined)[]): Attribution {
  const result: Attribution = {};
  for (const one of all) {
    if (one === undefined) continue;
    for (const name of DIMENSIONS) {
      const value = one[name];
      if (value !== undefined && value !== null) result[name] = value;
    }
    if (one.tags !== undefined) result.tags = { ...result.tags, ...one.tags };
  }
  return result;
}

/** A decision that no sidecar has made. */
export function withoutSidecar(state: 'unavailable' | 'disabled', decision: 'allow' | 'block', message: string): Decision {
  const warnings = message === '' ? [] : [{ type: 'unavailable', severity: 'critical' as const, message, wastedUsd: null }];
  return {
    decision,
    budgets: [],
    downgradeTo: null,
    warnings,
    retryAfterSeconds: null,
    state,
    stateAgeMs: null,
    completeTo: null,
    reservationId: null,
    reservedUsd: null,
    reserveRule: null,
    reservedUntil: null,
  };
}
