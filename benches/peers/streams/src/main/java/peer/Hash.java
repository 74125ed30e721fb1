package peer;

import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.nio.ByteOrder;

/** 64-bit hashes of stretches of bytes, eight bytes at a time. */
final class Hash {
    private static final VarHandle LONGS =
            MethodHandles.byteArrayViewVarHandle(long[].class, ByteOrder.LITTLE_ENDIAN);

    private Hash() {}

    static long of(long seed, byte[] bytes, int from, int to) {
        long hash = seed ^ (to - from) * 0x9e3779b97f4a7c15L;
        int at = from;
        for (; at + 8 <= to; at += 8) {
            hash = mix(hash ^ (long) LONGS.get(bytes, at));
        }
        long rest = 0;
        for (; at < to; at++) {
            rest = rest << 8 | bytes[at] & 0xff;
        }
        return mix(hash ^ rest);
    }

    private static long mix(long value) {
        long high = Math.multiplyHigh(value, 0xa0761d6478bd642fL);
        return high ^ value * 0xa0761d6478bd642fL ^ value >>> 29;
    }
}
