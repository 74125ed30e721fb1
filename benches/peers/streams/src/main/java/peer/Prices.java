package peer;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;

/** Rates by model, nano-dollars per million tokens. Integers only: money is never a float. */
final class Prices {
    /** A model's rates. */
    record Rates(byte[] model, long input, long cacheRead, long output) {
        /** Divided once, rounded up. */
        long cost(long inputTokens, long cachedTokens, long outputTokens) {
            long sum = (inputTokens - cachedTokens) * input + cachedTokens * cacheRead
                    + outputTokens * output;
            return (sum + 999_999) / 1_000_000;
        }
    }

    private final Map<String, Rates> byName = new HashMap<>();
    final Rates[] all;

    private Prices(Rates[] all) {
        this.all = all;
        for (Rates rates : all) {
            byName.put(new String(rates.model(), StandardCharsets.UTF_8), rates);
        }
    }

    /** Reads lines {@code model,input,cache_read,output}. */
    static Prices read(Path file) throws IOException {
        return new Prices(Files.readAllLines(file).stream().map(line -> {
            String[] parts = line.split(",");
            return new Rates(parts[0].getBytes(StandardCharsets.UTF_8), Long.parseLong(parts[1]),
                    Long.parseLong(parts[2]), Long.parseLong(parts[3]));
        }).toArray(Rates[]::new));
    }

    Rates of(String model) {
        Rates rates = byName.get(model);
        if (rates == null) {
            throw new IllegalStateException("no price for " + model);
        }
        return rates;
    }
}
