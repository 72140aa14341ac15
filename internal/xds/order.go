package xds

// kind is a type by number: a session looks for what it has of a type many times a push.
type kind int

const (
	none kind = iota
	clusters
	endpoints
	listeners
	routes
	meshObjects
	kinds // how many there are
)

var typeOf = [kinds]Type{clusters: Cluster, endpoints: Endpoints, listeners: Listener, routes: Route, meshObjects: MeshObject}

// kindOf is none for a type that is not known.
func kindOf(t Type) kind {
	for k := clusters; k < kinds; k++ {
		if typeOf[k] == t {
			return k
		}
	}
	return none
}

// step is one row of the order of a round.
type step struct {
	Kind           kind
	Upsert, Remove bool
	// Wildcard types are meant whole by a first request without names (xDS: "legacy wildcard").
	Wildcard bool
	// Empty types are answered even if there is nothing: Envoy begins only once it was told, or after a long wait.
	Empty bool
	// Whole types are sent complete in each state-of-the-world response; the others only where they changed.
	Whole bool
	// After is a type that must have been answered: by then the client has asked for the endpoints of new clusters, and
	// is sent them before the routes that lead to them.
	After kind
	// Resend is the type whose resource of the same name follows each upsert: Envoy waits for the endpoints of a
	// cluster that was updated, even if they are unchanged (envoyproxy/envoy#13009, #33607).
	Resend kind
}

// order is make before break: nothing is sent before what it refers to, nothing removed before what refers to it.
var order = [...]step{
	{Kind: clusters, Upsert: true, Wildcard: true, Empty: true, Whole: true, Resend: endpoints},
	{Kind: endpoints, Upsert: true},
	{Kind: listeners, Upsert: true, Wildcard: true, Empty: true, Whole: true, After: clusters},
	{Kind: routes, Upsert: true, After: clusters},
	{Kind: meshObjects, Upsert: true, Remove: true, Wildcard: true, Whole: true},
	{Kind: listeners, Remove: true},
	{Kind: routes, Remove: true},
	{Kind: clusters, Remove: true},
	{Kind: endpoints, Remove: true},
}

// Type is the row's.
func (s step) Type() Type { return typeOf[s.Kind] }

// stepOf returns the row in which t is upserted.
func stepOf(t Type) (step, bool) {
	for _, s := range order {
		if s.Upsert && s.Type() == t {
			return s, true
		}
	}
	return step{}, false
}

// Types returns every known type, in the order of delivery.
func Types() []Type {
	var types []Type
	for _, s := range order {
		if s.Upsert {
			types = append(types, s.Type())
		}
	}
	return types
}
