import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import com.fasterxml.jackson.databind.ObjectWriter;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.Serializer;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;

/** What programs on Kafka Streams share: JSON, and settings out of BENCH_*. */
final class Bench {
    private static final ObjectMapper JSON = new ObjectMapper();

    private Bench() {}

    /** JSON as an object of a class. */
    static <T> Serde<T> serde(Class<T> type) {
        ObjectWriter writer = JSON.writerFor(type);
        ObjectReader reader = JSON.readerFor(type);
        Serializer<T> serializer = (topic, value) -> {
            try {
                return value == null ? null : writer.writeValueAsBytes(value);
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
        };
        Deserializer<T> deserializer = (topic, data) -> {
            try {
                return data == null ? null : reader.readValue(data);
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
        };
        return Serdes.serdeFrom(serializer, deserializer);
    }

    /** Runs a topology on one thread until it is asked to end; with settings of its own. */
    static void run(Topology topology, Properties own) {
        Map<String, String> given = System.getenv();
        Properties settings = new Properties();
        settings.putAll(own);
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, given.get("BENCH_APP"));
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, given.get("BENCH_SERVERS"));
        settings.put(StreamsConfig.STATE_DIR_CONFIG, given.get("BENCH_FOLDER"));
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
        settings.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, given.get("BENCH_GUARANTEE"));
        settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, given.get("BENCH_COMMIT_MS"));
        settings.put(StreamsConfig.consumerPrefix("auto.offset.reset"), "earliest");
        if (given.containsKey("BENCH_LINGER_MS")) {
            settings.put(StreamsConfig.producerPrefix("linger.ms"), given.get("BENCH_LINGER_MS"));
        }

        KafkaStreams streams = new KafkaStreams(topology, settings);
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
        Runtime.getRuntime().addShutdownHook(new Thread(streams::close));
        streams.start();
    }
}
