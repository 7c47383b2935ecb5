import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectWriter;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.common.header.internals.RecordHeaders;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

/** The jobs on Kafka Streams: one processor, an in-memory store with its changelog, one thread. */
public final class KafkaStreamsApp {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final String STORE = "balances";

    public static final class Posted {
        public String account;
        public String tenant;
        public String branch;
        public long amount;
        public String currency;
        public long seq;
        public String memo;
    }

    public static final class Balance {
        public long count;
        public long total;
    }

    public record Balanced(String account, String tenant, String branch, long count, long total, long seq) {}

    private static final class Post implements Processor<String, Posted, String, byte[]> {
        private final ObjectWriter writer = JSON.writerFor(Balanced.class);
        private final boolean tells;
        private ProcessorContext<String, byte[]> context;
        private KeyValueStore<String, Balance> balances;

        Post(boolean tells) {
            this.tells = tells;
        }

        @Override
        public void init(ProcessorContext<String, byte[]> given) {
            context = given;
            balances = given.getStateStore(STORE);
        }

        @Override
        public void process(Record<String, Posted> record) {
            Posted intent = record.value();
            Balance balance = balances.get(record.key());
            if (balance == null) {
                balance = new Balance();
            }
            balance.count += 1;
            balance.total += intent.amount;
            balances.put(record.key(), balance);
            if (tells) {
                context.forward(new Record<>(record.key(), told(intent, balance), record.timestamp(), headers(intent)));
            }
        }

        private byte[] told(Posted intent, Balance balance) {
            try {
                return writer.writeValueAsBytes(new Balanced(
                    intent.account, intent.tenant, intent.branch, balance.count, balance.total, intent.seq));
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
        }

        private static RecordHeaders headers(Posted intent) {
            RecordHeaders headers = new RecordHeaders();
            headers.add("ce_specversion", ascii("1.0"));
            headers.add("ce_type", ascii("bench.balanced.v1"));
            headers.add("ce_source", ascii("/kafka-streams"));
            headers.add("ce_id", ascii(Long.toString(intent.seq)));
            headers.add("content-type", ascii("application/json"));
            return headers;
        }

        private static byte[] ascii(String text) {
            return text.getBytes(StandardCharsets.US_ASCII);
        }
    }

    public static void main(String[] arguments) {
        String output = System.getenv("BENCH_OUTPUT");

        Topology topology = new Topology();
        topology.addSource("posted", new StringDeserializer(), Bench.serde(Posted.class).deserializer(), System.getenv("BENCH_SOURCE"));
        topology.addProcessor("post", () -> new Post(output != null), "posted");
        topology.addStateStore(
            Stores.keyValueStoreBuilder(Stores.inMemoryKeyValueStore(STORE), Serdes.String(), Bench.serde(Balance.class))
                .withLoggingEnabled(Map.of())
                .withCachingEnabled(),
            "post");
        if (output != null) {
            topology.addSink("balanced", output, new StringSerializer(), new ByteArraySerializer(), "post");
        }
        Bench.run(topology, new Properties());
    }
}
