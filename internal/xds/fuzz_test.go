package xds

import (
	"strconv"
	"testing"
)

// FuzzRequests: any requests on either protocol are answered or refused, and never more than one response per type
// is in flight.
func FuzzRequests(f *testing.F) {
	f.Add([]byte("\x00\x01\x02\x03"), "a,b", "a", "1", true)
	f.Add([]byte("\x05\x00\x00"), "*", "*", "", false)
	f.Add([]byte("\x01\x06\x07"), "x,x,*", "", "99", true)
	f.Fuzz(func(t *testing.T, script []byte, subscribe, unsubscribe, nonce string, delta bool) {
		state := world{}
		state.set(Cluster, "a", "1")
		state.set(Endpoints, "a", "1")
		session := NewStateSession(worldCatalog{}, state)
		if delta {
			session = NewDeltaSession(worldCatalog{}, state)
		}
		types := append(Types(), "", "unknown")
		inFlight := make(map[Type]string)
		for i, op := range script {
			r := Request{Type: types[int(op)%len(types)], Nonce: nonce, Rejected: op&64 != 0}
			if op&8 != 0 {
				r.Nonce = inFlight[r.Type]
			}
			if op&16 != 0 {
				r.Subscribe, r.Names = split(subscribe), split(subscribe)
				r.InitialVersions = map[string]string{subscribe: nonce, unsubscribe: "0102030405060708"}
			}
			if op&32 != 0 {
				r.Unsubscribe = split(unsubscribe)
			}
			answer, err := session.Request(r)
			if err != nil {
				return
			}
			if answer != NoAnswer {
				delete(inFlight, r.Type)
			}
			if op&128 != 0 {
				state = state.clone()
				state.set(Cluster, "a", strconv.Itoa(i))
				session.Advance(state)
			}
			for response, ok := session.Next(); ok; response, ok = session.Next() {
				if inFlight[response.Type] != "" {
					t.Fatalf("two responses of %s are in flight", response.Type)
				}
				inFlight[response.Type] = response.Nonce
			}
			session.Status()
		}
	})
}

func split(text string) []string {
	var out []string
	start := 0
	for i := range len(text) {
		if text[i] == ',' {
			out, start = append(out, text[start:i]), i+1
		}
	}
	return append(out, text[start:])
}
