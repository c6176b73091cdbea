// sarama against one broker: see remote.py and groups.py.
package main

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/IBM/sarama"

	"ottla/clients/calls"
)

const (
	wait = 60 * time.Second
	// How long a producer gathers if it does not get all at once: a batch that does not shrink is sent without compression.
	linger         = 500 * time.Millisecond
	largestRequest = 10_000_000
)

type client struct {
	bootstrap []string
	sarama    sarama.Client
	admin     sarama.ClusterAdmin
}

func main() {
	calls.Main("github.com/IBM/sarama", open, member)
}

func config() *sarama.Config {
	config := sarama.NewConfig()
	config.Version = sarama.MaxVersion
	// A fetch that waits keeps what comes behind it on the connection waiting, commits too.
	config.Consumer.MaxWaitTime = 10 * time.Millisecond
	return config
}

func open(bootstrap string) (calls.Client, error) {
	c := &client{bootstrap: []string{bootstrap}}
	var err error
	if c.sarama, err = sarama.NewClient(c.bootstrap, config()); err != nil {
		return nil, err
	}
	c.admin, err = sarama.NewClusterAdminFromClient(c.sarama)
	return c, err
}

func (c *client) Create(topic string, partitions int32, configs map[string]string) error {
	detail := sarama.TopicDetail{NumPartitions: partitions, ReplicationFactor: -1, ConfigEntries: map[string]*string{}}
	for name, value := range configs {
		detail.ConfigEntries[name] = &value
	}
	return c.admin.CreateTopic(topic, &detail, false)
}

func (c *client) Produce(topic string, records []calls.Record, codec string, idempotent bool) ([]int64, error) {
	config := config()
	config.Producer.Flush.Frequency = linger
	config.Producer.Flush.Messages = len(records)
	config.Producer.Idempotent = idempotent
	config.Net.MaxOpenRequests = 1
	codecs := map[string]sarama.CompressionCodec{
		"none": sarama.CompressionNone, "gzip": sarama.CompressionGZIP, "snappy": sarama.CompressionSnappy,
		"lz4": sarama.CompressionLZ4, "zstd": sarama.CompressionZSTD,
	}
	config.Producer.Compression = codecs[codec]
	messages := make([]*sarama.ProducerMessage, len(records))
	for n, record := range records {
		messages[n] = &sarama.ProducerMessage{Topic: topic, Partition: record.Partition, Timestamp: time.UnixMilli(record.Timestamp)}
		if record.Key != nil {
			messages[n].Key = sarama.ByteEncoder(record.Key)
		}
		if record.Value != nil {
			messages[n].Value = sarama.ByteEncoder(record.Value)
		}
		for _, header := range record.Headers {
			messages[n].Headers = append(messages[n].Headers, sarama.RecordHeader{Key: []byte(header.Key), Value: header.Value})
		}
	}
	if err := c.send(config, messages); err != nil {
		return nil, err
	}
	offsets := make([]int64, len(messages))
	for n, message := range messages {
		offsets[n] = message.Offset
	}
	return offsets, nil
}

func (c *client) send(config *sarama.Config, messages []*sarama.ProducerMessage) error {
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Producer.Return.Successes = true
	config.Producer.Partitioner = sarama.NewManualPartitioner
	producer, err := sarama.NewSyncProducer(c.bootstrap, config)
	if err != nil {
		return err
	}
	defer producer.Close()
	return producer.SendMessages(messages)
}

func (c *client) Read(topic string, partition int32, start int64, count int) ([]calls.Record, error) {
	consumer, err := sarama.NewConsumer(c.bootstrap, config())
	if err != nil {
		return nil, err
	}
	defer consumer.Close()
	reader, err := consumer.ConsumePartition(topic, partition, start)
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	got := []calls.Record{}
	for timeout := time.After(wait); len(got) < count; {
		select {
		case m := <-reader.Messages():
			record := calls.Record{Partition: m.Partition, Offset: m.Offset, Key: m.Key, Value: m.Value, Timestamp: m.Timestamp.UnixMilli()}
			for _, header := range m.Headers {
				record.Headers = append(record.Headers, calls.Header{Key: string(header.Key), Value: header.Value})
			}
			got = append(got, record)
		case <-timeout:
			return nil, fmt.Errorf("%d of %d records", len(got), count)
		}
	}
	return got, nil
}

