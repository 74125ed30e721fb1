/** The words of the API. Money is a decimal string of US dollars, never a number. */

/** Whom a call counts against. Budgets are over any combination of these. */
export interface Attribution {
  workspace?: string;
  customer?: string;
  feature?: string;
  project?: string;
  user?: string;
  agent?: string;
  plan?: string;
  environment?: string;
  /** The account at the provider that pays. */
  account?: string;
  /** One run or conversation. */
  session?: string;
  /** The session that started this one; never changes for a session. */
  rootSession?: string;
  /** At most 16 are kept. */
  tags?: Record<string, string>;
}

/** What a call is about to cost, where its price is not known. */
export interface Estimate {
  model: string;
  provider?: string;
  inputTokens?: number;
  maxOutputTokens?: number;
}

/** A question before a call. */
export interface Question extends Attribution {
  model?: string;
  provider?: string;
  /** Decimal US dollars, such as `"0.02"`. Instead of `estimate`. */
  estimatedCostUsd?: string;
  estimate?: Estimate;
  /** Hold the estimate until the call's usage is told. */
  reserve?: boolean;
  /** Seconds until the hold ends by itself; 600 where absent. */
  callTimeoutS?: number;
  /** What this session may spend, for budgets with `limit_from: event`. */
  sessionLimitUsd?: string;
}

export type Verdict = 'allow' | 'warn' | 'downgrade' | 'block';

/** How a call stands to one budget. For budgets in tokens or calls the dollars are null. */
export interface BudgetLine {
  budget: string;
  /** Such as `acme/customer=c-42`. */
  scope: string;
  verdict: 'ok' | 'warn' | 'downgrade' | 'block';
  spentUsd: string | null;
  limitUsd: string | null;
  pendingUsd?: string;
  reservedUsd?: string;
  remainingUsd?: string;
  spentTokens?: number;
  limitTokens?: number;
  pendingTokens?: number;
  reservedTokens?: number;
  remainingTokens?: number;
  spentCalls?: number;
  limitCalls?: number;
  pendingCalls?: number;
  reservedCalls?: number;
  remainingCalls?: number;
  percent: number | null;
  /** Kind and start, such as `day:2026-11-22`. */
  window: string;
  resetsAt: string | null;
  message: string | null;
  helpUrl: string | null;
}

/** Something a person should know: a session that runs away, a question that lacks something. */
export interface Warning {
  /** `retry_loop`, `context_bloat`, `token_acceleration`, `tool_amplification`, `budget_exceeded`, … */
  type: string;
  severity: 'info' | 'warning' | 'critical';
  message: string;
  wastedUsd: string | null;
  budget?: string;
}

/** The answer to a question: the strictest of all budgets that apply. */
export interface Decision {
  decision: Verdict;
  budgets: BudgetLine[];
  /** The model to use instead, where `decision` is `downgrade`. */
  downgradeTo: string | null;
  warnings: Warning[];
  /** Until every blocking budget has reset; null where one never does. */
  retryAfterSeconds: number | null;
  /** `unavailable`: the sidecar could not be asked. */
  state: 'live' | 'stale' | 'cold' | 'unavailable' | 'disabled';
  stateAgeMs: number | null;
  /** Everything that was accepted before this time is counted. */
  completeTo: string | null;
  reservationId: string | null;
  reservedUsd: string | null;
  reserveRule: string | null;
  reservedUntil: string | null;
}

/** Token counts in the provider's own words, or in spendfuse's. */
export type Usage = object;

/** A call that has been made, or what a customer has paid. */
export interface TrackedEvent extends Attribution {
  /** Names the billed response; best the provider's response id. Sent again it counts once. */
  id?: string;
  /** Who tells of it: a part of the identity. */
  source?: string;
  time?: Date | string;
  provider?: string;
  model?: string;
  requestModel?: string;
  operation?: string;
  serviceTier?: string;
  usage?: Usage;
  /** How to read `usage`; found by its names where it is the provider's own object. */
  usageFormat?: UsageFormat;
  /** What is billed by count: `{ images: "1" }`. */
  units?: Record<string, string | number>;
  toolCalls?: number;
  callId?: string;
  attempt?: number;
  status?: string;
  latencyMs?: number;
  region?: string;
  reportedCostUsd?: string;
  reservationId?: string;
  traceId?: string;
  spanId?: string;
  parentSpanId?: string;
  promptFingerprint?: string;
  toolFingerprint?: string;
  /** What only you know of the call: `downgraded`, `compat_no_cache`. */
  flags?: string[];
  /** What the customer paid for it; may be negative. Needs `customer`. */
  revenueUsd?: string;
}

