package ottla;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;

/** A record as it is sent, and as it must come back. */
record Sent(byte[] key, byte[] value, List<Header> headers, long timestamp) {
    static final long BASE_TIME = 1_600_000_000_000L;

    static Sent of(String key, String value) {
        return new Sent(bytes(key), bytes(value), List.of(), BASE_TIME);
    }

    static byte[] bytes(String text) {
        return text == null ? null : text.getBytes(StandardCharsets.UTF_8);
    }

    /** Records with every shape of key, value and headers that the format knows. */
    static List<Sent> sample(int count, long seed) {
        Random draw = new Random(seed);
        List<Sent> sample = new ArrayList<>();
        for (int n = 0; n < count; n++) {
            byte[] key = n % 5 == 0 ? null : bytes(n % 11 == 0 ? "" : "key-" + n);
            byte[] value = n % 7 == 3 ? null : n % 13 == 5 ? new byte[0] : compressible(draw);
            List<Header> headers = List.of(
                    new RecordHeader("a", new byte[] {0, -1, (byte) n}), new RecordHeader("a", bytes("again")),
                    new RecordHeader("empty", new byte[0]), new RecordHeader("null", (byte[]) null));
            sample.add(new Sent(key, value, headers.subList(0, n % 5), BASE_TIME + n * 1000L));
        }
        return sample;
    }

    private static byte[] compressible(Random draw) {
        byte[] value = new byte[400];
        for (int i = 0; i < value.length; i++) {
            value[i] = (byte) draw.nextInt(4);
        }
        return value;
    }

    static Sent received(ConsumerRecord<byte[], byte[]> record) {
        return new Sent(record.key(), record.value(), Arrays.asList(record.headers().toArray()), record.timestamp());
    }

    ProducerRecord<byte[], byte[]> to(String topic, int partition) {
        return new ProducerRecord<>(topic, partition, timestamp, key, value, headers);
    }

    @Override
    public boolean equals(Object other) {
        return other instanceof Sent that && Arrays.equals(key, that.key) && Arrays.equals(value, that.value)
                && headers.equals(that.headers) && timestamp == that.timestamp;
    }

    @Override
    public int hashCode() {
        return Arrays.hashCode(key) * 31 + Arrays.hashCode(value);
    }

    @Override
    public String toString() {
        return "key " + Arrays.toString(key) + ", " + (value == null ? "no value" : value.length + " bytes")
                + ", headers " + headers + ", at " + timestamp;
    }
}
