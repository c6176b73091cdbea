package calls

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
)

// Seat is what a member has, and tells when it must leave. It may be used by many goroutines.
type Seat struct {
	// Leaving is closed when the standard input ends.
	Leaving    chan struct{}
	mutex      sync.Mutex
	partitions []int32
}

// NewSeat watches the standard input.
func NewSeat() *Seat {
	seat := &Seat{Leaving: make(chan struct{})}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(seat.Leaving)
	}()
	return seat
}

// MustLeave says whether the standard input has ended.
func (s *Seat) MustLeave() bool {
	select {
	case <-s.Leaving:
		return true
	default:
		return false
	}
}

// Given shows partitions that the member has from now on.
func (s *Seat) Given(partitions []int32) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.partitions = append(s.partitions, partitions...)
	s.show()
}

// Taken shows that the member has these partitions no longer.
func (s *Seat) Taken(partitions []int32) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.partitions = slices.DeleteFunc(s.partitions, func(p int32) bool { return slices.Contains(partitions, p) })
	s.show()
}

// Read shows a record.
func (s *Seat) Read(partition int32, offset int64, value []byte) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	fmt.Println("READ", partition, offset, string(value))
}

func (s *Seat) show() {
	slices.Sort(s.partitions)
	words := []string{"ASSIGNED"}
	for _, partition := range s.partitions {
		words = append(words, fmt.Sprint(partition))
	}
	fmt.Println(strings.Join(words, " "))
}
