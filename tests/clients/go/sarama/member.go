package main

import (
	"context"
	"time"

	"github.com/IBM/sarama"

	"ottla/clients/calls"
)

// seat commits each record that it shows; sarama runs it in a goroutine for each partition.
type seat struct {
	*calls.Seat
	topic string
}

func member(about calls.Membership) error {
	config := config()
	config.Consumer.Offsets.AutoCommit.Enable = false
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	config.Consumer.Group.Session.Timeout = time.Duration(about.SessionSeconds()) * time.Second
	config.Consumer.Group.Heartbeat.Interval = 500 * time.Millisecond
	config.Consumer.Group.InstanceId = about.Instance
	strategies := map[string]sarama.BalanceStrategy{
		"range": sarama.NewBalanceStrategyRange(), "sticky": sarama.NewBalanceStrategySticky(),
	}
	config.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{strategies[about.Assignor]}
	group, err := sarama.NewConsumerGroup([]string{about.Bootstrap}, about.Group, config)
	if err != nil {
		return err
	}
	s := &seat{calls.NewSeat(), about.Topic}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-s.Leaving
		cancel()
	}()
	for ctx.Err() == nil {
		if err := group.Consume(ctx, []string{about.Topic}, s); err != nil {
			return err
		}
	}
	return group.Close()
}

func (s *seat) Setup(session sarama.ConsumerGroupSession) error {
	s.Given(session.Claims()[s.topic])
	return nil
}

func (s *seat) Cleanup(session sarama.ConsumerGroupSession) error {
	s.Taken(session.Claims()[s.topic])
	return nil
}

func (s *seat) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for message := range claim.Messages() {
		if session.Context().Err() != nil {
			break
		}
		s.Read(message.Partition, message.Offset, message.Value)
		session.MarkMessage(message, "")
		session.Commit()
	}
	return nil
}
