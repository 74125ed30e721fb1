/** Keeps calls from waiting for a sidecar that does not answer. */

/** Failures in a row after which nobody asks for a while. */
const FAILURES = 3;
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 10_000;

export class Breaker {
  private failures = 0;
  private openUntil = 0;
  private pauseMs = FIRST_PAUSE_MS;

  /** Whether to ask. After a pause one call asks for all. */
  permits(now = Date.now()): boolean {
    if (this.failures < FAILURES) return true;
    if (now < this.openUntil) return false;
    this.openUntil = now + this.pauseMs;
    return true;
  }

  succeeded(): void {
    this.failures = 0;
    this.pauseMs = FIRST_PAUSE_MS;
  }

  failed(now = Date.now()): void {
    this.failures += 1;
    if (this.failures < FAILURES) return;
    this.openUntil = now + this.pauseMs;
    this.pauseMs = Math.min(this.pauseMs * 2, LONGEST_PAUSE_MS);
  }
}
