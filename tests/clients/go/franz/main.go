// franz-go against one broker: see remote.py and groups.py.
package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"ottla/clients/calls"
)

const (
	wait = 60 * time.Second
	// How long a producer gathers, until it is flushed: a batch that does not shrink is sent without compression.
	linger         = 500 * time.Millisecond
	largestRequest = 10_000_000
)

type franz struct {
	bootstrap string
	admin     *kadm.Client
}

func main() {
	calls.Main("github.com/twmb/franz-go", open, member)
}

func open(bootstrap string) (calls.Client, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(bootstrap))
	if err != nil {
		return nil, err
	}
	return &franz{bootstrap, kadm.NewClient(client)}, nil
}

func (f *franz) within() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), wait)
}

func (f *franz) Create(topic string, partitions int32, configs map[string]string) error {
	ctx, cancel := f.within()
	defer cancel()
	given := map[string]*string{}
	for name, value := range configs {
		given[name] = &value
	}
	_, err := f.admin.CreateTopic(ctx, partitions, -1, given, topic)
	return err
}

func (f *franz) Produce(topic string, records []calls.Record, codec string, idempotent bool) ([]int64, error) {
	codecs := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}
	options := []kgo.Opt{kgo.ProducerBatchCompression(codecs[codec]), kgo.ProducerLinger(linger)}
	if !idempotent {
		options = append(options, kgo.DisableIdempotentWrite())
	}
	sent := make([]*kgo.Record, len(records))
	for n, record := range records {
		sent[n] = &kgo.Record{
			Topic: topic, Partition: record.Partition, Key: record.Key, Value: record.Value,
			Timestamp: time.UnixMilli(record.Timestamp),
		}
		for _, header := range record.Headers {
			sent[n].Headers = append(sent[n].Headers, kgo.RecordHeader{Key: header.Key, Value: header.Value})
		}
	}
	if err := f.send(sent, options...); err != nil {
		return nil, err
	}
	offsets := make([]int64, len(sent))
	for n, record := range sent {
		offsets[n] = record.Offset
	}
	return offsets, nil
}

func (f *franz) send(records []*kgo.Record, options ...kgo.Opt) error {
	options = append(options, kgo.SeedBrokers(f.bootstrap), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	client, err := kgo.NewClient(options...)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := f.within()
	defer cancel()
	var failures []error
	var mutex sync.Mutex
	for _, record := range records {
		client.Produce(ctx, record, func(_ *kgo.Record, err error) {
			mutex.Lock()
			defer mutex.Unlock()
			failures = append(failures, err)
		})
	}
	err = client.Flush(ctx)
	mutex.Lock()
	defer mutex.Unlock()
	return errors.Join(append(failures, err)...)
}

func (f *franz) Read(topic string, partition int32, start int64, count int) ([]calls.Record, error) {
	from := map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().At(start)}}
	client, err := kgo.NewClient(kgo.SeedBrokers(f.bootstrap), kgo.ConsumePartitions(from))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	ctx, cancel := f.within()
	defer cancel()
	got := []calls.Record{}
	for len(got) < count {
		fetches := client.PollRecords(ctx, count-len(got))
		if err := fetches.Err(); err != nil {
			return nil, fmt.Errorf("%d of %d records: %w", len(got), count, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			record := calls.Record{
				Partition: r.Partition, Offset: r.Offset, Key: r.Key, Value: r.Value, Timestamp: r.Timestamp.UnixMilli(),
			}
			for _, header := range r.Headers {
				record.Headers = append(record.Headers, calls.Header{Key: header.Key, Value: header.Value})
			}
			got = append(got, record)
		})
	}
	return got, nil
}

func (f *franz) OffsetForTime(topic string, partition int32, timestamp int64) (int64, error) {
	ctx, cancel := f.within()
	defer cancel()
	listed, err := f.admin.ListOffsetsAfterMilli(ctx, timestamp, topic)
	if err != nil {
		return 0, err
	}
	found, _ := listed.Lookup(topic, partition)
	// For a time behind the last record kadm gives the end, without a timestamp.
	if found.Timestamp < 0 {
		return -1, found.Err
	}
	return found.Offset, found.Err
}

