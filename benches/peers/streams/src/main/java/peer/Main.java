package peer;

import com.sun.net.httpserver.HttpServer;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;

/**
 * A Kafka Streams application that does a part of spendfuse's work on the same topic: dedupe,
 * pricing, four stacking scopes, limits, verdicts; exactly once. In two styles: as users of Streams
 * write it, and tuned as far as an expert can. Tells its counts on a port of its own.
 */
public final class Main {
    private Main() {}

    public static void main(String[] arguments) throws Exception {
        Map<String, String> options = options(arguments);
        String style = options.get("style");
        String output = options.get("output");
        int partitions = Integer.parseInt(options.get("partitions"));
        Prices prices = Prices.read(Path.of(options.get("prices")));
        Stats stats = new Stats();
        Properties properties = common(options);
        Topology topology;
        switch (style) {
            case "ordinary" -> {
                createTopics(properties, partitions, List.of(output));
                topology = Ordinary.topology(options.get("input"), output, prices, stats);
            }
            case "tuned" -> {
                String deltas = output + ".deltas";
                createTopics(properties, partitions, List.of(output, deltas));
                Tuned.configure(properties, Integer.parseInt(options.get("commit-ms")));
                topology = Tuned.topology(options.get("input"), deltas, output, prices, stats);
            }
            default -> throw new IllegalArgumentException("no style " + style);
        }
        CountDownLatch ended = new CountDownLatch(1);
        KafkaStreams streams = new KafkaStreams(topology, properties);
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            System.exit(1);
            return null;
        });
        serve(Integer.parseInt(options.get("stats-port")), stats);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            streams.close();
            ended.countDown();
        }));
        streams.start();
        ended.await();
    }

    private static Map<String, String> options(String[] arguments) {
        Map<String, String> options = new HashMap<>();
        for (String argument : arguments) {
            String[] parts = argument.split("=", 2);
            options.put(parts[0], parts[1]);
        }
        return options;
    }

    private static Properties common(Map<String, String> options) {
        Properties properties = new Properties();
        properties.put(StreamsConfig.APPLICATION_ID_CONFIG, options.get("application"));
        properties.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, options.get("brokers"));
        properties.put(StreamsConfig.STATE_DIR_CONFIG, options.get("state"));
        properties.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        properties.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 2);
        properties.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
        return properties;
    }

    private static void createTopics(Properties properties, int partitions, List<String> names)
            throws Exception {
        Properties client = new Properties();
        client.put("bootstrap.servers", properties.get(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG));
        try (Admin admin = Admin.create(client)) {
            for (String name : names) {
                NewTopic topic = new NewTopic(name, partitions, (short) 1);
                try {
                    admin.createTopics(List.of(topic)).all().get();
                } catch (java.util.concurrent.ExecutionException error) {
                    if (!(error.getCause() instanceof TopicExistsException)) {
                        throw error;
                    }
                }
            }
        }
    }

    /** Answers every request with the counts, as lines of Prometheus. */
    private static void serve(int port, Stats stats) throws Exception {
        InetSocketAddress address = new InetSocketAddress(InetAddress.getLoopbackAddress(), port);
        HttpServer server = HttpServer.create(address, 0);
        server.createContext("/", exchange -> {
            byte[] text = stats.text().getBytes(StandardCharsets.UTF_8);
            exchange.sendResponseHeaders(200, text.length);
            exchange.getResponseBody().write(text);
            exchange.close();
        });
        server.start();
    }
}
