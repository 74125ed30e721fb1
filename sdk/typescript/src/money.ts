/** Dollars as decimal strings, added without rounding. */

const NANOS = 1_000_000_000n;

/** An amount as the sidecar reads it: JavaScript writes very small and large numbers with an exponent, which it refuses. What is no amount is left to it. */
export function amountOf(dollars: string | number): string {
  const parts = /^(-?)(\d+)(?:\.(\d*))?e([+-]?\d{1,3})$/i.exec(String(dollars));
  if (parts === null) return String(dollars);
  const [, sign, whole, fraction = '', exponent] = parts as unknown as [string, string, string, string | undefined, string];
  const digits = whole + fraction;
  const point = whole.length + Number(exponent);
  const padded = digits.padStart(digits.length - Math.min(point - 1, 0), '0').padEnd(point, '0');
  const at = Math.max(point, 1);
  return `${sign}${padded.slice(0, at)}${padded.length > at ? `.${padded.slice(at)}` : ''}`;
}

/** Nano-dollars of `"0.0123"`; undefined where it is no amount. */
export function nanosOf(dollars: string | null | undefined): bigint | undefined {
  const parts = /^(-?)(\d+)(?:\.(\d{1,9}))?$/.exec(dollars ?? '');
  if (parts === null) return undefined;
  const nanos = BigInt(parts[2]!) * NANOS + BigInt((parts[3] ?? '').padEnd(9, '0'));
  return parts[1] === '-' ? -nanos : nanos;
}

/** As the sidecar writes it: at least two digits behind the point. */
export function dollarsOf(nanos: bigint): string {
  const sign = nanos < 0n ? '-' : '';
  const size = nanos < 0n ? -nanos : nanos;
  const fraction = (size % NANOS).toString().padStart(9, '0').replace(/0+$/, '').padEnd(2, '0');
  return `${sign}${size / NANOS}.${fraction}`;
}
