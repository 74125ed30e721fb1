/**
 * How calls stand, as `GET /v1/blocklist?view=standings` tells it, and the decision by it: what the
 * sidecar's guard would say of a call without an estimate. `schemas/decision-vectors.json` proves it.
 */

/** As on the wire. */
export interface Standing {
  budget: string;
  verdict: Verdict;
  when_stale: Verdict;
  downgrade_to: string | null;
  window: string;
  resets_at: string | null;
  expires_at: string | null;
  where: Record<string, string[]> | null;
  session_is_root: boolean;
}

export interface Page {
  entries: { key: string; value: Standing | null }[];
  rules?: (Standing & { scope: Record<string, string> })[];
  cursor: string;
  more: boolean;
  state: 'live' | 'stale' | 'cold';
  state_age_ms: number | null;
  complete_to: string | null;
  stale_after_ms: number;
  cold_start: 'allow' | 'block';
  time: string;
  waited_ms: number;
  workspace: string;
  imposed: Record<string, string>;
}

type Verdict = 'ok' | 'warn' | 'downgrade' | 'block';
type Rule = NonNullable<Page['rules']>[number];
/** The call's dimensions by their names on the wire; tags as `tags.team`. */
type Who = Map<string, string>;

/** From mildest to strictest. */
const VERDICTS: readonly Verdict[] = ['ok', 'warn', 'downgrade', 'block'];
/** As texts of scopes have them, behind the workspace; tags are last. */
const ORDER = 'customer feature project user agent model provider environment account plan root_session session'.split(' ');
/** What is told beyond is left out. */
export const MOST_ENTRIES = 500_000;

interface Shape {
  dimensions: string[];
  /** Whether the session of a call without a root session is its root session. */
  isRoot: boolean;
}

interface Entry {
  key: string;
  scope: string;
  told: Standing;
  expiresAt: number;
}

interface Line {
  verdict: Verdict;
  told: Standing;
  scope: string;
  isLate: boolean;
}

export class Standings {
  leftOut = 0;
  private readonly shapes = new Map<string, Shape & { places: Map<string, Map<string, Entry>> }>();
  private readonly placeOf = new Map<string, { shape: string; place: string }>();
  /** By shape and exact dimensions, then by the exact values. */
  private readonly rules = new Map<string, Shape & { exact: string[]; byExact: Map<string, Rule[]> }>();
  private page: Page | undefined;
  private time = 0;
  private heardAt = 0;

  /** An answer that was made at `heardAt` of the caller's clock, milliseconds. */
  take(page: Page, heardAt: number): void {
    for (const rule of page.rules ?? []) this.addRule(rule);
    for (const { key, value } of page.entries) this.set(key, value);
    this.page = { ...page, entries: [], rules: [] };
    this.time = Date.parse(page.time);
    this.heardAt = heardAt;
  }

  /** Milliseconds for which a follower may hear nothing, at most. */
  get longestWait(): number {
    return (this.page?.stale_after_ms ?? 10_000) / 2;
  }

  /** The answer to a check at `at` of the caller's clock, in the words of `POST /v1/check`. */
  decide(question: Record<string, unknown>, at: number): Record<string, unknown> {
    const page = this.page!;
    const since = Math.max(at - this.heardAt, 0);
    const now = this.time + since;
    const age = page.state_age_ms === null ? null : Math.floor(page.state_age_ms + since);
    const isLive = age !== null && age <= page.stale_after_ms;
    const state = page.state === 'cold' ? 'cold' : isLive ? 'live' : 'stale';
    const who = whoOf(question, page);
    const lines: Line[] = [];
    for (const { told, scope } of this.found(who, now)) {
      let { verdict } = told;
      if (verdict === 'downgrade' && told.downgrade_to === (who.get('model') ?? '')) verdict = 'warn';
      const isLate = state === 'stale' && told.when_stale === 'block' && verdict !== 'block';
      if (isLate) verdict = 'block';
      if (verdict !== 'ok') lines.push({ verdict, told, scope, isLate });
    }
    lines.sort((one, other) => strictness(other.verdict) - strictness(one.verdict) || compared(one.told.budget, other.told.budget));
    const isCold = state === 'cold' && page.cold_start === 'block';
    const verdict = isCold ? 'block' : (lines[0]?.verdict ?? 'ok');
    const blocking = lines.filter((line) => line.verdict === 'block');
    return {
      decision: verdict === 'ok' ? 'allow' : verdict,
      budgets: lines.map(({ verdict, told, scope }) => lineOf(verdict, told, scope)),
      // Of several the first by id, which stands first.
      downgrade_to: verdict === 'downgrade' ? lines[0]!.told.downgrade_to : null,
      warnings: warnings(isCold, lines),
      retry_after_seconds: isCold ? null : retryAfter(blocking, now),
      state,
      state_age_ms: age,
      complete_to: page.complete_to,
      reservation_id: null,
      reserved_usd: null,
      reserve_rule: null,
      reserved_until: null,
    };
  }

