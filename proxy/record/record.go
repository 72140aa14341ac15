package record

import (
	"net/netip"
	"time"
)

// Observer is told of every finished exchange, from the goroutine that served it. It must not block, must be safe
// for concurrent use, and must copy (strings.Clone) whatever it keeps.
type Observer interface{ Observe(*Record) }

// Opener is an Observer that is told, too, of TCP connections that have been opened to an upstream; the record is not
// finished. The connection's last record has Opened set.
type Opener interface{ Open(*Record) }

// Reporter says which side of the exchange the proxy stood on, as Istio's label of that name.
type Reporter uint8

// The sides.
const (
	Source      Reporter = iota // outbound: the application called
	Destination                 // inbound: the application was called
)

// Protocol of an exchange.
type Protocol uint8

// The protocols.
const (
	HTTP1 Protocol = iota
	HTTP2
	GRPC
	TCP
)

// Record is one finished request, or one finished TCP connection.
type Record struct {
	Reporter Reporter
	Protocol Protocol
	Listener string

	Start    time.Time
	Duration time.Duration // whole exchange
	// Request is the time until the request was sent upstream in full, Upstream until the response's first byte,
	// both from Start; 0: it did not come to that.
	Request, Upstream time.Duration

	Method    string // empty for TCP
	Authority string // as the client sent it
	Path      string // normalised, with query; before rewrites
	RequestID string
	UserAgent string
	Code      int // response status; 0 for TCP, or when the client left before there was one
	GRPC      int // grpc-status, -1: none
	Flags     Flags
	// Details says in Envoy's words where the response came from: "via_upstream", "route_not_found", ...
	Details string
	// RequestBytes and ResponseBytes count bodies; of a TCP connection or tunnel, all bytes.
	RequestBytes, ResponseBytes int64

	// Opened: an Opener was told of this TCP connection.
	Opened bool

	Route        string
	Cluster      string // Envoy cluster
	Attempts     int
	Host         Upstream // the last attempt's endpoint
	Peer         string   // verified SPIFFE ID of the other side: the server's outbound, the client's inbound
	Own          string   // own SPIFFE ID, where TLS was used
	MutualTLS    bool
	Downstream   netip.AddrPort
	LocalAddress netip.AddrPort
	ServerName   string // SNI
}

// Upstream is the endpoint that the last attempt went to.
type Upstream struct {
	Address               netip.AddrPort // invalid: none was picked
	Region, Zone, Subzone string
	Cluster               string // mesh cluster of the endpoint, "" if unknown
	Workload              string
	Gateway               bool
	Priority              uint32
}

// Flags are Envoy's response flags, as a set.
type Flags uint32

// The flags, in the order in which they are written.
const (
	NoHealthyUpstream     Flags = 1 << iota // UH
	ConnectFailure                          // UF
	Overflow                                // UO
	NoRoute                                 // NR
	RetryLimit                              // URX
	NoCluster                               // NC
	DownstreamGone                          // DC
	LocalReset                              // LR
	RemoteReset                             // UR
	ConnectionTermination                   // UC
	Timeout                                 // UT
	StreamIdle                              // SI
	DownstreamProtocol                      // DPE
	UpstreamProtocol                        // UPE
	DurationTimeout                         // DT
	Denied                                  // UAEX
	Overload                                // OM
	Dropped                                 // DO: by drop_overloads
)

// names is indexed by the bit.
var names = [...]string{"UH", "UF", "UO", "NR", "URX", "NC", "DC", "LR", "UR", "UC", "UT", "SI", "DPE", "UPE", "DT", "UAEX", "OM", "DO"}

// AppendTo appends the flags as Envoy writes them: short names with commas, or "-".
func (f Flags) AppendTo(b []byte) []byte {
	if f == 0 {
		return append(b, '-')
	}
	start := len(b)
	for i, name := range names {
		if f&(1<<i) == 0 {
			continue
		}
		if len(b) > start {
			b = append(b, ',')
		}
		b = append(b, name...)
	}
	return b
}

func (f Flags) String() string { return string(f.AppendTo(nil)) }
