/** Dollars as decimal strings, added without rounding. */

const NANOS = 1_000_000_000n;

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