  /** What the call counts against, with its scope; what stopped its session last. */
  private found(who: Who, now: number): { told: Standing; scope: string }[] {
    const found: { told: Standing; scope: string }[] = [];
    const stopped: { told: Standing; scope: string }[] = [];
    const told = new Set<string>();
    for (const { dimensions, isRoot, places } of this.shapes.values()) {
      const values = valuesOf(who, dimensions, isRoot);
      if (values === undefined) continue;
      for (const entry of places.get(JSON.stringify(values))?.values() ?? []) {
        if (entry.expiresAt <= now) continue;
        if (entry.key.startsWith('finding|')) {
          stopped.push(entry);
          continue;
        }
        told.add(entry.told.budget);
        if (holds(entry.told, who, isRoot)) found.push(entry);
      }
    }
    for (const { dimensions, isRoot, exact, byExact } of this.rules.values()) {
      const values = valuesOf(who, dimensions, isRoot);
      if (values === undefined) continue;
      const ofExact = exact.map((dimension) => valueOf(who, dimension, isRoot));
      for (const rule of byExact.get(JSON.stringify(ofExact)) ?? []) {
        if (told.has(rule.budget) || !holds(rule, who, isRoot)) continue;
        const { window } = rule;
        const isOfSession = window === 'session' || window === 'root_session';
        const own = isOfSession ? { ...rule, window: `${window}:${valueOf(who, window, isRoot)}` } : rule;
        found.push({ told: own, scope: scopeText(new Map(dimensions.map((dimension, at) => [dimension, values[at]!]))) });
      }
    }
    return [...found, ...stopped];
  }

  private set(key: string, told: Standing | null): void {
    const before = this.placeOf.get(key);
    if (before !== undefined) {
      const shape = this.shapes.get(before.shape)!;
      const place = shape.places.get(before.place)!;
      place.delete(key);
      if (place.size === 0) shape.places.delete(before.place);
      if (shape.places.size === 0) this.shapes.delete(before.shape);
      this.placeOf.delete(key);
    }
    if (told === null) return;
    if (this.placeOf.size >= MOST_ENTRIES) {
      this.leftOut += 1;
      return;
    }
    const scope = key.slice(key.lastIndexOf('|') + 1);
    const parts = partsOf(scope);
    const isRoot = told.session_is_root;
    const dimensions = parts.map(([dimension]) => dimension);
    const shape = JSON.stringify([dimensions, isRoot]);
    const place = JSON.stringify(parts.map(([, value]) => value));
    const { places } = at(this.shapes, shape, () => ({ dimensions, isRoot, places: new Map() }));
    const expiresAt = told.expires_at === null ? Infinity : Date.parse(told.expires_at);
    at(places, place, () => new Map()).set(key, { key, scope, told, expiresAt });
    this.placeOf.set(key, { shape, place });
  }

  private addRule(rule: Rule): void {
    const isRoot = rule.session_is_root;
    const dimensions = Object.keys(rule.scope);
    const exact = dimensions.filter((dimension) => rule.scope[dimension] !== '*');
    const shape = JSON.stringify([dimensions, exact, isRoot]);
    const { byExact } = at(this.rules, shape, () => ({ dimensions, isRoot, exact, byExact: new Map() }));
    at(byExact, JSON.stringify(exact.map((dimension) => rule.scope[dimension])), () => []).push(rule);
  }
}

