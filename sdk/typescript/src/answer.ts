/** What an answer says about its cost, whole or streamed. Follows crates/proxy/src/answer.rs. */

import type { Route } from './route.js';
import { bytesOf } from './sse.js';
import { ToolRuns } from './tools.js';
import type { UsageFormat } from './types.js';

type Json = Record<string, unknown>;

/** Items of OpenAI's responses that the app runs; what the provider runs is in `tools`. */
const FOR_THE_APP: ReadonlySet<unknown> = new Set(['apply_patch_call', 'computer_call', 'custom_tool_call', 'function_call', 'local_shell_call', 'shell_call']);

/**
 * A piece of a stream that adds text without an escape to the answer, and nothing else, by how it is to be read:
 * what is counted of it stands in the groups.
 */
const TEXT: Partial<Record<Route['shape'], RegExp>> = {
  completions: /"delta": ?\{"content": ?"([^"\\]*)"()\}/,
  responses: /"delta": ?"([^"\\]*)"()/,
  messages: /"delta": ?\{"type": ?"(\w+_delta)", ?"\w+": ?"([^"\\]*)" ?\}/,
};
/** What else a piece may have that matters. In a text these words are followed by an escaped quote. */
const MORE: Partial<Record<Route['shape'], RegExp>> = {
  completions: /"delta"|_call|"message"|"text"|usage":(?! ?null)/,
  responses: /"response"|"item"|"output"|"status"|"background"|"created_at"|usage":(?! ?null)/,
  messages: /"message"|"content"|"content_block"|usage":(?! ?null)/,
};

export class Seen {
  id = '';
  model = '';
  serviceTier = '';
  /** The provider's own object; undefined where none has come. */
  usage: Json | undefined;
  /** How it is to be read, where that is not the route's: models behind Bedrock have their own. */
  format: UsageFormat | undefined;
  /** Bytes of generated text, for an estimate where no usage comes. */
  generated = 0;
  /** Whether `usage` is what the whole answer has used, and not only what it began with. */
  isFinal = false;
  /** Whether the answer was not made yet when it was last heard of. Where it is made in the background, it will be asked for. */
  isPending = false;
  wasBackground = false;
  /** Seconds since 1970. */
  createdAt: number | undefined;
  /** What is billed by count and stands in no usage object. */
  readonly tools = new ToolRuns();
  /** Tools that the app is asked to run, each once. */
  private readonly asked = new Set<unknown>();
  /** Whether the last call of Gemini's goes on in the next part. */
  private goesOn = false;
  /** Of the last piece that had nothing but text. */
  private aroundText = '';

  /** How many tools the app is asked to run. */
  get toolCalls(): number {
    return this.asked.size;
  }

  /**
   * Counts a piece of a stream that has nothing but text, as most have, without reading it; whether it was one. A
   * stream of a thousand pieces would take milliseconds from the app otherwise.
   */
  takeText(route: Route, piece: string): boolean {
    if (this.id === '' || this.model === '') return false;
    const found = TEXT[route.shape]?.exec(piece);
    if (found === undefined || found === null) return false;
    // Most are all the same around their text.
    const around = piece.slice(0, found.index) + piece.slice(found.index + found[0].length);
    if (around !== this.aroundText) {
      if (MORE[route.shape]!.test(around)) return false;
      this.aroundText = around;
    }
    this.generated += bytesOf(found[1]!) + bytesOf(found[2]!);
    return true;
  }

  /** Takes a whole answer or one piece of a stream; whether it has nothing but usage. */
  take(route: Route, json: unknown): boolean {
    const told = objectOf(json);
    if (told === undefined) return false;
    switch (route.shape) {
      case 'completions':
      case 'embeddings':
        return this.takeCompletion(told);
      case 'responses':
        this.takeResponse(told);
        return false;
      case 'messages':
        this.takeMessage(told);
        return false;
      case 'generate':
        this.takeGenerated(told);
        return false;
      case 'interactions':
        this.takeInteraction(told);
        return false;
      case 'converse':
        this.takeConversed(told);
        return false;
      case 'invoke':
        this.takeInvoked(told, route.model);
        return false;
    }
  }

  /** Of several usages the last one counts: where every chunk has one, they are running totals. */
  private takeCompletion(told: Json): boolean {
    this.name(told['id'], told['model'], told['service_tier']);
    const choices = told['choices'];
    if (Array.isArray(choices)) {
      for (const [place, choice] of (choices as Json[]).entries()) {
        this.generated += textBytes(choice?.['delta']) + textBytes(choice?.['message']) + textBytes(choice?.['text']);
        for (const part of [choice?.['delta'], choice?.['message']]) this.takeCalls(choice?.['index'] ?? place, objectOf(part));
      }
    }
    const usage = objectOf(told['usage']);
    if (usage === undefined) return false;
    this.usage = usage;
    this.isFinal = true;
    return Array.isArray(choices) && choices.length === 0;
  }

  private takeCalls(choice: unknown, message: Json | undefined): void {
    listOf(message?.['tool_calls']).forEach((call, place) => this.asked.add(`${choice} ${call['index'] ?? place}`));
    // OpenAI's older form has one.
    if (objectOf(message?.['function_call']) !== undefined) this.asked.add(`${choice} function_call`);
  }

