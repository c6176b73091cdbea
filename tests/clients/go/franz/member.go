package main

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"ottla/clients/calls"
)

const poll = 100 * time.Millisecond

// seat commits each record that it shows, unless a rebalance is in its way: then a later commit does.
type seat struct {
	*calls.Seat
	topic       string
	uncommitted map[int32]*kgo.Record
	failure     error
}

func member(about calls.Membership) error {
	s := &seat{Seat: calls.NewSeat(), topic: about.Topic, uncommitted: map[int32]*kgo.Record{}}
	options := []kgo.Opt{
		kgo.SeedBrokers(about.Bootstrap), kgo.ConsumerGroup(about.Group), kgo.ConsumeTopics(about.Topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(),
		kgo.SessionTimeout(time.Duration(about.SessionSeconds()) * time.Second), kgo.HeartbeatInterval(500 * time.Millisecond),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, given map[string][]int32) { s.Given(given[s.topic]) }),
		kgo.OnPartitionsRevoked(s.revoked), kgo.OnPartitionsLost(s.lost),
	}
	switch about.Assignor {
	case "range":
		options = append(options, kgo.Balancers(kgo.RangeBalancer()))
	case "cooperative-sticky":
		options = append(options, kgo.Balancers(kgo.CooperativeStickyBalancer()))
	case "consumer":
		options = append(options, kgo.Balancers(kgo.StickyBalancer()), kgo.ServerSideBalancer())
	}
	if about.Instance != "" {
		options = append(options, kgo.InstanceID(about.Instance))
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		return err
	}
	for s.failure == nil && (!s.MustLeave() || len(s.uncommitted) > 0) {
		s.turn(client)
	}
	client.CloseAllowingRebalance()
	return s.failure
}

// turn reads some records and lets the group rebalance.
func (s *seat) turn(client *kgo.Client) {
	defer client.AllowRebalance()
	ctx, cancel := context.WithTimeout(context.Background(), poll)
	defer cancel()
	fetches := client.PollFetches(ctx)
	fetches.EachError(func(_ string, _ int32, err error) {
		if !errors.Is(err, context.DeadlineExceeded) {
			s.failure = err
		}
	})
	fetches.EachRecord(func(record *kgo.Record) {
		if s.failure != nil || s.MustLeave() {
			return
		}
		s.Read(record.Partition, record.Offset, record.Value)
		s.uncommitted[record.Partition] = record
		s.commit(client)
	})
	s.commit(client)
}

func (s *seat) commit(client *kgo.Client) {
	if len(s.uncommitted) == 0 {
		return
	}
	var records []*kgo.Record
	for _, record := range s.uncommitted {
		records = append(records, record)
	}
	err := client.CommitRecords(context.Background(), records...)
	inTheMiddle := errors.Is(err, kerr.RebalanceInProgress) || errors.Is(err, kerr.IllegalGeneration) || errors.Is(err, kerr.StaleMemberEpoch)
	if err == nil {
		clear(s.uncommitted)
	} else if !inTheMiddle {
		s.failure = err
	}
}

func (s *seat) revoked(_ context.Context, client *kgo.Client, taken map[string][]int32) {
	s.commit(client)
	s.Taken(taken[s.topic])
}

func (s *seat) lost(_ context.Context, _ *kgo.Client, lost map[string][]int32) {
	for _, partition := range lost[s.topic] {
		delete(s.uncommitted, partition)
	}
	s.Taken(lost[s.topic])
}
