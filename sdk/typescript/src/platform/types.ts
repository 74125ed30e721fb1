/** What the runtime must give: Node, or anything that has `fetch`. */

export interface Storage<T> {
  getStore(): T | undefined;
  run<R>(store: T, fn: () => R): R;
}

/** Where the sidecar is. */
export interface Target {
  /** Scheme, host and port; for a socket only what goes into `Host`. */
  base: string;
  /** What stands before all paths, such as `/spendfuse`; mostly empty. */
  prefix: string;
  socketPath?: string;
}

export interface Asked {
  method: 'GET' | 'POST' | 'DELETE';
  path: string;
  headers: Record<string, string>;
  body?: string;
  /** Milliseconds until the connection stands. */
  connectMs: number;
  /** Milliseconds until the answer is there, from the connection on. */
  answerMs: number;
  /** Does not keep the process alive. */
  isBackground?: boolean;
  /** Whether it is in vain to send this by now, after a wait for others. */
  isVain?: () => boolean;
}

export interface Answer {
  status: number;
  retryAfter: string | null;
  text: string;
}

export interface Platform {
  /** Follows asynchronous calls; undefined where the runtime cannot. */
  storage<T>(): Storage<T> | undefined;
  env(name: string): string | undefined;
  ask(target: Target, asked: Asked): Promise<Answer>;
  /** HMAC-SHA256 of `text` in hex digits; undefined where the runtime has none that does not wait. */
  hmac(key: string | Uint8Array, text: string): string | undefined;
  /** Lets a timer not keep the process alive. */
  unref(timer: unknown): void;
  /** Calls `end` when the process ends, for as long as somebody else holds it. */
  onExit(end: End): void;
}

export interface End {
  /** When nothing else is left to do. */
  drain(): Promise<unknown> | undefined;
  /** When the process ends now: what it returns is sent. */
  last(): LastWords | undefined;
}

/** Requests that are to be made before the process ends, one after the other. */
export interface LastWords {
  target: Target;
  path: string;
  headers: Record<string, string>;
  bodies: string[];
}
