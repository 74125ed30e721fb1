package peer;

import java.nio.charset.StandardCharsets;

/**
 * Reads the fields that are needed out of an event in one pass, without making objects: texts are
 * stretches of the message. Any order of fields, unknown ones skipped.
 */
final class EventScanner {
    private static final byte[][] NAMES = {
        name("id"), name("source"), name("time"), name("workspace"), name("customer"),
        name("feature"), name("model"), name("session"), name("input_tokens"),
        name("cache_read_tokens"), name("output_tokens"), name("data"), name("usage")
    };
    static final int ID = 0;
    static final int SOURCE = 1;
    static final int TIME = 2;
    static final int WORKSPACE = 3;
    static final int CUSTOMER = 4;
    static final int FEATURE = 5;
    static final int MODEL = 6;
    static final int SESSION = 7;
    static final int INPUT = 8;
    static final int CACHED = 9;
    static final int OUTPUT = 10;
    private static final int DATA = 11;
    private static final int USAGE = 12;

    /** Where each text begins and ends. */
    final int[] from = new int[8];
    final int[] to = new int[8];
    long input;
    long cached;
    long output;
    private byte[] text;
    private int at;

    private static byte[] name(String name) {
        return name.getBytes(StandardCharsets.UTF_8);
    }

    void scan(byte[] event) {
        text = event;
        at = 0;
        input = 0;
        cached = 0;
        output = 0;
        for (int field = 0; field < 8; field++) {
            from[field] = 0;
            to[field] = 0;
        }
        blanks();
        object(0);
    }

    private void object(int depth) {
        expect('{');
        blanks();
        if (text[at] == '}') {
            at++;
            return;
        }
        while (true) {
            expect('"');
            int start = at;
            endOfText();
            int end = at;
            at++;
            blanks();
            expect(':');
            blanks();
            value(field(start, end), depth);
            blanks();
            if (text[at++] == '}') {
                return;
            }
            blanks();
        }
    }

    private void value(int field, int depth) {
        switch (text[at]) {
            case '"' -> {
                int start = ++at;
                endOfText();
                boolean isOurs = field >= WORKSPACE ? depth == 1 : depth == 0;
                if (field >= 0 && field < 8 && isOurs) {
                    from[field] = start;
                    to[field] = at;
                }
                at++;
            }
            case '{' -> {
                boolean isOurs = field == DATA && depth == 0 || field == USAGE && depth == 1;
                object(isOurs ? depth + 1 : 8);
            }
            case '[' -> array();
            default -> number(depth == 2 ? field : -1);
        }
    }

    private void array() {
        at++;
        blanks();
        while (text[at] != ']') {
            value(-1, 8);
            blanks();
            if (text[at] == ',') {
                at++;
                blanks();
            }
        }
        at++;
    }

    /** Digits; other literals are skipped. */
    private void number(int field) {
        long value = 0;
        byte one = text[at];
        while (one >= '0' && one <= '9') {
            value = value * 10 + (one - '0');
            one = text[++at];
        }
        switch (field) {
            case INPUT -> input = value;
            case CACHED -> cached = value;
            case OUTPUT -> output = value;
            default -> { }
        }
        while (one != ',' && one != '}' && one != ']' && one > ' ') {
            one = text[++at];
        }
    }

    private int field(int start, int end) {
        int length = end - start;
        for (int field = 0; field < NAMES.length; field++) {
            byte[] name = NAMES[field];
            if (name.length == length && java.util.Arrays.equals(name, 0, length, text, start, end)) {
                return field;
            }
        }
        return -1;
    }

    private void endOfText() {
        while (text[at] != '"') {
            at += text[at] == '\\' ? 2 : 1;
        }
    }

    private void blanks() {
        while (text[at] == ' ' || text[at] == '\n' || text[at] == '\r' || text[at] == '\t') {
            at++;
        }
    }

    private void expect(char wanted) {
        if (text[at] != wanted) {
            throw new IllegalArgumentException("no " + wanted + " at " + at);
        }
        at++;
    }
}