  private takeResponse(told: Json): void {
    this.generated += textBytes(told['delta']);
    const response = objectOf(told['response']) ?? told;
    const status = response['status'];
    // Most events of a stream have none.
    if (typeof status === 'string') this.isPending = status === 'queued' || status === 'in_progress';
    this.wasBackground ||= response['background'] === true;
    if (typeof response['created_at'] === 'number') this.createdAt = response['created_at'];
    if (told['type'] === 'response.output_item.done') {
      this.tools.takeItem(told['item'], told['output_index']);
      this.takeItem(told['item'], told['output_index'] ?? this.asked.size);
    }
    this.tools.takeAnswer(response);
    const output = response['output'];
    if (Array.isArray(output) && output.length > 0) {
      // It lists again what came before.
      this.asked.clear();
      output.forEach((item, place) => this.takeItem(item, place));
    }
    this.takeCompletion(response);
  }

  private takeItem(item: unknown, place: unknown): void {
    const told = objectOf(item);
    // A container is the provider's.
    const isProviders = objectOf(told?.['environment'])?.['type'] === 'container_reference';
    if (FOR_THE_APP.has(told?.['type']) && !isProviders) this.asked.add(place);
  }

  /** Anthropic's counts are totals so far: what a later event names stands, nothing is added. */
  private takeMessage(told: Json): void {
    this.generated += textBytes(told['delta']) + textBytes(told['content']);
    this.tools.takeBlock(told['content_block'], told['index']);
    listOf(told['content'] ?? [told['content_block']]).forEach((block, place) => {
      if (block['type'] === 'tool_use') this.asked.add(told['index'] ?? place);
    });
    // The beginning of a stream has its usage in `message`, its end and a whole answer beside.
    this.isFinal ||= objectOf(told['usage']) !== undefined;
    for (const part of [objectOf(told['message']), told]) {
      if (part === undefined) continue;
      this.name(part['id'], part['model'], part['service_tier']);
      this.overwrite(part['usage']);
    }
  }

  private takeGenerated(told: Json): void {
    this.name(told['responseId'], told['modelVersion'], undefined);
    this.tools.takeAnswer(told);
    if (Array.isArray(told['candidates'])) {
      for (const candidate of told['candidates'] as Json[]) {
        this.generated += textBytes(candidate?.['content']);
        for (const part of listOf(objectOf(candidate?.['content'])?.['parts'])) {
          const call = objectOf(part['functionCall']);
          if (call === undefined) continue;
          if (!this.goesOn) this.asked.add(this.asked.size);
          // A call whose arguments are streamed is cut into several.
          this.goesOn = call['willContinue'] === true;
        }
      }
    }
    this.isFinal ||= objectOf(told['usageMetadata']) !== undefined;
    this.overwrite(told['usageMetadata']);
  }

  private takeInteraction(told: Json): void {
    this.generated += textBytes(told['delta']) + textBytes(told['outputs']);
    const interaction = objectOf(told['interaction']) ?? told;
    this.name(interaction['id'], interaction['model'], interaction['service_tier']);
    this.isPending = interaction['status'] === 'in_progress' && objectOf(interaction['usage']) === undefined;
    this.isFinal ||= objectOf(interaction['usage']) !== undefined;
    this.overwrite(interaction['usage']);
  }

  /** Bedrock's own answer, or an event of its stream. */
  private takeConversed(told: Json): void {
    const blocks = listOf(objectOf(objectOf(told['output'])?.['message'])?.['content']);
    const begun = objectOf(told['start']);
    (begun === undefined ? blocks : [begun]).forEach((block, place) => {
      const call = objectOf(block['toolUse']);
      if (call !== undefined && call['type'] !== 'server_tool_use') this.asked.add(told['contentBlockIndex'] ?? place);
    });
    this.generated += textBytes(told['delta']) + textBytes(blocks);
    this.name(undefined, undefined, objectOf(told['serviceTier'])?.['type']);
    const usage = objectOf(told['usage']);
    this.usage = usage ?? this.usage;
    this.isFinal ||= usage !== undefined;
  }

  /** The answer of a model behind Bedrock, in its own words. Anthropic's says more about caches than what Bedrock adds at the end. */
  private takeInvoked(told: Json, model: string): void {
    const { 'amazon-bedrock-invocationMetrics': metrics, ...own } = told;
    if (/^(message|content_block)/.test(String(own['type']))) {
      this.format = 'anthropic.messages';
      this.takeMessage(own);
      // Bedrock names its answers itself, and prices go by its names of models.
      this.id = '';
      if (!model.startsWith('arn:')) this.model = '';
    } else this.generated += textBytes(own);
    if (objectOf(metrics) === undefined) return;
    this.isFinal = true;
    if (this.format === undefined) this.usage = objectOf(metrics);
  }

  private overwrite(usage: unknown): void {
    const told = objectOf(usage);
    if (told === undefined) return;
    this.usage ??= {};
    for (const [name, value] of Object.entries(told)) if (value !== null && value !== undefined) this.usage[name] = value;
  }

  private name(id: unknown, model: unknown, serviceTier: unknown): void {
    if (typeof id === 'string' && id !== '') this.id = id;
    if (typeof model === 'string' && model !== '') this.model = model;
    if (typeof serviceTier === 'string' && serviceTier !== '') this.serviceTier = serviceTier;
  }
}

const objectOf = (value: unknown): Json | undefined =>
  typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Json) : undefined;

/** The objects of a list; none where it is no list. */
const listOf = (value: unknown): Json[] => (Array.isArray(value) ? value.filter((inner): inner is Json => objectOf(inner) !== undefined) : []);

/** Bytes of all texts in `value`, at any depth. */
function textBytes(value: unknown): number {
  if (typeof value === 'string') return bytesOf(value);
  if (Array.isArray(value)) return value.reduce<number>((sum, inner) => sum + textBytes(inner), 0);
  if (typeof value !== 'object' || value === null) return 0;
  let sum = 0;
  for (const inner of Object.values(value)) sum += textBytes(inner);
  return sum;
}
