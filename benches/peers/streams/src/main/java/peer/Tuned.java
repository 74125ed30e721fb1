package peer;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;

/**
 * As far as an expert can take it: two processors on bytes, a scanner that makes no objects, state
 * in plain memory, spend folded by scope until each commit, verdicts published only when they say
 * something new (at first spend, at another verdict, at one per cent more within a second or later).
 */
final class Tuned {
    private static final String IDS = "ids";
    private static final String ACCOUNTS = "accounts";
    private static final long SECOND = 1_000_000_000L;

    private Tuned() {}

    static void configure(Properties properties, int commitMillis) {
        properties.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, commitMillis);
        properties.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 0);
        properties.put(StreamsConfig.BUFFERED_RECORDS_PER_PARTITION_CONFIG, 20_000);
        properties.put(StreamsConfig.consumerPrefix(ConsumerConfig.MAX_POLL_RECORDS_CONFIG), 5_000);
        properties.put(
                StreamsConfig.consumerPrefix(ConsumerConfig.MAX_PARTITION_FETCH_BYTES_CONFIG),
                4 << 20);
        properties.put(StreamsConfig.producerPrefix(ProducerConfig.LINGER_MS_CONFIG), 0);
        properties.put(StreamsConfig.producerPrefix(ProducerConfig.BATCH_SIZE_CONFIG), 256 << 10);
        properties.put(StreamsConfig.producerPrefix(ProducerConfig.COMPRESSION_TYPE_CONFIG), "lz4");
    }

    static Topology topology(
            String input, String deltas, String output, Prices prices, Stats stats) {
        Topology topology = new Topology();
        ByteArrayDeserializer bytes = new ByteArrayDeserializer();
        ByteArraySerializer asBytes = new ByteArraySerializer();
        topology.addSource("events", bytes, bytes, input);
        topology.addProcessor("meter", () -> new Meter(prices, stats), "events");
        topology.addStateStore(
                OwnStore.builder(IDS, Map.of("cleanup.policy", "delete"), Ids::new), "meter");
        topology.addSink("to-deltas", deltas, asBytes, asBytes, "meter");
        topology.addSource("deltas", bytes, bytes, deltas);
        topology.addProcessor("ledger", () -> new Ledger(stats), "deltas");
        topology.addStateStore(OwnStore.builder(ACCOUNTS, Map.of(), Accounts::new), "ledger");
        topology.addSink("to-verdicts", output, asBytes, asBytes, "ledger");
        return topology;
    }

    /** Spend of one scope since the last commit. */
    private static final class Fold {
        final byte[] key;
        long nanos;
        long tokens;
        long calls;
        byte[] lastId = new byte[0];
        int lastIdLength;
        boolean isTouched;

        Fold(String key) {
            this.key = key.getBytes(StandardCharsets.UTF_8);
        }

        void add(long cost, long count, byte[] event, int from, int to) {
            nanos += cost;
            tokens += count;
            calls++;
            lastIdLength = to - from;
            if (lastId.length < lastIdLength) {
                lastId = new byte[lastIdLength * 2];
            }
            System.arraycopy(event, from, lastId, 0, lastIdLength);
        }

        byte[] take() {
            byte[] value = ByteBuffer.allocate(24 + lastIdLength).putLong(nanos).putLong(tokens)
                    .putLong(calls).put(lastId, 0, lastIdLength).array();
            nanos = 0;
            tokens = 0;
            calls = 0;
            isTouched = false;
            return value;
        }
    }

    /** Events of one partition: dedupe, price, fold. */
    private static final class Meter implements Processor<byte[], byte[], byte[], byte[]> {
        private final Prices prices;
        private final Stats stats;
        private final EventScanner scanner = new EventScanner();
        /** The four folds of a workspace, customer, feature and day, by the hash of their names. */
        private final HashMap<Long, Fold[]> byNames = new HashMap<>();
        private final HashMap<String, Fold> byKey = new HashMap<>();
        private final List<Fold> touched = new ArrayList<>();
        private ProcessorContext<byte[], byte[]> context;
        private Ids ids;
        private long time;

        Meter(Prices prices, Stats stats) {
            this.prices = prices;
            this.stats = stats;
        }

        @Override
        public void init(ProcessorContext<byte[], byte[]> context) {
            this.context = context;
            ids = context.getStateStore(IDS);
            ids.beforeCommit(this::commit);
        }

        @Override
        public void process(Record<byte[], byte[]> record) {
            byte[] event = record.value();
            EventScanner one = scanner;
            one.scan(event);
            time = record.timestamp();
            long high = identity(1, event);
            if (!ids.add(high, identity(2, event))) {
                stats.duplicates.increment();
                return;
            }
            ids.touched();
            long cost = rates(event).cost(one.input, one.cached, one.output);
            stats.events.increment();
            stats.nanos.add(cost);
            long tokens = one.input + one.output;
            for (Fold fold : folds(event)) {
                fold.add(cost, tokens, event, one.from[EventScanner.ID], one.to[EventScanner.ID]);
                if (!fold.isTouched) {
                    fold.isTouched = true;
                    touched.add(fold);
                }
            }
        }

        private long identity(long seed, byte[] event) {
            return field(field(field(seed, event, EventScanner.WORKSPACE), event,
                    EventScanner.SOURCE), event, EventScanner.ID);
        }

        private long field(long seed, byte[] event, int field) {
            return Hash.of(seed, event, scanner.from[field], scanner.to[field]);
        }

        private Prices.Rates rates(byte[] event) {
            int from = scanner.from[EventScanner.MODEL];
            int to = scanner.to[EventScanner.MODEL];
            for (Prices.Rates rates : prices.all) {
                if (Arrays.equals(rates.model(), 0, rates.model().length, event, from, to)) {
                    return rates;
                }
            }
            throw new IllegalStateException("no price for " + text(event, EventScanner.MODEL));
        }

        private Fold[] folds(byte[] event) {
            int day = scanner.from[EventScanner.TIME];
            long names = field(field(field(Hash.of(7, event, day, day + 10), event,
                    EventScanner.WORKSPACE), event, EventScanner.CUSTOMER), event,
                    EventScanner.FEATURE);
            Fold[] known = byNames.get(names);
            if (known != null) {
                return known;
            }
            String date = text(event, EventScanner.TIME);
            String workspace = text(event, EventScanner.WORKSPACE);
            String customer = workspace + "/customer=" + text(event, EventScanner.CUSTOMER);
            String feature = customer + "/feature=" + text(event, EventScanner.FEATURE);
            Fold[] folds = {
                fold("everything|*|lifetime"),
                fold("workspace|" + workspace + "|" + date.substring(0, 10)),
                fold("customer|" + customer + "|" + date.substring(0, 10)),
                fold("feature|" + feature + "|" + date.substring(0, 7))
            };
            byNames.put(names, folds);
            return folds;
        }

        private Fold fold(String key) {
            return byKey.computeIfAbsent(key, Fold::new);
        }

        private String text(byte[] event, int field) {
            int from = scanner.from[field];
            return new String(event, from, scanner.to[field] - from, StandardCharsets.UTF_8);
        }

        private void commit() {
            ids.logFresh(time);
            for (Fold fold : touched) {
                context.forward(new Record<>(fold.key, fold.take(), time));
            }
            touched.clear();
        }
    }

    /** Deltas of one partition of scopes: sums, limits, verdicts. */
    private static final class Ledger implements Processor<byte[], byte[], byte[], byte[]> {
        private final Stats stats;
        private ProcessorContext<byte[], byte[]> context;
        private Accounts accounts;
        private long time;

        Ledger(Stats stats) {
            this.stats = stats;
        }

        @Override
        public void init(ProcessorContext<byte[], byte[]> context) {
            this.context = context;
            accounts = context.getStateStore(ACCOUNTS);
            accounts.beforeCommit(this::commit);
        }

        @Override
        public void process(Record<byte[], byte[]> record) {
            Accounts.Account account = accounts.of(record.key());
            ByteBuffer delta = ByteBuffer.wrap(record.value());
            account.nanos += delta.getLong();
            account.tokens += delta.getLong();
            account.calls += delta.getLong();
            account.lastId = new byte[delta.remaining()];
            delta.get(account.lastId);
            time = record.timestamp();
            if (!account.isTouched) {
                account.isTouched = true;
                accounts.touched.add(account);
            }
            if (account.budget == Budget.EVERYTHING) {
                stats.everything = account.nanos;
            }
            accounts.touched();
        }

        private void commit() {
            accounts.logTouched(time);
            long now = System.nanoTime();
            for (Accounts.Account account : accounts.touched) {
                account.isTouched = false;
                String verdict = account.budget.verdict(account.nanos);
                boolean isFirst = account.publishedNanos < 0;
                boolean isOther = !verdict.equals(account.publishedVerdict);
                long moved = account.nanos - account.publishedNanos;
                boolean hasMoved = moved >= account.budget.limit / 100
                        && now - account.publishedAt >= SECOND;
                if (isFirst || isOther || hasMoved) {
                    account.publishedNanos = account.nanos;
                    account.publishedVerdict = verdict;
                    account.publishedAt = now;
                    context.forward(new Record<>(account.published, value(account, verdict), time));
                }
            }
            accounts.touched.clear();
        }

        private static byte[] value(Accounts.Account account, String verdict) {
            String id = new String(account.lastId, StandardCharsets.UTF_8);
            return ("{\"verdict\":\"" + verdict + "\",\"spent\":" + account.nanos + ",\"limit\":"
                    + account.budget.limit + ",\"window\":\"" + account.window + "\",\"id\":\"" + id
                    + "\"}").getBytes(StandardCharsets.UTF_8);
        }
    }
}
