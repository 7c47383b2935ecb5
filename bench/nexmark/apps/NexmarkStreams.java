import java.time.Duration;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.Properties;
import java.util.Set;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.EmitStrategy;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.KGroupedStream;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.KTable;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.SessionWindows;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.processor.TimestampExtractor;
import org.apache.kafka.streams.processor.WallclockTimestampExtractor;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.SessionStore;
import org.apache.kafka.streams.state.WindowStore;

/** The queries in the DSL of Kafka Streams, with its own stores; BENCH_QUERY says which one. */
public final class NexmarkStreams {
    private static final Duration TEN_SECONDS = Duration.ofSeconds(10);
    /** A repartition topic has the records of several partitions in no order: its windows wait for what lags behind, and tell updates. */
    private static final Duration APART = Duration.ofDays(2);

    // What is read.

    interface Event {
        long timeMs();
    }

    public record Person(
            long time_ms, long id, String name, String email, String credit_card, String city, String state,
            String extra) implements Event {
        public long timeMs() {
            return time_ms;
        }
    }

    public record Auction(
            long time_ms, long id, String item, String description, long initial, long reserve, long expires_ms,
            long seller, long category, String extra) implements Event {
        public long timeMs() {
            return time_ms;
        }
    }

    public record Bid(long time_ms, long auction, long bidder, long price, String extra) implements Event {
        public long timeMs() {
            return time_ms;
        }
    }

    // What comes of it.

    public record Item(long auction, long bidder, long price, long time_ms) {}

    public record Price(long auction, long price) {}

    public record Offer(long id, String name, String city, String state) {}

    public record OfCategory(long category, double price) {}

    public record OfSeller(long seller, double price) {}

    public record Hottest(long start_ms, long bids, List<Long> auctions) {}

    public record Highest(long start_ms, long price, List<List<Long>> bids) {}

    public record Newcomer(long id, long start_ms, String name) {}

    public record Session(long bidder, long start_ms, long end_ms, long bids) {}

    public record Count(long bidder, long start_ms, long bids) {}

    // What is kept.

    public record Counted(long auction, long bids) {}

    public record Seller(String name, boolean sells) {}

    public record Sold(long id, long seller, long category, long expires_ms, long price) {}

    public record Mean(long total, long count) {}

    public record Last(List<Sold> sold) {}

    /** An auction and its best bid, or the bids that came before the auction did. */
    public record Lot(Auction auction, long best, List<Item> early) {
        Lot with(Bid bid) {
            if (auction == null) {
                List<Item> more = new ArrayList<>(early);
                more.add(new Item(bid.auction(), bid.bidder(), bid.price(), bid.time_ms()));
                return new Lot(null, 0, more);
            }
            boolean counts = bid.time_ms() >= auction.time_ms() && bid.time_ms() <= auction.expires_ms();
            return counts && bid.price() > best ? new Lot(auction, bid.price(), early) : this;
        }

        Lot with(Auction given) {
            long most = 0;
            for (Item bid : early) {
                if (bid.time_ms() >= given.time_ms() && bid.time_ms() <= given.expires_ms()) {
                    most = Math.max(most, bid.price());
                }
            }
            return new Lot(given, most, List.of());
        }
    }

    private final StreamsBuilder builder = new StreamsBuilder();

    private void build(String query) {
        switch (query) {
            case "q0" -> bids()
                .mapValues(bid -> new Item(bid.auction(), bid.bidder(), bid.price(), bid.time_ms()))
                .to(output(), produced(Item.class));
            case "q1" -> bids()
                .mapValues(bid -> new Item(bid.auction(), bid.bidder(), bid.price() * 89 / 100, bid.time_ms()))
                .to(output(), produced(Item.class));
            case "q2" -> bids()
                .filter((key, bid) -> bid.auction() % 123 == 0)
                .mapValues(bid -> new Price(bid.auction(), bid.price()))
                .to(output(), produced(Price.class));
            case "q3" -> localItems();
            case "q4" -> averageOfCategory();
            case "q5" -> hottest();
            case "q6" -> averageOfSeller();
            case "q7" -> highest();
            case "q8" -> newcomers();
            case "q11" -> sessions();
            case "q12" -> counts();
            default -> throw new IllegalArgumentException("no query " + query);
        }
    }

    private void localItems() {
        Set<String> states = Set.of("OR", "ID", "CA");
        KTable<String, Person> people = persons()
            .filter((key, person) -> states.contains(person.state()))
            .toTable(Materialized.with(Serdes.String(), Bench.serde(Person.class)));
        KTable<String, Auction> auctions = auctions()
            .filter((key, auction) -> auction.category() == 10)
            .toTable(Materialized.with(Serdes.String(), Bench.serde(Auction.class)));
        auctions
            .join(
                people,
                auction -> Long.toString(auction.seller()),
                (auction, person) -> new Offer(auction.id(), person.name(), person.city(), person.state()),
                Materialized.with(Serdes.String(), Bench.serde(Offer.class)))
            .toStream()
            .to(output(), produced(Offer.class));
    }

