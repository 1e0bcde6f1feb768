package headrace.bench;

import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Properties;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.io.BinaryDecoder;
import org.apache.avro.io.DecoderFactory;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.Suppressed;
import org.apache.kafka.streams.kstream.Suppressed.BufferConfig;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.state.WindowStore;

/**
 * Kafka Streams for bench.latency: ticks to 1-second bars, bars to orders, through a topic between them.
 *
 * <p>One thread; changelogs as by default, no cache (it would hold bars back until a commit), and producers without
 * linger (its default is 100 ms). A bar closes with the first tick of its partition behind it.
 *
 * <p>Run by the bench: java -cp ... headrace.bench.Latency BOOTSTRAP TICKS BARS ORDERS SCHEMA_FILE STATE_FOLDER
 */
final class Latency {
  private static final int FRAME_BYTES = 5;
  private static final byte[] NO_BAR = new byte[0];

  private final GenericDatumReader<GenericRecord> reader;
  private BinaryDecoder decoder;

  private Latency(Schema schema) {
    this.reader = new GenericDatumReader<>(schema);
  }

  public static void main(String[] arguments) throws Exception {
    Latency latency = new Latency(new Schema.Parser().parse(Files.readString(Path.of(arguments[4]))));
    Properties settings = new Properties();
    settings.put(StreamsConfig.APPLICATION_ID_CONFIG, arguments[3]);
    settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, arguments[0]);
    settings.put(StreamsConfig.STATE_DIR_CONFIG, arguments[5]);
    settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
    settings.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 0);
    settings.put(StreamsConfig.producerPrefix(ProducerConfig.LINGER_MS_CONFIG), 0);
    settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
    settings.put(StreamsConfig.topicPrefix("message.timestamp.after.max.ms"), Long.toString(Long.MAX_VALUE));
    KafkaStreams streams =
        new KafkaStreams(latency.topology(arguments[1], arguments[2], arguments[3]).build(), settings);
    Runtime.getRuntime().addShutdownHook(new Thread(() -> streams.close(Duration.ofSeconds(5))));
    streams.start();
  }

  private StreamsBuilder topology(String ticks, String bars, String orders) {
    StreamsBuilder builder = new StreamsBuilder();
    builder
        .stream(ticks, Consumed.with(Serdes.String(), Serdes.ByteArray()))
        .filter((symbol, value) -> symbol != null && value != null)
        .groupByKey(Grouped.with(Serdes.String(), Serdes.ByteArray()))
        .windowedBy(TimeWindows.ofSizeWithNoGrace(Duration.ofSeconds(1)))
        .aggregate(
            () -> NO_BAR,
            (symbol, value, bar) -> fold(bar, value),
            Materialized.<String, byte[], WindowStore<Bytes, byte[]>>as("bars")
                .withKeySerde(Serdes.String())
                .withValueSerde(Serdes.ByteArray()))
        .suppress(Suppressed.untilWindowCloses(BufferConfig.unbounded()))
        .toStream((window, bar) -> window.key())
        .to(bars, Produced.with(Serdes.String(), Serdes.ByteArray()));
    builder
        .stream(bars, Consumed.with(Serdes.String(), Serdes.ByteArray()))
        .to(orders, Produced.with(Serdes.String(), Serdes.ByteArray()));
    return builder;
  }

  /** A bar is the start (µs) of its window, then open, high, low, close and volume. */
  private byte[] fold(byte[] bar, byte[] value) {
    GenericRecord tick;
    try {
      decoder = DecoderFactory.get().binaryDecoder(value, FRAME_BYTES, value.length - FRAME_BYTES, decoder);
      tick = reader.read(null, decoder);
    } catch (java.io.IOException error) {
      throw new java.io.UncheckedIOException(error);
    }
    double price = (Double) tick.get("price");
    double size = (Double) tick.get("size");
    ByteBuffer next = ByteBuffer.allocate(48);
    if (bar.length == 0) {
      long time = (Long) tick.get("event_time");
      return next.putLong(time - time % 1_000_000)
          .putDouble(price).putDouble(price).putDouble(price).putDouble(price).putDouble(size)
          .array();
    }
    ByteBuffer last = ByteBuffer.wrap(bar);
    return next.putLong(last.getLong())
        .putDouble(last.getDouble())
        .putDouble(Math.max(last.getDouble(), price))
        .putDouble(Math.min(last.getDouble(), price))
        .putDouble(price)
        .putDouble(last.getDouble(40) + size)
        .array();
  }
}
