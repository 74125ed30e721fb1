/** Keeps calls from waiting for a sidecar that does not answer. */

/** Failures in a row after which nobody asks for a while. */
const FAILURES = 3;
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 10_000;

export class Breaker {
  private failures = 0;
  private openUntil = 0;
  private pauseMs = FIRST_PAUSE_MS;
  /** Whether a call is under way that asks for all. */
  private isTrying = false;

  /** Whether to ask. After a pause one call asks for all. */
  permits(now = Date.now()): boolean {
    if (this.failures < FAILURES) return true;
    if (this.isOpen(now)) return false;
    this.openUntil = now + this.pauseMs;
    this.isTrying = true;
    return true;
  }

  /** Whether it did not answer several times in a row, just now. */
  isOpen(now = Date.now()): boolean {
    return this.failures >= FAILURES && now < this.openUntil;
  }

  succeeded(): void {
    this.failures = 0;
    this.pauseMs = FIRST_PAUSE_MS;
    this.isTrying = false;
  }

  failed(now = Date.now()): void {
    this.failures += 1;
    // Of calls that were under way together the first ones told it: the others are no news.
    if (this.failures < FAILURES || (this.isOpen(now) && !this.isTrying)) return;
    this.isTrying = false;
    this.openUntil = now + this.pauseMs;
    this.pauseMs = Math.min(this.pauseMs * 2, LONGEST_PAUSE_MS);
  }
}
