package mesh

import (
	"fmt"
	"strings"
)

// Kind is the first part of a key: which table an object belongs to.
type Kind string

// The kinds. Order of the parts in each key is chosen for the commonest scan.
const (
	KindCluster        Kind = "cluster"    // cluster/<id>
	KindService        Kind = "service"    // service/<ns>/<name>/<cluster>
	KindEndpoints      Kind = "endpoints"  // endpoints/<ns>/<name>/<cluster>/<slice>
	KindSummary        Kind = "summary"    // summary/<ns>/<name>/<cluster>/<network>/<region>/<zone>/<subzone>
	KindGateway        Kind = "gateway"    // gateway/<cluster>/<name>
	KindPolicy         Kind = "policy"     // policy/<kind>/<ns>/<name>
	KindPolicyRevision Kind = "revision"   // revision/<20 digits>
	KindFederation     Kind = "federation" // federation/<trust domain>
	KindJoinToken      Kind = "token"      // token/<sha-256>
	KindCursor         Kind = "cursor"     // cursor/<cluster>
	KindRemovedReplica Kind = "removed"    // removed/<replica>
)

// Key is an object's unique name in the map.
type Key string

// Kind is the key's first part.
func (k Key) Kind() Kind {
	kind, _, _ := strings.Cut(string(k), "/")
	return Kind(kind)
}

// parts splits what follows the kind; n is how many there must be.
func (k Key) parts(n int) ([]string, error) {
	parts := strings.Split(string(k), "/")
	if len(parts) != n+1 {
		return nil, fmt.Errorf("key %q: want %d parts after the kind", k, n)
	}
	return parts[1:], nil
}

// Service returns the service that a service, endpoints or summary key belongs to, and its cluster.
func (k Key) Service() (ServiceName, ClusterID, bool) {
	switch k.Kind() {
	case KindService, KindEndpoints, KindSummary:
		parts := strings.SplitN(string(k), "/", 5)
		if len(parts) >= 4 {
			return ServiceName{parts[1], parts[2]}, ClusterID(parts[3]), true
		}
	}
	return ServiceName{}, "", false
}

// Cluster returns the cluster that a key's object belongs to: the one whose agent may report it.
func (k Key) Cluster() (ClusterID, bool) {
	if _, cluster, ok := k.Service(); ok {
		return cluster, true
	}
	switch k.Kind() {
	case KindCluster, KindGateway, KindCursor:
		parts := strings.SplitN(string(k), "/", 3)
		if len(parts) >= 2 {
			return ClusterID(parts[1]), true
		}
	}
	return "", false
}

// Keys of the kinds.

// ClusterKey is the key of a [Cluster].
func ClusterKey(id ClusterID) Key { return join(KindCluster, string(id)) }

// ServiceKey is the key of a [Service].
func ServiceKey(n ServiceName, c ClusterID) Key {
	return join(KindService, n.Namespace, n.Name, string(c))
}

// EndpointsKey is the key of an [EndpointSlice].
func EndpointsKey(n ServiceName, c ClusterID, slice string) Key {
	return Key(string(KindEndpoints) + "/" + n.Namespace + "/" + n.Name + "/" + string(c) + "/" + slice) // one allocation: the commonest key
}

// GatewayKey is the key of a [Gateway].
func GatewayKey(c ClusterID, name string) Key { return join(KindGateway, string(c), name) }

// PolicyKey is the key of a [Policy].
func PolicyKey(kind PolicyKind, namespace, name string) Key {
	return join(KindPolicy, string(kind), namespace, name)
}

// PolicyRevisionKey is the key of a [PolicyRevision]; keys sort as revisions do.
func PolicyRevisionKey(revision uint64) Key {
	return join(KindPolicyRevision, fmt.Sprintf("%020d", revision))
}

// FederationKey is the key of a [Federation].
func FederationKey(trustDomain string) Key { return join(KindFederation, trustDomain) }

// JoinTokenKey is the key of a [JoinToken]; hash is hex SHA-256 of the secret.
func JoinTokenKey(hash string) Key { return join(KindJoinToken, hash) }

// CursorKey is the key of a [Cursor].
func CursorKey(c ClusterID) Key { return join(KindCursor, string(c)) }

// RemovedReplicaKey is the key of a [RemovedReplica].
func RemovedReplicaKey(id string) Key { return join(KindRemovedReplica, id) }

func join(kind Kind, parts ...string) Key {
	return Key(string(kind) + "/" + strings.Join(parts, "/"))
}
