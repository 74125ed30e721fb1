/** A stream of server-sent events, cut where its events end. */

const LF = 10;
const CR = 13;
/** An event that is longer is passed on unread. */
const LONGEST_EVENT = 16 << 20;

export class Events {
  private rest: Uint8Array = new Uint8Array(0);

  /** The events that are whole now, each with the empty line at its end. */
  push(chunk: Uint8Array): Uint8Array[] {
    const bytes = this.rest.length === 0 ? chunk : joined(this.rest, chunk);
    const whole: Uint8Array[] = [];
    let from = 0;
    // Where no line ends by CR, as in nearly all streams, only line feeds are looked at.
    const next = bytes.includes(CR) ? (at: number): number => at : (at: number): number => bytes.indexOf(LF, at);
    for (let at = next(Math.max(1, this.rest.length)); at >= 0 && at < bytes.length; at = next(at + 1)) {
      if (!endsAt(bytes, at, from)) continue;
      whole.push(bytes.subarray(from, at + 1));
      from = at + 1;
    }
    this.rest = bytes.slice(from);
    if (this.rest.length > LONGEST_EVENT) {
      whole.push(this.rest);
      this.rest = new Uint8Array(0);
    }
    return whole;
  }

  /** What is left at the end: a last event may lack its empty line. */
  tail(): Uint8Array {
    const rest = this.rest;
    this.rest = new Uint8Array(0);
    return rest;
  }
}

/** Whether the byte at `at` ends an empty line: `\n\n`, `\r\n\r\n`, `\r\r`. */
function endsAt(bytes: Uint8Array, at: number, from: number): boolean {
  const before = at - 1 >= from ? bytes[at - 1] : undefined;
  if (bytes[at] === CR) return before === CR;
  if (bytes[at] !== LF) return false;
  return before === LF || (before === CR && at - 2 >= from && bytes[at - 2] === LF);
}

const decoder = new TextDecoder();

export const textOf = (event: Uint8Array): string => decoder.decode(event);

/** The JSON in the `data` of an event's text; undefined where there is none: `[DONE]`, a comment. */
export function dataOf(text: string): unknown {
  let data: string | undefined;
  for (const line of text.split(/\r\n|\n|\r/)) {
    if (!line.startsWith('data:')) continue;
    const value = line.startsWith('data: ') ? line.slice(6) : line.slice(5);
    data = data === undefined ? value : `${data}\n${value}`;
  }
  return data === undefined ? undefined : parsed(data);
}

/** How long it is in UTF-8. */
export function bytesOf(text: string): number {
  let bytes = text.length;
  for (let at = 0; at < text.length; at += 1) {
    const unit = text.charCodeAt(at);
    if (unit < 0x80) continue;
    // Of four bytes each half of a pair stands for two.
    bytes += unit < 0x800 || (unit >= 0xd800 && unit < 0xe000) ? 1 : 2;
  }
  return bytes;
}

/** Undefined where it is no JSON. */
export function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function joined(one: Uint8Array, other: Uint8Array): Uint8Array {
  const both = new Uint8Array(one.length + other.length);
  both.set(one);
  both.set(other, one.length);
  return both;
}
