package peer;

/** The four budgets that stack on every event, with spendfuse's limits in the bench. */
enum Budget {
    EVERYTHING("everything", 10_000_000L),
    WORKSPACE("workspace", 1_000_000L),
    CUSTOMER("customer", 100L),
    FEATURE("feature", 20L);

    final String id;
    /** Nano-dollars. */
    final long limit;

    Budget(String id, long dollars) {
        this.id = id;
        this.limit = dollars * 1_000_000_000L;
    }

    /** {@code ok} below 80 % of the limit, {@code warn} below all of it, else {@code block}. */
    String verdict(long spent) {
        if (spent >= limit) {
            return this == EVERYTHING ? "warn" : "block";
        }
        return spent >= limit / 10 * 8 ? "warn" : "ok";
    }

    /** The budget of a key {@code budget|scope|window}. */
    static Budget ofKey(String key) {
        String id = key.substring(0, key.indexOf('|'));
        for (Budget budget : values()) {
            if (budget.id.equals(id)) {
                return budget;
            }
        }
        throw new IllegalStateException("no budget " + id);
    }
}
