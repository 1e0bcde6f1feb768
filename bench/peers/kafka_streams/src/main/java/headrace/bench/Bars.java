package headrace.bench;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.time.Duration;
import java.util.Locale;
import java.util.Properties;
import org.apache.avro.io.BinaryDecoder;
import org.apache.avro.io.BinaryEncoder;
import org.apache.avro.io.DecoderFactory;
import org.apache.avro.io.EncoderFactory;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.Suppressed;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.state.WindowStore;

/**
 * 1-second bars by Kafka Streams with one thread: a windowed aggregate, suppressed until its window closes.
 *
 * <p>Defaults, but for what the job says of changelog and cache. In its favour the ticks are not read through Avro's
 * generic reader but by hand, and only as far as their size; state is a plain row of numbers.
 *
 * <p>Usage: Bars JOB, a properties file with the fields of bench.peers.job.Job.
 */
public final class Bars {
    private static final int FRAME_BYTES = 5;
    private static final Duration SECOND = Duration.ofSeconds(1);

    record Tick(double price, double size) {}

    record Bar(double open, double high, double low, double close, double volume, long count) {
        static final int BYTES = 6 * Long.BYTES;

        Bar add(Tick tick) {
            double price = tick.price;
            return count == 0
                    ? new Bar(price, price, price, price, tick.size, 1)
                    : new Bar(
                            open,
                            Math.max(high, price),
                            Math.min(low, price),
                            price,
                            volume + tick.size,
                            count + 1);
        }
    }

    private static final Bar EMPTY = new Bar(0, 0, 0, 0, 0, 0);

    /** Leaves the moments of the first and the last record of the timed stretch in a file. */
    private static final class Marks {
        private final long first;
        private final long last;
        private final Path file;
        private long seen;
        private long beganMs;

        Marks(Properties job) {
            first = Long.parseLong(job.getProperty("warm_up"));
            last = first + Long.parseLong(job.getProperty("records"));
            file = Path.of(job.getProperty("marks"));
        }

        void add() {
            seen++;
            if (seen == first) {
                beganMs = System.currentTimeMillis();
            } else if (seen == last) {
                String told =
                        String.format(
                                Locale.ROOT,
                                "{\"records\": %d, \"began_s\": %.3f, \"ended_s\": %.3f}",
                                last - first,
                                beganMs / 1e3,
                                System.currentTimeMillis() / 1e3);
                try {
                    Path draft = file.resolveSibling(file.getFileName() + ".new");
                    Files.writeString(draft, told);
                    Files.move(draft, file, StandardCopyOption.ATOMIC_MOVE);
                } catch (IOException error) {
                    throw new IllegalStateException(error);
                }
            }
        }
    }

    /** Price and size of a tick; null for what is no tick. */
    private static final class TickReader implements Deserializer<Tick> {
        private BinaryDecoder decoder;

        @Override
        public Tick deserialize(String topic, byte[] value) {
            if (value == null) {
                return null;
            }
            try {
                decoder =
                        DecoderFactory.get()
                                .binaryDecoder(value, FRAME_BYTES, value.length - FRAME_BYTES, decoder);
                if (decoder.readIndex() != 0) {
                    return null;
                }
                decoder.skipString(); // symbol
                decoder.skipString(); // source
                decoder.skipString(); // session
                if (decoder.readIndex() != 0) {
                    decoder.readLong(); // sequence
                }
                decoder.readLong(); // event_time, which is the record's timestamp too
                return new Tick(decoder.readDouble(), decoder.readDouble());
            } catch (IOException error) {
                throw new IllegalArgumentException(error);
            }
        }
    }

    private static byte[] pack(Bar bar) {
        return ByteBuffer.allocate(Bar.BYTES)
                .putDouble(bar.open)
                .putDouble(bar.high)
                .putDouble(bar.low)
                .putDouble(bar.close)
                .putDouble(bar.volume)
                .putLong(bar.count)
                .array();
    }

    private static Bar unpack(byte[] packed) {
        ByteBuffer from = ByteBuffer.wrap(packed);
        return new Bar(
                from.getDouble(),
                from.getDouble(),
                from.getDouble(),
                from.getDouble(),
                from.getDouble(),
                from.getLong());
    }

    /** A closed bar as Avro: bench.peers.job.BAR_SCHEMA. */
    private static byte[] written(String symbol, long startMs, Bar bar) {
        byte[] name = symbol.getBytes(StandardCharsets.UTF_8);
        var out = new java.io.ByteArrayOutputStream(name.length + 64);
        BinaryEncoder encoder = EncoderFactory.get().directBinaryEncoder(out, null);
        try {
            encoder.writeBytes(name);
            encoder.writeLong(startMs * 1_000);
            for (double value : new double[] {bar.open, bar.high, bar.low, bar.close, bar.volume}) {
                encoder.writeDouble(value);
            }
            encoder.writeLong(bar.count);
        } catch (IOException error) {
            throw new IllegalStateException(error);
        }
        return out.toByteArray();
    }

    public static void main(String[] arguments) throws IOException {
        Properties job = new Properties();
        try (var reader = Files.newBufferedReader(Path.of(arguments[0]))) {
            job.load(reader);
        }
        boolean logged = !"off".equals(job.getProperty("changelog"));
        String cacheBytes = job.getProperty("cache_bytes");

        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, job.getProperty("group"));
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, job.getProperty("bootstrap"));
        settings.put(StreamsConfig.STATE_DIR_CONFIG, job.getProperty("folder"));
        settings.put("auto.offset.reset", "earliest");
        if (cacheBytes != null) {
            settings.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, cacheBytes);
        }

        Serde<Tick> ticks = Serdes.serdeFrom((topic, tick) -> null, new TickReader());
        Serde<Bar> bars = Serdes.serdeFrom((topic, bar) -> pack(bar), (topic, packed) -> unpack(packed));
        Materialized<String, Bar, WindowStore<Bytes, byte[]>> store =
                Materialized.<String, Bar, WindowStore<Bytes, byte[]>>as("bars")
                        .withKeySerde(Serdes.String())
                        .withValueSerde(bars);
        var buffer = Suppressed.BufferConfig.unbounded();
        if (!logged) {
            store.withLoggingDisabled();
            buffer = buffer.withLoggingDisabled();
        }
        Marks marks = new Marks(job);
        StreamsBuilder builder = new StreamsBuilder();
        builder.stream(job.getProperty("ticks"), Consumed.with(Serdes.String(), ticks))
                .filter((symbol, tick) -> tick != null)
                .peek((symbol, tick) -> marks.add())
                .groupByKey(Grouped.with(Serdes.String(), ticks))
                .windowedBy(TimeWindows.ofSizeWithNoGrace(SECOND))
                .aggregate(() -> EMPTY, (symbol, tick, bar) -> bar.add(tick), store)
                .suppress(Suppressed.untilWindowCloses(buffer))
                .toStream()
                .map((key, bar) -> KeyValue.pair(key.key(), written(key.key(), key.window().start(), bar)))
                .to(job.getProperty("bars"), Produced.with(Serdes.String(), Serdes.ByteArray()));

        KafkaStreams streams = new KafkaStreams(builder.build(), settings);
        streams.setUncaughtExceptionHandler(
                error -> {
                    error.printStackTrace();
                    return org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler
                            .StreamThreadExceptionResponse.SHUTDOWN_APPLICATION;
                });
        Runtime.getRuntime().addShutdownHook(new Thread(() -> streams.close(Duration.ofSeconds(15))));
        streams.start();
    }
}
