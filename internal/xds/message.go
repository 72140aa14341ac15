package xds

import (
	"encoding/hex"
	"errors"
	"fmt"
)

// Wildcard is the name that subscribes every resource of a type.
const Wildcard = "*"

// Limits of one stream.
const (
	// MaxNames is how many names may be subscribed per type.
	MaxNames = 10_000
	// maxBacklog is how many names requests may ask for, again and again, while the client leaves a response unanswered.
	maxBacklog = 4 * MaxNames
	// MaxNameBytes is how long a name may be.
	MaxNameBytes = 1024
	// MaxResponseBytes is what a response's resources add up to at most, unless one alone is larger. gRPC clients
	// receive 4 MiB by default.
	MaxResponseBytes = 1 << 20
	// maxPresized is for how many resources a response makes room before it knows how large they are.
	maxPresized = 1024
)

// Errors of [ServerSession.Request]: the client broke a limit, and the stream should end.
var (
	ErrTooManyNames = errors.New("too many names are subscribed")
	ErrNameTooLong  = errors.New("resource name is too long")
)

// Request is a DeltaDiscoveryRequest, or a DiscoveryRequest, in plain terms.
type Request struct {
	Type Type
	// Nonce is that of the response this answers; "" answers none.
	Nonce string
	// Rejected: the answer is a NACK, for the reason Detail.
	Rejected bool
	Detail   string

	// Delta only. InitialVersions are what the client has; only the first request of a type on a stream may say.
	Subscribe, Unsubscribe []string
	InitialVersions        map[string]string

	// Names are all that is subscribed; state of the world only.
	Names []string
}

// Response is a DeltaDiscoveryResponse or a DiscoveryResponse.
type Response struct {
	Type  Type
	Nonce string
	// Version is a hash of the content; state of the world only.
	Version   string
	Resources []Resource
	// Removed are names that do not exist (any more); delta only.
	Removed []string
}

// Answer is what a request said about the response in flight.
type Answer int

// The answers.
const (
	NoAnswer Answer = iota
	Ack
	Nack
)

// foreign stands for content that the client has from elsewhere: it equals no content of ours.
var foreign = Version{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// ParseVersion is the inverse of [Version.String].
func ParseVersion(text string) (Version, bool) {
	var v Version
	if len(text) != 2*len(v) {
		return v, false
	}
	_, err := hex.Decode(v[:], []byte(text))
	return v, err == nil && v != Version{}
}

func checkNames(names []string) error {
	for _, name := range names {
		if len(name) > MaxNameBytes {
			return fmt.Errorf("%w: %d bytes, the limit is %d", ErrNameTooLong, len(name), MaxNameBytes)
		}
	}
	return nil
}
