package xds

// Status is how far a client is with one type, in the words of proxy-status.
type Status string

// The states of a type on a stream.
const (
	Synced  Status = "SYNCED"   // everything sent was accepted
	Stale   Status = "STALE"    // sent and not answered yet
	NotSent Status = "NOT SENT" // nothing was sent
	Error   Status = "ERROR"    // the last answer was a rejection
)

// TypeStatus describes one type of a [ServerSession].
type TypeStatus struct {
	Type   Type
	Status Status
	// Resources is how many resources the client was sent and not told to remove.
	Resources int
	// Detail is the client's reason for the last rejection; "" if the last answer was no rejection.
	Detail string
}
