package peer;

import java.util.Map;
import org.apache.kafka.common.header.internals.RecordHeaders;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.processor.StateRestoreCallback;
import org.apache.kafka.streams.processor.StateStore;
import org.apache.kafka.streams.processor.StateStoreContext;
import org.apache.kafka.streams.processor.internals.InternalProcessorContext;
import org.apache.kafka.streams.processor.internals.ProcessorNode;
import org.apache.kafka.streams.processor.internals.ProcessorRecordContext;
import org.apache.kafka.streams.query.Position;
import org.apache.kafka.streams.state.StoreBuilder;
import org.apache.kafka.streams.state.internals.CacheFlushListener;
import org.apache.kafka.streams.state.internals.CachedStateStore;

/**
 * State in plain Java memory with a changelog. What an expert does who reads the source of Streams:
 * a store that says it has a cache is asked to flush it just before each commit, within the
 * transaction. Changes are folded until then, logged and forwarded once.
 */
abstract class OwnStore implements StateStore, CachedStateStore<Object, Object> {
    private final String name;
    private boolean isOpen;
    private InternalProcessorContext<byte[], byte[]> context;
    private ProcessorNode<?, ?, ?, ?> node;
    private ProcessorRecordContext lastRecord;
    private Runnable atCommit = () -> { };

    OwnStore(String name) {
        this.name = name;
    }

    /** Takes a record of the changelog. */
    abstract void restore(byte[] key, byte[] value);

    /** Says what to do before each commit: within {@code node}, so that it may forward. */
    void beforeCommit(Runnable action) {
        node = context.currentNode();
        atCommit = action;
    }

    /** Something will have to be done before the next commit. */
    void touched() {
        lastRecord = context.recordContext();
    }

    InternalProcessorContext<byte[], byte[]> context() {
        return context;
    }

    void log(byte[] key, byte[] value, long time) {
        context.logChange(name, Bytes.wrap(key), value, time, new RecordHeaders(),
                Position.emptyPosition());
    }

    @Override
    @SuppressWarnings("unchecked")
    public void init(StateStoreContext stateContext, StateStore root) {
        context = (InternalProcessorContext<byte[], byte[]>) stateContext;
        StateRestoreCallback restore = this::restore;
        context.register(root, restore);
        isOpen = true;
    }

    @Override
    public void flushCache() {
        if (lastRecord == null) {
            return;
        }
        ProcessorNode<?, ?, ?, ?> nodeBefore = context.currentNode();
        ProcessorRecordContext recordBefore = context.recordContext();
        context.setCurrentNode(node);
        context.setRecordContext(lastRecord);
        try {
            atCommit.run();
        } finally {
            context.setRecordContext(recordBefore);
            context.setCurrentNode(nodeBefore);
            lastRecord = null;
        }
    }

    @Override
    public boolean setFlushListener(CacheFlushListener<Object, Object> listener, boolean old) {
        return false;
    }

    @Override
    public void clearCache() {}

    @Override
    public String name() {
        return name;
    }

    @Override
    public void close() {
        isOpen = false;
    }

    @Override
    public boolean persistent() {
        return false;
    }

    @Override
    public boolean isOpen() {
        return isOpen;
    }

    /** Builds one store a task. */
    static <S extends OwnStore> StoreBuilder<S> builder(
            String name, Map<String, String> logConfig, java.util.function.Function<String, S> make) {
        return new StoreBuilder<>() {
            @Override
            public StoreBuilder<S> withCachingEnabled() {
                return this;
            }

            @Override
            public StoreBuilder<S> withCachingDisabled() {
                return this;
            }

            @Override
            public StoreBuilder<S> withLoggingEnabled(Map<String, String> config) {
                return this;
            }

            @Override
            public StoreBuilder<S> withLoggingDisabled() {
                return this;
            }

            @Override
            public S build() {
                return make.apply(name);
            }

            @Override
            public Map<String, String> logConfig() {
                return logConfig;
            }

            @Override
            public boolean loggingEnabled() {
                return true;
            }

            @Override
            public String name() {
                return name;
            }
        };
    }
}
