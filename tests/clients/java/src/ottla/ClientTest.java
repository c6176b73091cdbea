package ottla;

import java.util.Map;
import java.util.Objects;
import org.apache.kafka.clients.admin.Admin;

/**
 * Apache Kafka's Java client against one broker: every scenario prints a result line. Argument: the bootstrap address. With
 * the arguments that `groups.py` names it is a member of a group instead.
 */
public final class ClientTest {
    interface Body {
        void run() throws Exception;
    }

    private ClientTest() {}

    public static void main(String[] arguments) {
        System.setProperty("org.slf4j.simpleLogger.defaultLogLevel", "error");
        if (arguments[0].equals("member")) {
            Member.run(arguments[1], arguments[2], arguments[3], arguments[4], arguments[5]);
        } else {
            scenarios(arguments[0]);
        }
    }

    private static void scenarios(String bootstrap) {
        String prefix = "java-" + Long.toHexString(System.nanoTime());
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", bootstrap))) {
            Data data = new Data(bootstrap, admin);
            for (String codec : new String[] {"none", "gzip", "snappy", "lz4", "zstd"}) {
                String topic = prefix + "-" + codec;
                attempt("round trip, " + codec, topic, codec, () -> data.roundTrip(topic, codec));
            }
            attempt("seek by time", null, null, () -> data.seekByTime(prefix + "-time"));
            attempt("idempotent", null, null, () -> data.idempotent(prefix + "-idempotent"));
            attempt("large values", null, null, () -> data.largeValues(prefix + "-large"));
            attempt("64 partitions", null, null, () -> data.manyPartitions(prefix + "-many"));
            Groups groups = new Groups(bootstrap, admin, data);
            attempt("admin: groups", null, null, () -> groups.administer(prefix + "-groups"));
            Administration administration = new Administration(admin, data);
            attempt("admin: topics", null, null, () -> administration.topics(prefix + "-topics"));
            attempt("admin: partitions", null, null, () -> administration.partitions(prefix + "-partitions"));
            attempt("admin: configs", null, null, () -> administration.configs(prefix + "-configs"));
            attempt("admin: records and offsets", null, null, () -> administration.records(prefix + "-records"));
            attempt("admin: cluster and log dirs", null, null, () -> administration.cluster(prefix + "-cluster"));
        }
    }

    static void expect(String what, Object got, Object wanted) {
        if (!Objects.equals(got, wanted)) {
            throw new AssertionError(what + ": got " + shortened(got) + ", wanted " + shortened(wanted));
        }
    }

    private static String shortened(Object shown) {
        String text = String.valueOf(shown);
        return text.length() > 200 ? text.substring(0, 200) + "..." : text;
    }

    /** Runs one scenario; an exception is its failure. The topic, if named, must hold only batches of that codec. */
    private static void attempt(String scenario, String topic, String codec, Body body) {
        long began = System.nanoTime();
        String detail = "";
        boolean ok = true;
        try {
            body.run();
        } catch (Exception | AssertionError error) {
            error.printStackTrace();
            ok = false;
            detail = error.toString();
        }
        String stored = topic == null || !ok ? "{}" : "{" + quoted(topic) + ": " + quoted(codec) + "}";
        System.out.printf("RESULT {\"scenario\": %s, \"ok\": %b, \"detail\": %s, \"seconds\": %.3f, \"stored\": %s}%n",
                quoted(scenario), ok, quoted(detail), (System.nanoTime() - began) / 1e9, stored);
    }

    private static String quoted(String text) {
        StringBuilder out = new StringBuilder("\"");
        for (char c : text.toCharArray()) {
            out.append(c == '"' || c == '\\' ? "\\" + c : c < ' ' ? " " : String.valueOf(c));
        }
        return out.append('"').toString();
    }
}
