/** Questions to the sidecar. */

import { platform } from '#platform';
import { Breaker } from './breaker.js';
import type { Config } from './config.js';
import { SpendfuseError } from './errors.js';
import { amountOf } from './money.js';
import type { Answer } from './platform/types.js';
import { parsed } from './sse.js';
import type { Attribution, Decision, OnUnavailable, Question, State } from './types.js';
import { Watch } from './watch.js';
import { camelized, dimensionsOf, encoded, merged, withoutSidecar } from './wire.js';

/** For figures. */
const STATE_MS = 500;
/** Nobody waits for a release. */
const RELEASE_MS = 2_000;
/** Between attempts to learn whether events may say what a session may spend. */
const TRY_AGAIN_MS = 10_000;

export class Sidecar {
  unavailable = 0;
  private breaker = new Breaker();
  /** Whether checks take `session_limit_usd`; undefined until one was tried. */
  private takesSessionLimit: boolean | undefined;
  private triesSessionLimitAt = 0;
  watch: Watch;

  constructor(readonly config: Config) {
    this.watch = new Watch(config);
  }

  /** The settings are others: nothing holds that one sidecar has said, or has not, of another one. */
  reconfigured(): void {
    this.watch.stop();
    this.watch = new Watch(this.config);
    this.breaker = new Breaker();
    this.takesSessionLimit = undefined;
    this.triesSessionLimitAt = 0;
  }

  /**
   * @throws {SpendfuseError} where the question is refused; an unreachable sidecar is a decision.
   */
  async check(question: Question, onUnavailable: OnUnavailable): Promise<Decision> {
    if (this.config.disabled) return withoutSidecar('disabled', 'allow', '');
    const asked = bodyOf(question, this.config.defaults);
    if (this.config.mode === 'watch') {
      if ('session_limit_usd' in asked) void this.trySessionLimit(asked);
      const answer = await this.watch.check(asked);
      return answer === undefined ? this.withoutAnswer('nothing is known of the blocklist', onUnavailable) : (camelized(answer) as Decision);
    }
    if (this.takesSessionLimit === false) delete asked['session_limit_usd'];
    const answerMs = question.reserve === true ? Math.max(this.config.reserveTimeoutMs, this.config.timeoutMs) : this.config.timeoutMs;
    let answer = await this.ask('POST', '/v1/check', encoded(asked), answerMs);
    if (answer instanceof Error) return this.withoutAnswer(answer, onUnavailable);
    if ('session_limit_usd' in asked && this.refusesSessionLimit(answer)) return this.check(question, onUnavailable);
    if (answer.status === 503 && asked['reserve'] === true) {
      // Nothing more can be held; what is spent still counts.
      answer = await this.ask('POST', '/v1/check', encoded({ ...asked, reserve: false }), answerMs);
      if (answer instanceof Error) return this.withoutAnswer(answer, onUnavailable);
    }
    if (answer.status === 200) {
      const decision = decisionIn(answer.text);
      return decision ?? this.withoutAnswer(new Error('its answer to a check cannot be read'), onUnavailable);
    }
    if (answer.status >= 500) return this.withoutAnswer(new Error(saidBy(answer)), onUnavailable);
    throw new SpendfuseError(`the sidecar refuses the question: ${saidBy(answer)}`);
  }

  /** Nobody waits for it: whether events may say what a session may spend is asked once. */
  private async trySessionLimit(asked: Record<string, unknown>): Promise<void> {
    const now = performance.now();
    if (this.takesSessionLimit !== undefined || now < this.triesSessionLimitAt) return;
    this.triesSessionLimitAt = now + TRY_AGAIN_MS;
    const body = encoded({ ...asked, reserve: false });
    const { target, headers } = this.config;
    try {
      const answer = await platform.ask(target, { method: 'POST', path: '/v1/check', headers, body, connectMs: RELEASE_MS, answerMs: RELEASE_MS, isBackground: true });
      this.refusesSessionLimit(answer);
    } catch {
      // A later call tries again.
    }
  }

  /** Keeps what `answer` says of a limit that was asked with. Other statuses are of another trouble, and say nothing. */
  private refusesSessionLimit({ status, text }: Answer): boolean {
    const isNamed = text.includes('session_limit_usd');
    // An older sidecar warns that it does not know the field, and names it.
    if (status === 200) this.takesSessionLimit = !(isNamed && text.includes('unknown_field'));
    if (status !== 400 || !isNamed) return false;
    this.takesSessionLimit = false;
    return true;
  }

  /** Whether it did not answer several times in a row, just now. */
  get isAway(): boolean {
    return this.breaker.isOpen();
  }

  /** Whether events may carry `session_limit_usd`. */
  get knowsSessionLimits(): boolean {
    return this.takesSessionLimit === true;
  }

  /** As `check`, for calls that are already under way: a question that is refused is an outage, too. */
  async permit(question: Question, onUnavailable: OnUnavailable): Promise<Decision> {
    try {
      return await this.check(question, onUnavailable);
    } catch (error) {
      return this.withoutAnswer(error, onUnavailable);
    }
  }