func (c *client) OffsetForTime(topic string, partition int32, timestamp int64) (int64, error) {
	return c.sarama.GetOffset(topic, partition, timestamp)
}

func (c *client) Bounds(topic string, partition int32) ([2]int64, error) {
	start, err := c.sarama.GetOffset(topic, partition, sarama.OffsetOldest)
	if err != nil {
		return [2]int64{}, err
	}
	end, err := c.sarama.GetOffset(topic, partition, sarama.OffsetNewest)
	return [2]int64{start, end}, err
}

func (c *client) TooLarge(topic string, size int) (bool, error) {
	config := config()
	config.Producer.MaxMessageBytes = largestRequest
	err := c.send(config, []*sarama.ProducerMessage{{Topic: topic, Value: sarama.ByteEncoder(make([]byte, size))}})
	var refused sarama.ProducerErrors
	if errors.As(err, &refused) && errors.Is(refused[0].Err, sarama.ErrMessageSizeTooLarge) {
		return true, nil
	}
	return false, err
}

func (c *client) Grow(topic string, partitions int32) error {
	return c.admin.CreatePartitions(topic, partitions, nil, false)
}

func (c *client) Partitions(topic string) (int, error) {
	topics, err := c.admin.DescribeTopics([]string{topic})
	if err != nil {
		return 0, err
	}
	return len(topics[0].Partitions), nil
}

func (c *client) Alter(topic, name, value string) error {
	entries := map[string]sarama.IncrementalAlterConfigsEntry{
		name: {Operation: sarama.IncrementalAlterConfigsOperationSet, Value: &value},
	}
	return c.admin.IncrementalAlterConfig(sarama.TopicResource, topic, entries, false)
}

func (c *client) Config(topic, name string) (string, error) {
	entries, err := c.admin.DescribeConfig(sarama.ConfigResource{Type: sarama.TopicResource, Name: topic, ConfigNames: []string{name}})
	if err != nil || len(entries) != 1 {
		return "", errors.Join(err, fmt.Errorf("%d configs of %s are called %s", len(entries), topic, name))
	}
	return entries[0].Value, nil
}

func (c *client) DeleteRecords(topic string, partition int32, before int64) error {
	return c.admin.DeleteRecords(topic, map[int32]int64{partition: before})
}

func (c *client) Brokers() (int, error) {
	brokers, _, err := c.admin.DescribeCluster()
	return len(brokers), err
}

func (c *client) Delete(topic string) error {
	return c.admin.DeleteTopic(topic)
}

func (c *client) Topics() ([]string, error) {
	topics, err := c.admin.ListTopics()
	names := []string{}
	for name := range topics {
		names = append(names, name)
	}
	return names, err
}

func (c *client) Groups() ([]string, error) {
	groups, err := c.admin.ListConsumerGroups()
	names := []string{}
	for name := range groups {
		names = append(names, name)
	}
	slices.Sort(names)
	return names, err
}

func (c *client) Describe(group string) (string, int, error) {
	groups, err := c.admin.DescribeConsumerGroups([]string{group})
	if err != nil {
		return "", 0, err
	}
	if groups[0].Err != sarama.ErrNoError {
		return "", 0, groups[0].Err
	}
	return groups[0].State, len(groups[0].Members), nil
}

func (c *client) Committed(group, topic string, partition int32) (int64, error) {
	offsets, err := c.admin.ListConsumerGroupOffsets(group, map[string][]int32{topic: {partition}})
	if err != nil {
		return 0, err
	}
	block := offsets.GetBlock(topic, partition)
	if block == nil {
		return 0, fmt.Errorf("nothing about %s %d of %s", topic, partition, group)
	}
	if block.Err != sarama.ErrNoError {
		return 0, block.Err
	}
	return block.Offset, nil
}

func (c *client) DeleteGroup(group string) error {
	return c.admin.DeleteConsumerGroup(group)
}