func (f *franz) Bounds(topic string, partition int32) ([2]int64, error) {
	ctx, cancel := f.within()
	defer cancel()
	starts, err := f.admin.ListStartOffsets(ctx, topic)
	if err != nil {
		return [2]int64{}, err
	}
	ends, err := f.admin.ListEndOffsets(ctx, topic)
	start, _ := starts.Lookup(topic, partition)
	end, _ := ends.Lookup(topic, partition)
	return [2]int64{start.Offset, end.Offset}, errors.Join(err, start.Err, end.Err)
}

func (f *franz) TooLarge(topic string, size int) (bool, error) {
	record := &kgo.Record{Topic: topic, Value: make([]byte, size)}
	uncompressed := kgo.ProducerBatchCompression(kgo.NoCompression())
	err := f.send([]*kgo.Record{record}, uncompressed, kgo.ProducerBatchMaxBytes(largestRequest))
	if err == nil || errors.Is(err, kerr.MessageTooLarge) {
		return err != nil, nil
	}
	return false, err
}

func (f *franz) Grow(topic string, partitions int32) error {
	ctx, cancel := f.within()
	defer cancel()
	grown, err := f.admin.UpdatePartitions(ctx, int(partitions), topic)
	return errors.Join(err, grown.Error())
}

func (f *franz) Partitions(topic string) (int, error) {
	ctx, cancel := f.within()
	defer cancel()
	topics, err := f.admin.ListTopics(ctx, topic)
	return len(topics[topic].Partitions), errors.Join(err, topics.Error())
}

func (f *franz) Alter(topic, name, value string) error {
	ctx, cancel := f.within()
	defer cancel()
	altered, err := f.admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: name, Value: &value}}, topic)
	if err != nil {
		return err
	}
	_, err = altered.On(topic, func(r *kadm.AlterConfigsResponse) error { return r.Err })
	return err
}

func (f *franz) Config(topic, name string) (string, error) {
	ctx, cancel := f.within()
	defer cancel()
	described, err := f.admin.DescribeTopicConfigs(ctx, topic)
	if err != nil {
		return "", err
	}
	configs, err := described.On(topic, func(r *kadm.ResourceConfig) error { return r.Err })
	for _, config := range configs.Configs {
		if config.Key == name {
			return config.MaybeValue(), err
		}
	}
	return "", errors.Join(err, fmt.Errorf("%s has no %s", topic, name))
}

func (f *franz) DeleteRecords(topic string, partition int32, before int64) error {
	ctx, cancel := f.within()
	defer cancel()
	var offsets kadm.Offsets
	offsets.AddOffset(topic, partition, before, -1)
	deleted, err := f.admin.DeleteRecords(ctx, offsets)
	return errors.Join(err, deleted.Error())
}

func (f *franz) Brokers() (int, error) {
	ctx, cancel := f.within()
	defer cancel()
	metadata, err := f.admin.BrokerMetadata(ctx)
	return len(metadata.Brokers), err
}

func (f *franz) Delete(topic string) error {
	ctx, cancel := f.within()
	defer cancel()
	_, err := f.admin.DeleteTopic(ctx, topic)
	return err
}

func (f *franz) Topics() ([]string, error) {
	ctx, cancel := f.within()
	defer cancel()
	topics, err := f.admin.ListTopics(ctx)
	return topics.Names(), err
}

func (f *franz) Groups() ([]string, error) {
	ctx, cancel := f.within()
	defer cancel()
	groups, err := f.admin.ListGroups(ctx)
	return groups.Groups(), err
}

func (f *franz) Describe(group string) (string, int, error) {
	ctx, cancel := f.within()
	defer cancel()
	groups, err := f.admin.DescribeGroups(ctx, group)
	return groups[group].State, len(groups[group].Members), errors.Join(err, groups[group].Err)
}

func (f *franz) Committed(group, topic string, partition int32) (int64, error) {
	ctx, cancel := f.within()
	defer cancel()
	offsets, err := f.admin.FetchOffsets(ctx, group)
	found, _ := offsets.Lookup(topic, partition)
	return found.At, errors.Join(err, found.Err)
}

func (f *franz) DeleteGroup(group string) error {
	ctx, cancel := f.within()
	defer cancel()
	_, err := f.admin.DeleteGroup(ctx, group)
	return err
}