export type UsageFormat =
  | 'spendfuse'
  | 'otel'
  | 'estimated'
  | 'openai.chat'
  | 'openai.responses'
  | 'anthropic.messages'
  | 'gemini'
  | 'gemini.interactions'
  | 'bedrock.converse'
  | 'cohere';

/** Where calls are decided. */
export type Mode = 'check' | 'watch';

/** What is done where the sidecar does not answer. */
export type OnUnavailable = 'allow' | 'block';

/** What becomes of a call for which a budget wants a cheaper model. */
export type OnDowngrade = 'apply' | 'raise' | 'ignore';

/** Keeps a serverless function alive until the promise is settled: Vercel's and Cloudflare's `waitUntil`. */
export type WaitUntil = (promise: Promise<unknown>) => void;

/** How to reach the sidecar, and what to do where it cannot be reached. */
export interface Options {
  /** `http://127.0.0.1:4117` (default), `https://…`, or `unix:/path`. Else `SPENDFUSE_URL`, or `SPENDFUSE_SIDECAR_URL`. */
  url?: string;
  /** Else `SPENDFUSE_TOKEN`. */
  token?: string;
  /** Else `SPENDFUSE_WORKSPACE`, else the sidecar's own. */
  workspace?: string;
  /** Nothing is asked, nothing is told. Else `SPENDFUSE_DISABLED`. */
  disabled?: boolean;
  /** Counts against these, where nothing nearer says otherwise. */
  defaults?: Attribution;
  /** Who tells of events that have no provider's id; the sidecar's own where absent. */
  source?: string;
  /**
   * The workspace's key for fingerprints of prompts, without which `retry_loop` finds nothing; in Node only.
   * Else `SPENDFUSE_FINGERPRINT_KEY`.
   */
  fingerprintKey?: string | Uint8Array;
  /**
   * `check` (default): the sidecar is asked before each call. `watch`: it is followed in the background, and
   * calls are decided here. Else `SPENDFUSE_MODE`.
   */
  mode?: Mode;
  /** Default `allow`. Else `SPENDFUSE_ON_UNAVAILABLE`. */
  onUnavailable?: OnUnavailable;
  /** Longest wait for the sidecar, milliseconds; default 50. */
  timeoutMs?: number;
  /**
   * The same for the answer to a call that reserves, once connected; default 2,500. Near a limit it waits
   * until the sidecars know who came first, two seconds at most.
   */
  reserveTimeoutMs?: number;
  /** Events in memory at most; default 10,000. More are dropped and counted. */
  maxQueue?: number;
  /** Longest wait before events are sent, milliseconds; default 1,000. */
  flushIntervalMs?: number;
  waitUntil?: WaitUntil;
  /** Told of what goes wrong, at most once a minute for each kind; default `console.warn`. */
  log?: (message: string) => void;
}

/** How one client or function is guarded. */
export interface WrapOptions extends Attribution {
  /** Whose prices hold, for base URLs that nobody knows. */
  provider?: string;
  /** Hold what each call may cost, so that calls at once do not pass the limit; default true. */
  reserve?: boolean;
  /** Default `apply`. */
  downgrade?: OnDowngrade;
  onUnavailable?: OnUnavailable;
  waitUntil?: WaitUntil;
  callTimeoutS?: number;
}

/** Where a session or customer stands. */
export interface State {
  decision: Verdict;
  budgets: BudgetLine[];
  warnings: Warning[];
  completeTo: string | null;
  state: string;
}

/** What is known of the delivery of events. */
export interface Statistics {
  queued: number;
  delivered: number;
  /** Refused by the sidecar; the log says why. */
  rejected: number;
  /** Lost, because the queue was full or the process ended. */
  dropped: number;
  /** Calls that went ahead, or were refused, without an answer of the sidecar. */
  unavailable: number;
}
