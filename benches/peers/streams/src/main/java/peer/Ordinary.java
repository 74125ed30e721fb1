package peer;

import com.fasterxml.jackson.annotation.JsonIgnoreProperties;
import com.fasterxml.jackson.annotation.JsonProperty;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.time.Duration;
import java.util.List;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.processor.api.FixedKeyProcessor;
import org.apache.kafka.streams.processor.api.FixedKeyProcessorContext;
import org.apache.kafka.streams.processor.api.FixedKeyRecord;
import org.apache.kafka.streams.state.Stores;
import org.apache.kafka.streams.state.WindowStore;
import org.apache.kafka.streams.state.WindowStoreIterator;

/**
 * As users of Kafka Streams write it: the DSL, Jackson, and the stock stores with their defaults.
 * Dedupe is the published recipe, a window store that is asked for each id.
 */
final class Ordinary {
    private static final String IDS = "ids";
    private static final Duration HORIZON = Duration.ofHours(24);

    private Ordinary() {}

    @JsonIgnoreProperties(ignoreUnknown = true)
    record Event(String id, String source, String type, String time, Data data) {}

    @JsonIgnoreProperties(ignoreUnknown = true)
    record Data(String workspace, String customer, String feature, String session, String model,
            Usage usage) {}

    @JsonIgnoreProperties(ignoreUnknown = true)
    record Usage(@JsonProperty("input_tokens") long input,
            @JsonProperty("cache_read_tokens") long cached,
            @JsonProperty("output_tokens") long output) {}

    record Spend(long nanos, long tokens, String id, String time) {}

    record Account(long nanos, long tokens, long calls, String lastId, String lastTime) {
        Account add(Spend spend) {
            return new Account(nanos + spend.nanos(), tokens + spend.tokens(), calls + 1,
                    spend.id(), spend.time());
        }
    }

    record Verdict(String verdict, long spent, long limit, String window, String id, String time) {}

    static Topology topology(String input, String output, Prices prices, Stats stats) {
        StreamsBuilder builder = new StreamsBuilder();
        builder.addStateStore(Stores.windowStoreBuilder(
                Stores.persistentWindowStore(IDS, HORIZON, HORIZON, false), Serdes.String(),
                Serdes.Long()));
        KStream<String, Event> events = builder.stream(input,
                Consumed.with(Serdes.String(), new JsonSerde<>(Event.class)));
        events.processValues(() -> new Deduplicate(stats), IDS)
                .flatMap((key, event) -> spends(event, prices, stats))
                .groupByKey(Grouped.with("scopes", Serdes.String(), new JsonSerde<>(Spend.class)))
                .aggregate(() -> new Account(0, 0, 0, "", ""), (key, spend, account) -> {
                    Account sum = account.add(spend);
                    if (key.startsWith("everything|")) {
                        stats.everything = sum.nanos();
                    }
                    return sum;
                }, Materialized.with(Serdes.String(), new JsonSerde<>(Account.class)))
                .toStream()
                .map(Ordinary::verdict)
                .to(output, Produced.with(Serdes.String(), new JsonSerde<>(Verdict.class)));
        return builder.build();
    }

    private static List<KeyValue<String, Spend>> spends(Event event, Prices prices, Stats stats) {
        Data data = event.data();
        Usage usage = data.usage();
        long nanos = prices.of(data.model()).cost(usage.input(), usage.cached(), usage.output());
        stats.events.increment();
        stats.nanos.add(nanos);
        Spend spend = new Spend(nanos, usage.input() + usage.output(), event.id(), event.time());
        String day = event.time().substring(0, 10);
        String month = event.time().substring(0, 7);
        String workspace = data.workspace();
        String customer = workspace + "/customer=" + data.customer();
        String feature = customer + "/feature=" + data.feature();
        return List.of(
                KeyValue.pair("everything|*|lifetime", spend),
                KeyValue.pair("workspace|" + workspace + "|" + day, spend),
                KeyValue.pair("customer|" + customer + "|" + day, spend),
                KeyValue.pair("feature|" + feature + "|" + month, spend));
    }

    private static KeyValue<String, Verdict> verdict(String key, Account account) {
        Budget budget = Budget.ofKey(key);
        int window = key.lastIndexOf('|');
        return KeyValue.pair(key.substring(0, window),
                new Verdict(budget.verdict(account.nanos()), account.nanos(), budget.limit,
                        key.substring(window + 1), account.lastId(), account.lastTime()));
    }

    /** Forwards an event unless its id was seen within the horizon. */
    private static final class Deduplicate implements FixedKeyProcessor<String, Event, Event> {
        private final Stats stats;
        private FixedKeyProcessorContext<String, Event> context;
        private WindowStore<String, Long> ids;

        Deduplicate(Stats stats) {
            this.stats = stats;
        }

        @Override
        public void init(FixedKeyProcessorContext<String, Event> context) {
            this.context = context;
            this.ids = context.getStateStore(IDS);
        }

        @Override
        public void process(FixedKeyRecord<String, Event> record) {
            Event event = record.value();
            String id = event.data().workspace() + "/" + event.source() + "/" + event.id();
            long time = record.timestamp();
            long horizon = HORIZON.toMillis();
            try (WindowStoreIterator<Long> seen = ids.fetch(id, time - horizon, time + horizon)) {
                if (seen.hasNext()) {
                    stats.duplicates.increment();
                    return;
                }
            }
            ids.put(id, time, time);
            context.forward(record);
        }
    }

    /** Jackson, as most applications have it. */
    private static final class JsonSerde<T> implements Serde<T> {
        private static final ObjectMapper MAPPER = new ObjectMapper();
        private final Class<T> type;

        JsonSerde(Class<T> type) {
            this.type = type;
        }

        @Override
        public org.apache.kafka.common.serialization.Serializer<T> serializer() {
            return (topic, value) -> {
                try {
                    return value == null ? null : MAPPER.writeValueAsBytes(value);
                } catch (IOException error) {
                    throw new UncheckedIOException(error);
                }
            };
        }

        @Override
        public org.apache.kafka.common.serialization.Deserializer<T> deserializer() {
            return (topic, bytes) -> {
                try {
                    return bytes == null ? null : MAPPER.readValue(bytes, type);
                } catch (IOException error) {
                    throw new UncheckedIOException(error);
                }
            };
        }
    }
}
