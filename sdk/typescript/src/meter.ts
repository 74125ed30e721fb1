/** What one call has cost: seen in its answer, told as one event. */

import { Seen } from './answer.js';
import type { Scope } from './context.js';
import type { Core, Open } from './core.js';
import { tokensIn } from './pictures.js';
import { providerOf, type Route, sourceOf } from './route.js';
import type { Attribution, TrackedEvent, Usage } from './types.js';

export interface Metered {
  core: Core;
  scope: Scope;
  who: Attribution;
  route: Route;
  url: URL;
  /** As the app says it. */
  provider: string | undefined;
  /** After a downgrade the one that is asked instead. */
  askedModel: string;
  askedTier: string | undefined;
  /** Of the request, before anybody has counted them. */
  requestTokens: number;
  reservation: string | undefined;
  isDowngraded: boolean;
  promptFingerprint: string | undefined;
  /** Where it is called, for providers whose prices differ. */
  region?: string;
}

export class Meter implements Open {
  readonly seen = new Seen();
  /** Of a header, where the answer names none. */
  requestId = '';
  private readonly callId = crypto.randomUUID();
  private readonly began = performance.now();
  private isSettled = false;

  constructor(private readonly of: Metered) {
    of.core.opened(this);
  }

  /** The call was not made, its provider does not charge for it, or somebody else tells of it. */
  forget(): void {
    if (!this.end()) return;
    if (this.of.reservation !== undefined) this.of.core.sidecar.release(this.of.reservation);
  }

  cut(): void {
    this.settle();
  }

  /** The answer is at its end, as far as anybody will read it. */
  settle(): void {
    const { core, route, scope } = this.of;
    const { isPending, wasBackground, isFinal } = this.seen;
    // What is made in the background is counted when somebody asks for it.
    if ((isPending && wasBackground) || (route.retrieves && !(wasBackground && isFinal))) return this.forget();
    if (!this.end()) return;
    core.remember(this.seen.id);
    core.remember(this.requestId);
    try {
      const created = route.retrieves ? this.seen.createdAt : undefined;
      const time = (created === undefined ? new Date() : new Date(created * 1_000)).toISOString();
      core.tell(this.event(), this.of.who, time, scope);
    } catch (error) {
      core.config.log(`a call is not counted: ${error instanceof Error ? error.message : String(error)}`);
    }
  }

  private end(): boolean {
    if (this.isSettled) return false;
    this.isSettled = true;
    return this.of.core.open.delete(this);
  }

  private event(): TrackedEvent {
    const { route, askedModel, askedTier, reservation } = this.of;
    const { seen } = this;
    const event: TrackedEvent = {
      ...this.identity(),
      model: seen.model || askedModel,
      requestModel: askedModel,
      operation: route.operation,
      status: 'ok',
      ...this.usage(),
    };
    if (!route.retrieves) event.latencyMs = Math.round(performance.now() - this.began);
    const tier = seen.serviceTier || askedTier;
    if (tier !== undefined && tier !== 'auto') event.serviceTier = tier;
    if (this.of.region !== undefined) event.region = this.of.region;
    if (reservation !== undefined) event.reservationId = reservation;
    if (seen.toolCalls > 0) event.toolCalls = seen.toolCalls;
    if (this.of.promptFingerprint !== undefined) event.promptFingerprint = this.of.promptFingerprint;
    if (this.of.isDowngraded) event.flags = ['downgraded'];
    // What an estimate stands in for counts no tools.
    const units = seen.tools.units(seen.model || askedModel, seen.isFinal ? seen.usage : undefined);
    if (units !== undefined) event.units = units;
    return event;
  }

  /** By the provider's own id a call counts once, whoever else tells of it. */
  private identity(): TrackedEvent {
    const { url, provider: told, route } = this.of;
    const provider = told ?? providerOf(url) ?? OWN_SHAPES[route.shape];
    const id = this.seen.id || this.requestId;
    // Servers of one's own and gateways may count their answers from one: Ollama counts to 999.
    const isKnown = url.protocol === 'https:' && (told !== undefined || providerOf(url) !== undefined);
    // Whoever asks for it again is told the same.
    const callId = route.retrieves ? 'background' : this.callId;
    if (provider !== undefined && isKnown) return { provider, source: sourceOf(provider), id: id || callId };
    const named = provider === undefined ? {} : { provider };
    return { ...named, source: `spendfuse-sdk:${provider ?? route.shape}`, id: `${callId}-${id}` };
  }

  /** The provider's counts; where the answer was cut before they came, an estimate by what was seen. */
  private usage(): { usage: Usage; usageFormat: NonNullable<TrackedEvent['usageFormat']> } {
    const { usage, isFinal, generated } = this.seen;
    if (usage !== undefined && isFinal) return { usage, usageFormat: this.seen.format ?? this.of.route.format };
    const count = (name: string): number => (typeof usage?.[name] === 'number' ? usage[name] : 0);
    const output_tokens = Math.max(count('output_tokens'), this.of.route.operation === 'embeddings' ? 0 : tokensIn(generated));
    if (typeof usage?.['input_tokens'] !== 'number') {
      return { usage: { input_tokens: this.of.requestTokens, output_tokens }, usageFormat: 'estimated' };
    }
    // What Anthropic tells at the beginning of a stream: the input, which is exact.
    const read = count('cache_read_input_tokens');
    const written = count('cache_creation_input_tokens');
    const split = usage['cache_creation'] as Record<string, unknown> | undefined;
    const hour = typeof split?.['ephemeral_1h_input_tokens'] === 'number' ? split['ephemeral_1h_input_tokens'] : 0;
    const input = { input_tokens: count('input_tokens') + read + written, cache_read_tokens: read, cache_write_tokens: written, cache_write_1h_tokens: hour };
    return { usage: { ...input, output_tokens }, usageFormat: 'estimated' };
  }
}

/** Languages that only their makers and resellers speak; everybody speaks OpenAI's. */
const OWN_SHAPES: Partial<Record<Route['shape'], string>> = { messages: 'anthropic', generate: 'gemini', interactions: 'gemini', converse: 'bedrock', invoke: 'bedrock' };