    private KTable<String, Sold> sold() {
        KGroupedStream<String, Bid> bids = bids().groupByKey(Grouped.with(Serdes.String(), Bench.serde(Bid.class)));
        KGroupedStream<String, Auction> auctions =
            auctions().groupByKey(Grouped.with(Serdes.String(), Bench.serde(Auction.class)));
        return bids
            .<Lot>cogroup((key, bid, lot) -> lot.with(bid))
            .cogroup(auctions, (key, auction, lot) -> lot.with(auction))
            .aggregate(
                () -> new Lot(null, 0, List.of()),
                Materialized.<String, Lot, KeyValueStore<Bytes, byte[]>>with(Serdes.String(), Bench.serde(Lot.class)))
            .filter((key, lot) -> lot.auction() != null && lot.best() > 0)
            .mapValues(lot -> new Sold(
                lot.auction().id(), lot.auction().seller(), lot.auction().category(), lot.auction().expires_ms(),
                lot.best()));
    }

    private void averageOfCategory() {
        sold()
            .groupBy(
                (key, sold) -> KeyValue.pair(Long.toString(sold.category()), sold),
                Grouped.with(Serdes.String(), Bench.serde(Sold.class)))
            .aggregate(
                () -> new Mean(0, 0),
                (key, sold, mean) -> new Mean(mean.total() + sold.price(), mean.count() + 1),
                (key, sold, mean) -> new Mean(mean.total() - sold.price(), mean.count() - 1),
                Materialized.with(Serdes.String(), Bench.serde(Mean.class)))
            .toStream()
            .filter((key, mean) -> mean.count() > 0)
            .map((key, mean) -> KeyValue.pair(
                key, new OfCategory(Long.parseLong(key), (double) mean.total() / mean.count())))
            .to(output(), produced(OfCategory.class));
    }

    private void averageOfSeller() {
        Comparator<Sold> ends = Comparator.comparingLong(Sold::expires_ms).thenComparingLong(Sold::id);
        sold()
            .groupBy(
                (key, sold) -> KeyValue.pair(Long.toString(sold.seller()), sold),
                Grouped.with(Serdes.String(), Bench.serde(Sold.class)))
            .aggregate(
                () -> new Last(List.of()),
                (key, sold, last) -> {
                    List<Sold> all = new ArrayList<>(last.sold());
                    all.add(sold);
                    all.sort(ends);
                    return new Last(all.subList(Math.max(0, all.size() - 10), all.size()));
                },
                // What is taken away comes again with another price, so that nothing is missed that was one of eleven.
                (key, sold, last) -> new Last(last.sold().stream().filter(one -> one.id() != sold.id()).toList()),
                Materialized.with(Serdes.String(), Bench.serde(Last.class)))
            .toStream()
            .filter((key, last) -> !last.sold().isEmpty())
            .map((key, last) -> KeyValue.pair(
                key,
                new OfSeller(
                    Long.parseLong(key),
                    (double) last.sold().stream().mapToLong(Sold::price).sum() / last.sold().size())))
            .to(output(), produced(OfSeller.class));
    }

    private void hottest() {
        bids()
            .groupByKey(Grouped.with(Serdes.String(), Bench.serde(Bid.class)))
            .windowedBy(TimeWindows.ofSizeWithNoGrace(TEN_SECONDS).advanceBy(Duration.ofSeconds(2)))
            .emitStrategy(EmitStrategy.onWindowClose())
            .count(Materialized.<String, Long, WindowStore<Bytes, byte[]>>with(Serdes.String(), Serdes.Long()))
            .toStream()
            .map((window, bids) -> KeyValue.pair(
                Long.toString(window.window().start()), new Counted(Long.parseLong(window.key()), bids)))
            .groupByKey(Grouped.with(Serdes.String(), Bench.serde(Counted.class)))
            .aggregate(
                () -> new Hottest(0, 0, List.of()),
                (start, one, hottest) -> {
                    if (one.bids() < hottest.bids()) {
                        return hottest;
                    }
                    List<Long> auctions = new ArrayList<>(one.bids() > hottest.bids() ? List.of() : hottest.auctions());
                    auctions.add(one.auction());
                    return new Hottest(Long.parseLong(start), one.bids(), auctions);
                },
                Materialized.with(Serdes.String(), Bench.serde(Hottest.class)))
            .toStream()
            .to(output(), produced(Hottest.class));
    }

    private void highest() {
        bids()
            .groupByKey(Grouped.with(Serdes.String(), Bench.serde(Bid.class)))
            .windowedBy(TimeWindows.ofSizeWithNoGrace(TEN_SECONDS))
            .emitStrategy(EmitStrategy.onWindowClose())
            .aggregate(
                () -> new Highest(0, 0, List.of()),
                (key, bid, highest) -> higher(
                    highest, new Highest(0, bid.price(), List.of(List.of(bid.auction(), bid.bidder())))),
                Materialized.<String, Highest, WindowStore<Bytes, byte[]>>with(Serdes.String(), Bench.serde(Highest.class)))
            .toStream()
            .map((window, highest) -> KeyValue.pair(
                Long.toString(window.window().start()),
                new Highest(window.window().start(), highest.price(), highest.bids())))
            .groupByKey(Grouped.with(Serdes.String(), Bench.serde(Highest.class)))
            .reduce(NexmarkStreams::higher, Materialized.with(Serdes.String(), Bench.serde(Highest.class)))
            .toStream()
            .to(output(), produced(Highest.class));
    }

