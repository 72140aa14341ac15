package trust

import (
	"crypto/tls"
	"sync"
)

// SessionCache keeps at most n TLS sessions of a client of source, for tls.Config.ClientSessionCache. All are forgotten
// when the material changes. A resumed handshake shows the chains of the first one: under a root that was withdrawn
// since, it fails, where a whole handshake, with the SVIDs of now, does not.
func SessionCache(source Source, n int) tls.ClientSessionCache {
	return &sessions{source: source, n: n}
}

type sessions struct {
	source Source
	n      int

	mu   sync.Mutex
	of   *Material              // what was valid when kept was made; guarded by mu
	kept tls.ClientSessionCache // guarded by mu; nil before the first use
}

func (s *sessions) current() tls.ClientSessionCache {
	now, _ := s.source.Get()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kept == nil || s.of != now {
		s.of, s.kept = now, tls.NewLRUClientSessionCache(s.n)
	}
	return s.kept
}

// Get implements tls.ClientSessionCache.
func (s *sessions) Get(key string) (*tls.ClientSessionState, bool) { return s.current().Get(key) }

// Put implements tls.ClientSessionCache.
func (s *sessions) Put(key string, state *tls.ClientSessionState) { s.current().Put(key, state) }
