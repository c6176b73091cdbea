// Package calls lets a client be driven by lines of JSON (see remote.py), and be a member of a group (see groups.py).
package calls

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
)

// Header is a record's header; a nil Value is none.
type Header struct {
	Key   string `json:"key"`
	Value []byte `json:"value"`
}

// Record is a record as it is sent or read; a nil Key or Value is none.
type Record struct {
	Partition int32    `json:"partition"`
	Offset    int64    `json:"offset"`
	Key       []byte   `json:"key"`
	Value     []byte   `json:"value"`
	Headers   []Header `json:"headers"`
	Timestamp int64    `json:"timestamp"`
}

// Request is one line of what to do.
type Request struct {
	Do         string            `json:"do"`
	Topic      string            `json:"topic"`
	Group      string            `json:"group"`
	Partition  int32             `json:"partition"`
	Partitions int32             `json:"partitions"`
	Configs    map[string]string `json:"configs"`
	Records    []Record          `json:"records"`
	Codec      string            `json:"codec"`
	Idempotent bool              `json:"idempotent"`
	Start      int64             `json:"start"`
	Count      int               `json:"count"`
	Timestamp  int64             `json:"timestamp"`
	Size       int               `json:"size"`
	Name       string            `json:"name"`
	Value      string            `json:"value"`
	Before     int64             `json:"before"`
}

// Client is what a client must be able to do.
type Client interface {
	Create(topic string, partitions int32, configs map[string]string) error
	Produce(topic string, records []Record, codec string, idempotent bool) ([]int64, error)
	Read(topic string, partition int32, start int64, count int) ([]Record, error)
	OffsetForTime(topic string, partition int32, timestamp int64) (int64, error)
	Bounds(topic string, partition int32) ([2]int64, error)
	// TooLarge says whether the broker (not the client) refuses a value of that size.
	TooLarge(topic string, size int) (bool, error)
	Grow(topic string, partitions int32) error
	Partitions(topic string) (int, error)
	Alter(topic, name, value string) error
	Config(topic, name string) (string, error)
	DeleteRecords(topic string, partition int32, before int64) error
	Brokers() (int, error)
	Delete(topic string) error
	Topics() ([]string, error)
	Groups() ([]string, error)
	Describe(group string) (state string, members int, err error)
	Committed(group, topic string, partition int32) (int64, error)
	DeleteGroup(group string) error
}

// Membership is what the command line says about a member.
type Membership struct {
	Bootstrap, Group, Topic, Assignor, Instance string
}

// SessionSeconds is how long such a member may be silent.
func (m Membership) SessionSeconds() int {
	if m.Instance != "" {
		return 30
	}
	return 10
}

// Main is the entry of a client's program.
func Main(module string, client func(bootstrap string) (Client, error), member func(Membership) error) {
	var err error
	switch args := os.Args[1:]; {
	case len(args) == 1 && args[0] == "version":
		fmt.Println(version(module))
	case len(args) == 2 && args[0] == "calls":
		err = serve(args[1], client)
	case len(args) == 6 && args[0] == "member":
		err = member(Membership{args[1], args[2], args[3], args[4], args[5]})
	default:
		err = fmt.Errorf("cannot be run with %q", args)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func version(module string) string {
	info, _ := debug.ReadBuildInfo()
	for _, dependency := range info.Deps {
		if dependency.Path == module {
			return strings.TrimPrefix(dependency.Version, "v")
		}
	}
	return ""
}

func serve(bootstrap string, open func(string) (Client, error)) error {
	client, err := open(bootstrap)
	if err != nil {
		return err
	}
	lines := bufio.NewReaderSize(os.Stdin, 1<<20)
	answers := json.NewEncoder(os.Stdout)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return nil
		}
		var request Request
		if err := json.Unmarshal(line, &request); err != nil {
			return err
		}
		said := map[string]any{}
		if answer, err := do(client, request); err != nil {
			said["error"] = err.Error()
		} else {
			said["answer"] = answer
		}
		if err := answers.Encode(said); err != nil {
			return err
		}
	}
}

func do(c Client, r Request) (any, error) {
	switch r.Do {
	case "create":
		return nil, c.Create(r.Topic, r.Partitions, r.Configs)
	case "produce":
		return c.Produce(r.Topic, r.Records, r.Codec, r.Idempotent)
	case "read":
		return c.Read(r.Topic, r.Partition, r.Start, r.Count)
	case "time":
		return c.OffsetForTime(r.Topic, r.Partition, r.Timestamp)
	case "bounds":
		return c.Bounds(r.Topic, r.Partition)
	case "too large":
		return c.TooLarge(r.Topic, r.Size)
	case "grow":
		return nil, c.Grow(r.Topic, r.Partitions)
	case "partitions":
		return c.Partitions(r.Topic)
	case "alter":
		return nil, c.Alter(r.Topic, r.Name, r.Value)
	case "config":
		return c.Config(r.Topic, r.Name)
	case "delete records":
		return nil, c.DeleteRecords(r.Topic, r.Partition, r.Before)
	case "brokers":
		return c.Brokers()
	case "delete":
		return nil, c.Delete(r.Topic)
	case "topics":
		return c.Topics()
	case "groups":
		return c.Groups()
	case "describe":
		state, members, err := c.Describe(r.Group)
		return []any{state, members}, err
	case "committed":
		return c.Committed(r.Group, r.Topic, r.Partition)
	case "delete group":
		return nil, c.DeleteGroup(r.Group)
	}
	return nil, fmt.Errorf("nobody can do %q", r.Do)
}
