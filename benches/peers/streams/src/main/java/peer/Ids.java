package peer;

import java.nio.ByteBuffer;
import java.util.Arrays;

/** 128-bit identities in open addressing; the new ones of a commit are one changelog record. */
final class Ids extends OwnStore {
    private long[] high = new long[1 << 16];
    private long[] low = new long[1 << 16];
    private int count;
    private long commits;
    private long[] fresh = new long[1 << 12];
    private int freshLength;

    Ids(String name) {
        super(name);
    }

    /** Remembers an identity; false where it was known. */
    boolean add(long one, long other) {
        if (!insert(one, other)) {
            return false;
        }
        if (freshLength == fresh.length) {
            fresh = Arrays.copyOf(fresh, fresh.length * 2);
        }
        fresh[freshLength++] = one;
        fresh[freshLength++] = other;
        return true;
    }

    private boolean insert(long one, long other) {
        // Zero stands for an empty place.
        long wanted = one == 0 ? 1 : one;
        if (count * 2 >= high.length) {
            grow();
        }
        int mask = high.length - 1;
        int place = (int) wanted & mask;
        while (high[place] != 0) {
            if (high[place] == wanted && low[place] == other) {
                return false;
            }
            place = place + 1 & mask;
        }
        high[place] = wanted;
        low[place] = other;
        count++;
        return true;
    }

    private void grow() {
        long[] oldHigh = high;
        long[] oldLow = low;
        high = new long[oldHigh.length * 2];
        low = new long[oldLow.length * 2];
        int mask = high.length - 1;
        for (int old = 0; old < oldHigh.length; old++) {
            if (oldHigh[old] != 0) {
                int place = (int) oldHigh[old] & mask;
                while (high[place] != 0) {
                    place = place + 1 & mask;
                }
                high[place] = oldHigh[old];
                low[place] = oldLow[old];
            }
        }
    }

    /** Logs the identities of this commit; times do not expire within a measurement. */
    void logFresh(long time) {
        if (freshLength == 0) {
            return;
        }
        ByteBuffer record = ByteBuffer.allocate(freshLength * 8);
        record.asLongBuffer().put(fresh, 0, freshLength);
        log(ByteBuffer.allocate(8).putLong(0, ++commits).array(), record.array(), time);
        freshLength = 0;
    }

    @Override
    void restore(byte[] key, byte[] value) {
        commits = Math.max(commits, ByteBuffer.wrap(key).getLong());
        ByteBuffer record = ByteBuffer.wrap(value);
        while (record.remaining() >= 16) {
            insert(record.getLong(), record.getLong());
        }
    }
}