    private static Highest higher(Highest one, Highest other) {
        if (one.price() != other.price()) {
            return one.price() > other.price() ? one : other;
        }
        List<List<Long>> bids = new ArrayList<>(one.bids());
        bids.addAll(other.bids());
        return new Highest(one.start_ms(), one.price(), bids);
    }

    private void newcomers() {
        KGroupedStream<String, Person> people = persons().groupByKey(Grouped.with(Serdes.String(), Bench.serde(Person.class)));
        KGroupedStream<String, Long> auctions = auctions()
            .map((key, auction) -> KeyValue.pair(Long.toString(auction.seller()), auction.id()))
            .groupByKey(Grouped.with(Serdes.String(), Serdes.Long()));
        people
            .<Seller>cogroup((key, person, seller) -> new Seller(person.name(), seller.sells()))
            .cogroup(auctions, (key, auction, seller) -> new Seller(seller.name(), true))
            .windowedBy(TimeWindows.ofSizeAndGrace(TEN_SECONDS, APART))
            .aggregate(
                () -> new Seller(null, false),
                Materialized.<String, Seller, WindowStore<Bytes, byte[]>>with(Serdes.String(), Bench.serde(Seller.class)))
            .toStream()
            .filter((window, seller) -> seller.name() != null && seller.sells())
            .map((window, seller) -> KeyValue.pair(
                window.key(), new Newcomer(Long.parseLong(window.key()), window.window().start(), seller.name())))
            .to(output(), produced(Newcomer.class));
    }

    private void sessions() {
        bids()
            .map((key, bid) -> KeyValue.pair(Long.toString(bid.bidder()), bid.price()))
            .groupByKey(Grouped.with(Serdes.String(), Serdes.Long()))
            // A pause of the gap itself does not end a session here, and does in the query.
            .windowedBy(SessionWindows.ofInactivityGapAndGrace(TEN_SECONDS.minusMillis(1), APART))
            .count(Materialized.<String, Long, SessionStore<Bytes, byte[]>>with(Serdes.String(), Serdes.Long()))
            .toStream()
            .filter((window, bids) -> bids != null)
            .map((window, bids) -> KeyValue.pair(
                window.key(),
                new Session(
                    Long.parseLong(window.key()), window.window().start(),
                    window.window().end() + TEN_SECONDS.toMillis(), bids)))
            .to(output(), produced(Session.class));
    }

    private void counts() {
        stream("bids", Bid.class, new WallclockTimestampExtractor())
            .map((key, bid) -> KeyValue.pair(Long.toString(bid.bidder()), bid.price()))
            .groupByKey(Grouped.with(Serdes.String(), Serdes.Long()))
            .windowedBy(TimeWindows.ofSizeAndGrace(TEN_SECONDS, APART))
            .count(Materialized.<String, Long, WindowStore<Bytes, byte[]>>with(Serdes.String(), Serdes.Long()))
            .toStream()
            .map((window, bids) -> KeyValue.pair(
                window.key(), new Count(Long.parseLong(window.key()), window.window().start(), bids)))
            .to(output(), produced(Count.class));
    }

    private KStream<String, Person> persons() {
        return stream("persons", Person.class, NexmarkStreams::eventTime);
    }

    private KStream<String, Auction> auctions() {
        return stream("auctions", Auction.class, NexmarkStreams::eventTime);
    }

    private KStream<String, Bid> bids() {
        return stream("bids", Bid.class, NexmarkStreams::eventTime);
    }

    private <T> KStream<String, T> stream(String name, Class<T> type, TimestampExtractor time) {
        String topic = System.getenv("BENCH_" + name.toUpperCase());
        return builder.stream(topic, Consumed.with(Serdes.String(), Bench.serde(type)).withTimestampExtractor(time));
    }

    private static long eventTime(ConsumerRecord<Object, Object> record, long before) {
        return ((Event) record.value()).timeMs();
    }

    private String output() {
        return System.getenv("BENCH_OUTPUT");
    }

    private static <T> Produced<String, T> produced(Class<T> type) {
        return Produced.with(Serdes.String(), Bench.serde(type));
    }

    public static void main(String[] arguments) {
        NexmarkStreams nexmark = new NexmarkStreams();
        nexmark.build(System.getenv("BENCH_QUERY"));
        Properties settings = new Properties();
        // Windows that close are told at once. By default that happens once a second, and of those that close with the last
        // record never.
        settings.put(StreamsConfig.InternalConfig.EMIT_INTERVAL_MS_KSTREAMS_WINDOWED_AGGREGATION, 0);
        Bench.run(nexmark.builder.build(), settings);
    }
}
