/**
 * Tools that a provider runs while it answers and bills by count, where its usage object does not count
 * them: they are listed in the answer itself. Follows crates/proxy/src/tools.rs.
 */

/** Items of OpenAI's responses, and the units that they are billed as. */
const ITEMS: Partial<Record<string, string>> = {
  web_search_call: 'web_search_calls',
  file_search_call: 'file_search_calls',
  code_interpreter_call: 'code_interpreter_calls',
};
/** Members of usage objects that count tools themselves: Anthropic's and OpenRouter's, xAI's, Perplexity's, Google's. */
const COUNTS = ['server_tool_use', 'server_side_tool_usage_details', 'num_search_queries', 'groundingToolCount', 'grounding_tool_count'];
/**
 * From this generation on Gemini's searches are billed by the query; before, once for an answer
 * (https://ai.google.dev/gemini-api/docs/google-search).
 */
const BY_QUERY = 3;

/** What was run in an answer so far, each run once, however often the answer lists it. */
export class ToolRuns {
  /** By unit: the items' places, and the containers of code interpreters. */
  private readonly items = new Map<string, Set<unknown>>();
  private readonly queries = new Set<string>();

  /** An item of the output of OpenAI's responses, done. Of a stream that is cut it is all there is. */
  takeItem(item: unknown, place: unknown): void {
    const unit = ITEMS[String(member(item, 'type'))];
    if (unit === undefined) return;
    const action = member(member(item, 'action'), 'type') || 'search';
    // To open a page that was found, or to look for a word in it, is not billed.
    if (unit === 'web_search_calls' && action !== 'search') return;
    const items = this.items.get(unit) ?? new Set();
    // A container is billed once, however often code runs in it; no other item names one.
    this.items.set(unit, items.add(member(item, 'container_id') || place));
  }

  /** A block that begins in a stream of Anthropic's, whose usage counts tools at its end only. */
  takeBlock(block: unknown, place: unknown): void {
    if (member(block, 'type') !== 'server_tool_use' || member(block, 'name') !== 'web_search') return;
    this.items.set('web_search_calls', (this.items.get('web_search_calls') ?? new Set()).add(place));
  }

  /** A candidate of Gemini's. Queries are billed that differ and are not empty. */
  takeCandidate(candidate: unknown): void {
    const queries = member(member(candidate, 'groundingMetadata'), 'webSearchQueries');
    if (!Array.isArray(queries)) return;
    for (const query of queries) if (typeof query === 'string' && query.trim() !== '') this.queries.add(query);
  }

  /** All that a whole answer lists; at the end of a stream of items, by whatever ids, it lists them again. */
  takeAnswer(answer: object): void {
    const listed = (name: string): unknown[] => {
      const found = member(answer, name);
      return Array.isArray(found) ? found : [];
    };
    const output = listed('output');
    if (output.length > 0) this.items.clear();
    output.forEach((item, place) => this.takeItem(item, place));
    for (const candidate of listed('candidates')) this.takeCandidate(candidate);
  }

  /** The units of an event; undefined where nothing was run, or `usage` counts tools itself. */
  units(model: string, usage: object | undefined): Record<string, string> | undefined {
    if (COUNTS.some((name) => (member(usage, name) ?? null) !== null)) return undefined;
    const counts = [...this.items].map(([unit, items]) => [unit, String(items.size)]);
    if (this.queries.size > 0) counts.push(['web_search_calls', String(isBilledByQuery(model) ? this.queries.size : 1)]);
    return counts.length === 0 ? undefined : (Object.fromEntries(counts) as Record<string, string>);
  }
}

/** What has no number in its name is the latest. */
function isBilledByQuery(model: string): boolean {
  const generation = /gemini-(\d+)/.exec(model)?.[1];
  return generation === undefined || Number(generation) >= BY_QUERY;
}

const member = (value: unknown, name: string): unknown =>
  typeof value === 'object' && value !== null ? (value as Record<string, unknown>)[name] : undefined;
