package peer;

import java.util.concurrent.atomic.LongAdder;

/** What the application has done: enough to see how far it is and whether its sums are right. */
final class Stats {
    /** Events counted, duplicates left out. */
    final LongAdder events = new LongAdder();
    /** Events that were counted before. */
    final LongAdder duplicates = new LongAdder();
    /** Their cost, nano-dollars. */
    final LongAdder nanos = new LongAdder();
    /** What the budget over everything has seen, nano-dollars. */
    volatile long everything;

    String text() {
        return "events " + events.sum() + "\nduplicates " + duplicates.sum() + "\nnanos "
                + nanos.sum() + "\neverything " + everything + "\n";
    }
}