/** What a map has at a key, made where it has nothing. */
function at<K, V>(map: Map<K, V>, key: K, make: () => V): V {
  let value = map.get(key);
  if (value === undefined) map.set(key, (value = make()));
  return value;
}

const strictness = (verdict: Verdict): number => VERDICTS.indexOf(verdict);
const compared = (one: string, other: string): number => (one < other ? -1 : one > other ? 1 : 0);

function whoOf(question: Record<string, unknown>, page: Page): Who {
  const who: Who = new Map();
  for (const name of ['workspace', ...ORDER]) if (question[name] !== undefined && question[name] !== null) who.set(name, String(question[name]));
  const tags = Object.entries((question['tags'] as Record<string, string> | undefined) ?? {});
  for (const [tag, value] of tags) who.set(`tags.${tag}`, value);
  if (!who.get('workspace')) who.set('workspace', page.workspace);
  for (const [name, value] of Object.entries(page.imposed)) who.set(name, value);
  return who;
}

function valueOf(who: Who, dimension: string, isRoot: boolean): string {
  const value = who.get(dimension) ?? '';
  return isRoot && value === '' && dimension === 'root_session' ? (who.get('session') ?? '') : value;
}

/** Undefined where the call lacks one. */
function valuesOf(who: Who, dimensions: string[], isRoot: boolean): string[] | undefined {
  const values = dimensions.map((dimension) => valueOf(who, dimension, isRoot));
  return values.includes('') ? undefined : values;
}

const holds = (told: Standing, who: Who, isRoot: boolean): boolean =>
  Object.entries(told.where ?? {}).every(([dimension, allowed]) => allowed.includes(valueOf(who, dimension, isRoot)));

/** `acme/customer=c-42` by dimensions; `*` for all workspaces names none. */
function partsOf(scope: string): [string, string][] {
  const [workspace, ...rest] = scope.split('/');
  const parts: [string, string][] = workspace === '*' ? [] : [['workspace', decodeURIComponent(workspace!)]];
  for (const piece of rest) {
    const equals = piece.indexOf('=');
    parts.push([decodeURIComponent(piece.slice(0, equals)), decodeURIComponent(piece.slice(equals + 1))]);
  }
  return parts;
}

function scopeText(parts: Map<string, string>): string {
  const tags = [...parts.keys()].filter((name) => name.startsWith('tags.')).sort();
  const workspace = parts.get('workspace');
  const pieces = [...ORDER, ...tags].filter((name) => parts.has(name)).map((name) => `${escaped(name)}=${escaped(parts.get(name)!)}`);
  return [workspace === undefined ? '*' : escaped(workspace), ...pieces].join('/');
}

const LONE_SURROGATES = /[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;

function escaped(text: string): string {
  const whole = encodeURIComponent(text.replace(LONE_SURROGATES, '\ufffd'));
  return whole.replace(/[!'()*]/g, (sign) => `%${sign.charCodeAt(0).toString(16).toUpperCase()}`);
}

function retryAfter(blocking: Line[], now: number): number | null {
  const resets = blocking.map(({ told }) => (told.resets_at === null ? NaN : Date.parse(told.resets_at)));
  const last = Math.max(...resets);
  return resets.length === 0 || Number.isNaN(last) ? null : Math.ceil(Math.max(last - now, 0) / 1000);
}

function lineOf(verdict: Verdict, told: Standing, scope: string): Record<string, unknown> {
  const { when_stale: _, downgrade_to: __, expires_at: ___, where: ____, session_is_root: _____, ...shown } = told;
  return { spent_usd: null, limit_usd: null, percent: null, ...shown, scope, verdict };
}

function warnings(isCold: boolean, lines: Line[]): Record<string, unknown>[] {
  const late = lines.filter((line) => line.isLate).map(({ told }) => told.budget);
  const stale = late.map((budget) => ({ type: 'stale', message: `budget ${budget} refuses calls because what is known of it is old`, budget }));
  const cold = isCold ? [{ type: 'cold', message: 'the sidecar has not caught up yet, and refuses calls until it has (cold_start)' }] : [];
  return [...cold, ...stale].map((warning) => ({ ...warning, severity: 'critical', wasted_usd: null }));
}
