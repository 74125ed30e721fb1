package peer;

import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import org.apache.kafka.common.utils.Bytes;

/** What each scope has spent in its window. */
final class Accounts extends OwnStore {
    /** One budget's scope and window. */
    static final class Account {
        final byte[] key;
        final Budget budget;
        /** {@code budget|scope}, without the window. */
        final byte[] published;
        final String window;
        long nanos;
        long tokens;
        long calls;
        long publishedNanos = -1;
        long publishedAt;
        String publishedVerdict = "";
        byte[] lastId = new byte[0];
        boolean isTouched;

        Account(byte[] key) {
            this.key = key;
            String text = new String(key, java.nio.charset.StandardCharsets.UTF_8);
            budget = Budget.ofKey(text);
            int end = text.lastIndexOf('|');
            published = text.substring(0, end).getBytes(java.nio.charset.StandardCharsets.UTF_8);
            window = text.substring(end + 1);
        }
    }

    private final HashMap<Bytes, Account> accounts = new HashMap<>();
    final List<Account> touched = new ArrayList<>();

    Accounts(String name) {
        super(name);
    }

    Account of(byte[] key) {
        return accounts.computeIfAbsent(Bytes.wrap(key), bytes -> new Account(bytes.get()));
    }

    void logTouched(long time) {
        for (Account account : touched) {
            byte[] value = ByteBuffer.allocate(24 + account.lastId.length).putLong(account.nanos)
                    .putLong(account.tokens).putLong(account.calls).put(account.lastId).array();
            log(account.key, value, time);
        }
    }

    @Override
    void restore(byte[] key, byte[] value) {
        Account account = of(key);
        ByteBuffer record = ByteBuffer.wrap(value);
        account.nanos = record.getLong();
        account.tokens = record.getLong();
        account.calls = record.getLong();
        account.lastId = new byte[record.remaining()];
        record.get(account.lastId);
    }
}