  /** @throws {SpendfuseError} where it does not answer. */
  async state(who: Attribution): Promise<State> {
    const query = new URLSearchParams();
    const { tags, ...dimensions } = dimensionsOf(merged(this.config.defaults, who));
    for (const [name, value] of Object.entries(dimensions)) query.set(name, String(value));
    for (const [name, value] of Object.entries((tags as Record<string, string> | undefined) ?? {})) query.set(`tags.${name}`, value);
    const answer = await this.ask('GET', `/v1/state?${query}`, undefined, Math.max(STATE_MS, this.config.timeoutMs));
    if (answer instanceof Error) throw new SpendfuseError(`the sidecar does not answer: ${answer.message}`, undefined, { cause: answer });
    if (answer.status !== 200) throw new SpendfuseError(`the sidecar refuses the question: ${saidBy(answer)}`);
    const state = camelized(JSON.parse(answer.text)) as State & { findings?: { detector: string; severity: string; message: string; wastedUsd?: string }[] };
    const findings = (state.findings ?? []).map(({ detector, severity, message, wastedUsd }) => ({
      type: detector,
      severity: severity as 'warning',
      message,
      wastedUsd: wastedUsd ?? null,
    }));
    const { decision, budgets, warnings, completeTo } = state;
    return { decision, budgets, warnings: [...findings, ...warnings], completeTo, state: state.state };
  }

  /** Gives back what was held for a call that was not made. Nobody waits for it. */
  release(reservation: string): void {
    if (this.config.disabled) return;
    const { target, headers } = this.config;
    const asked = { method: 'DELETE' as const, path: `/v1/reservations/${encodeURIComponent(reservation)}`, headers, connectMs: RELEASE_MS, answerMs: RELEASE_MS };
    // Where that fails, the hold ends by its time.
    platform.ask(target, asked).catch(() => {});
  }

  private async ask(method: 'GET' | 'POST', path: string, body: string | undefined, answerMs: number): Promise<Answer | Error> {
    if (!this.breaker.permits()) return new Error('it did not answer a moment ago');
    const { target, headers, timeoutMs } = this.config;
    try {
      const isVain = (): boolean => this.breaker.isOpen();
      const answer = await platform.ask(target, { method, path, headers, connectMs: timeoutMs, answerMs, isVain, ...(body === undefined ? {} : { body }) });
      this.breaker.succeeded();
      return answer;
    } catch (error) {
      this.breaker.failed();
      return error instanceof Error ? error : new Error(String(error));
    }
  }

  private withoutAnswer(error: unknown, onUnavailable: OnUnavailable): Decision {
    this.unavailable += 1;
    const why = error instanceof Error ? error.message : String(error);
    const { base, socketPath } = this.config.target;
    const then = onUnavailable === 'block' ? 'calls are refused' : 'calls go ahead';
    this.config.log(`no answer from the sidecar, ${then}: ${socketPath ?? base}: ${why}`);
    return withoutSidecar('unavailable', onUnavailable, `the sidecar could not be asked: ${why}`);
  }
}

const amountIn = (amount: string | undefined): string | undefined => (amount === undefined ? undefined : amountOf(amount));

function bodyOf(question: Question, defaults: Attribution): Record<string, unknown> {
  const { model, provider, estimatedCostUsd, estimate, reserve, callTimeoutS, sessionLimitUsd } = question;
  const asked: Record<string, unknown> = dimensionsOf(merged(defaults, question));
  const optional = { model, provider, estimated_cost_usd: amountIn(estimatedCostUsd), reserve, call_timeout_s: callTimeoutS, session_limit_usd: amountIn(sessionLimitUsd) };
  for (const [name, value] of Object.entries(optional)) if (value !== undefined && value !== '') asked[name] = value;
  if (estimate !== undefined) {
    const { model, provider, inputTokens, maxOutputTokens } = estimate;
    const told = { model, provider, input_tokens: inputTokens, max_output_tokens: maxOutputTokens };
    asked['estimate'] = Object.fromEntries(Object.entries(told).filter(([, value]) => value !== undefined && value !== ''));
  }
  return asked;
}

/** Undefined where it is none. */
function decisionIn(text: string): Decision | undefined {
  const told = camelized(parsed(text)) as Partial<Decision> | undefined;
  const { decision, budgets, warnings, reservationId } = told ?? {};
  if (decision === undefined || !VERDICTS.has(decision)) return undefined;
  const areLines = [budgets ?? [], warnings ?? []].every((list) => Array.isArray(list) && list.every((line) => typeof line === 'object' && line !== null));
  const isHold = (reservationId ?? null) === null || typeof reservationId === 'string';
  if (!areLines || !isHold) return undefined;
  const nothing = withoutSidecar('unavailable', 'allow', '');
  return { ...nothing, state: 'live', ...told, budgets: (budgets ?? []).map((line) => ({ ...BARE_LINE, ...line })), warnings: warnings ?? [], reservationId: reservationId ?? null } as Decision;
}

/** What a line does not say. */
const BARE_LINE = { spentUsd: null, limitUsd: null, percent: null, resetsAt: null, message: null, helpUrl: null };
const VERDICTS: ReadonlySet<unknown> = new Set(['allow', 'warn', 'downgrade', 'block']);

/** What an error answer says, in one line. */
function saidBy(answer: Answer): string {
  try {
    const said = (JSON.parse(answer.text) as { error?: { message?: string } }).error?.message;
    if (said !== undefined) return `${answer.status}, ${said}`;
  } catch {
    // Not the sidecar's own words.
  }
  return `status ${answer.status}`;
}
