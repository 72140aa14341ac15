package xds

// step is one row of the order of a round.
type step struct {
	Type           Type
	Upsert, Remove bool
	// Wildcard types are meant whole by a first request without names (xDS: "legacy wildcard").
	Wildcard bool
	// Empty types are answered even if there is nothing: Envoy begins only once it was told, or after a long wait.
	Empty bool
	// Whole types are sent complete in each state-of-the-world response; the others only where they changed.
	Whole bool
	// After is a type that must have been answered: by then the client has asked for the endpoints of new clusters, and
	// is sent them before the routes that lead to them.
	After Type
	// Resend is the type whose resource of the same name follows each upsert: Envoy waits for the endpoints of a
	// cluster that was updated, even if they are unchanged (envoyproxy/envoy#13009, #33607).
	Resend Type
}

// order is make before break: nothing is sent before what it refers to, nothing removed before what refers to it.
var order = [...]step{
	{Type: Cluster, Upsert: true, Wildcard: true, Empty: true, Whole: true, Resend: Endpoints},
	{Type: Endpoints, Upsert: true},
	{Type: Listener, Upsert: true, Wildcard: true, Empty: true, Whole: true, After: Cluster},
	{Type: Route, Upsert: true, After: Cluster},
	{Type: MeshObject, Upsert: true, Remove: true, Wildcard: true, Whole: true},
	{Type: Listener, Remove: true},
	{Type: Route, Remove: true},
	{Type: Cluster, Remove: true},
	{Type: Endpoints, Remove: true},
}

// stepOf returns the row in which t is upserted.
func stepOf(t Type) (step, bool) {
	for _, s := range order {
		if s.Type == t && s.Upsert {
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
			types = append(types, s.Type)
		}
	}
	return types
}
