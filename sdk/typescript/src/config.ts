/** Settings: what was given, else the environment, else defaults. */

import { platform } from '#platform';
import { SpendfuseError } from './errors.js';
import type { Target } from './platform/types.js';
import type { Attribution, Mode, OnUnavailable, Options } from './types.js';

export interface Config {
  target: Target;
  headers: Record<string, string>;
  defaults: Attribution;
  disabled: boolean;
  mode: Mode;
  onUnavailable: OnUnavailable;
  timeoutMs: number;
  reserveTimeoutMs: number;
  maxQueue: number;
  flushIntervalMs: number;
  source: string | undefined;
  fingerprintKey: string | Uint8Array | undefined;
  waitUntil: Options['waitUntil'];
  log: (message: string) => void;
}

const DEFAULT_URL = 'http://127.0.0.1:4117';

/** @throws {SpendfuseError} where the address is none, or the mode. */
export function configOf(options: Options): Config {
  const workspace = options.workspace ?? platform.env('SPENDFUSE_WORKSPACE');
  const token = options.token ?? platform.env('SPENDFUSE_TOKEN');
  const headers: Record<string, string> = { 'content-type': 'application/json', accept: 'application/json' };
  if (token) headers['x-spendfuse-token'] = token;
  const target = targetOf(options.url ?? (platform.env('SPENDFUSE_URL') || platform.env('SPENDFUSE_SIDECAR_URL') || DEFAULT_URL));
  headers['host'] = target.socketPath === undefined ? new URL(target.base).host : 'localhost';
  return {
    target,
    headers,
    defaults: { ...options.defaults, ...(workspace ? { workspace } : {}) },
    disabled: options.disabled ?? isSet(platform.env('SPENDFUSE_DISABLED')),
    mode: modeOf(options.mode ?? platform.env('SPENDFUSE_MODE')),
    onUnavailable: onUnavailableOf(options.onUnavailable ?? platform.env('SPENDFUSE_ON_UNAVAILABLE')),
    timeoutMs: options.timeoutMs ?? 50,
    reserveTimeoutMs: options.reserveTimeoutMs ?? 2_500,
    maxQueue: options.maxQueue ?? 10_000,
    flushIntervalMs: options.flushIntervalMs ?? 1_000,
    source: options.source,
    // An empty one is none.
    fingerprintKey: (options.fingerprintKey ?? platform.env('SPENDFUSE_FINGERPRINT_KEY')) || undefined,
    waitUntil: options.waitUntil,
    log: oncePerMinute(options.log ?? ((message) => console.warn(`spendfuse: ${message}`))),
  };
}

function modeOf(mode: string | undefined): Mode {
  if (mode === undefined || mode === '' || mode === 'check') return 'check';
  if (mode === 'watch') return mode;
  throw new SpendfuseError(`mode is ${JSON.stringify(mode)}: write 'check' or 'watch'`);
}

function onUnavailableOf(told: string | undefined): OnUnavailable {
  if (told === undefined || told === '' || told === 'allow') return 'allow';
  if (told === 'block') return told;
  throw new SpendfuseError(`onUnavailable is ${JSON.stringify(told)}: write 'allow' or 'block'`);
}

function targetOf(url: string): Target {
  if (url.startsWith('unix:')) {
    const socketPath = url.slice('unix:'.length).replace(/^\/\/+/, '/');
    return { base: 'http://localhost', prefix: '', socketPath };
  }
  let parsed: URL;
  try {
    parsed = new URL(url);
  } catch {
    throw new SpendfuseError(`SPENDFUSE_URL is no address: write http://127.0.0.1:4117, https://… or unix:/path, not ${JSON.stringify(url)}`);
  }
  if (parsed.protocol !== 'http:' && parsed.protocol !== 'https:') {
    throw new SpendfuseError(`SPENDFUSE_URL is neither http, https nor unix: ${JSON.stringify(url)}`);
  }
  return { base: parsed.origin, prefix: parsed.pathname.replace(/\/+$/, '') };
}

const isSet = (value: string | undefined): boolean => value !== undefined && !['', '0', 'false', 'no', 'off'].includes(value.toLowerCase());

/** The first words of a message are its kind; each kind is told once a minute, with how often it came. */
function oncePerMinute(log: (message: string) => void): (message: string) => void {
  const told = new Map<string, { at: number; more: number }>();
  return (message) => {
    const kind = message.split(/[:(]/, 1)[0]!;
    const before = told.get(kind);
    if (before !== undefined && Date.now() - before.at < 60_000) {
      before.more += 1;
      return;
    }
    told.set(kind, { at: Date.now(), more: 0 });
    const more = before !== undefined && before.more > 0 ? ` (and ${before.more} times more)` : '';
    try {
      log(message + more);
    } catch {
      // A logger that throws must not reach the app's calls.
    }
  };
}
