package continuity_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/periplus-mesh/periplus/trust"
	"github.com/periplus-mesh/periplus/trust/continuity"
	"github.com/periplus-mesh/periplus/trust/trusttest"
)

const agent = "/periplus/agent"

func prove(t testing.TB, m *trust.Material, sequence uint64, bundle []byte) continuity.Proof {
	t.Helper()
	signature, chain, err := continuity.Sign(m, m.ID.TrustDomain(), sequence, bundle)
	if err != nil {
		t.Fatal(err)
	}
	return continuity.Proof{TrustDomain: m.ID.TrustDomain(), Sequence: sequence, Bundle: bundle, Signature: signature, Chain: chain}
}

// An owner that rotates is followed, step by step; so is the first introduction and what is held already.
func TestRotationIsAccepted(t *testing.T) {
	east := trusttest.NewCA("east.mesh")
	var held []byte
	for sequence := uint64(1); sequence < 5; sequence++ {
		signer := east.SVID(agent, time.Hour) // still under the root that is known
		east.Rotate()
		bundle := east.JWKS(sequence)
		if held == nil {
			signer = east.SVID(agent, time.Hour)
		}
		p := prove(t, signer, sequence, bundle)
		got, err := continuity.Verify(held, p, time.Now())
		if err != nil {
			t.Fatalf("sequence %d: %v", sequence, err)
		}
		if got.Sequence != sequence || len(got.X509) != len(east.Roots()) {
			t.Fatalf("sequence %d: got %+v", sequence, got)
		}
		held = bundle
		p.Signature = nil
		if _, err := continuity.Verify(held, p, time.Now()); err != nil {
			t.Fatalf("what is held already: %v", err)
		}
	}
}

func TestKindsOfKeys(t *testing.T) {
	east := trusttest.NewCA("east.mesh")
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	m := east.SVID(agent, time.Hour)
	leaf := east.Sign(key.Public(), func(c *x509.Certificate) { c.URIs = []*url.URL{m.ID.URL()} })
	m.Certificate = &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
	if _, err := continuity.Verify(east.JWKS(1), prove(t, m, 2, east.JWKS(2)), time.Now()); err != nil {
		t.Fatal(err)
	}
}

// refusal is one way to attack: base is a correct proof of bundle 6 over the held bundle 5.
type refusal struct {
	name string
	held func(w *world) []byte
	next func(t *testing.T, w *world) continuity.Proof
	at   time.Duration // from now
	want error
}

type world struct {
	east, evil *trusttest.CA // evil has the same trust domain and other keys
	west       *trusttest.CA
	held       []byte
}

func (w *world) honest(t *testing.T) continuity.Proof {
	return prove(t, w.east.SVID(agent, time.Hour), 6, w.east.JWKS(6))
}

// edit makes a next of the honest one.
func edit(change func(w *world, p *continuity.Proof)) func(*testing.T, *world) continuity.Proof {
	return func(t *testing.T, w *world) continuity.Proof {
		p := w.honest(t)
		change(w, &p)
		return p
	}
}

func TestRefusals(t *testing.T) {
	for _, r := range slices.Concat(signers(), contents()) {
		t.Run(r.name, func(t *testing.T) { r.check(t) })
	}
}

// signers are proofs whose signature or signer is wrong.
func signers() []refusal {
	return []refusal{
		{name: "a stranger's roots, signed by the stranger", want: continuity.ErrSigner,
			next: func(t *testing.T, w *world) continuity.Proof {
				return prove(t, w.evil.SVID(agent, time.Hour), 6, w.evil.JWKS(6))
			}},
		{name: "a stranger's roots beside ours, signed by the stranger", want: continuity.ErrSigner,
			next: func(t *testing.T, w *world) continuity.Proof {
				both := trust.NewBundle(w.east.TrustDomain, 6, append(w.east.Roots(), w.evil.Roots()...), nil)
				data, _ := both.Marshal()
				return prove(t, w.evil.SVID(agent, time.Hour), 6, data)
			}},
		{name: "another domain's agent", want: continuity.ErrSigner,
			next: edit(func(w *world, p *continuity.Proof) {
				m := w.west.SVID(agent, time.Hour)
				p.Chain = m.Certificate.Certificate
			})},
		{name: "another identity of the domain", want: continuity.ErrSigner,
			next: edit(func(w *world, p *continuity.Proof) {
				p.Chain = w.east.SVID("/ns/shop/sa/cart", time.Hour).Certificate.Certificate
			})},
		{name: "a CA as leaf", want: continuity.ErrSigner,
			next: edit(func(w *world, p *continuity.Proof) { p.Chain = [][]byte{w.east.Root().Raw} })},
		{name: "signer expired", at: 2 * time.Hour, want: continuity.ErrSigner, next: edit(func(*world, *continuity.Proof) {})},
		{name: "signer not valid yet", at: -2 * time.Hour, want: continuity.ErrSigner, next: edit(func(*world, *continuity.Proof) {})},
		{name: "no chain", want: continuity.ErrSigner, next: edit(func(_ *world, p *continuity.Proof) { p.Chain = nil })},
		{name: "endless chain", want: continuity.ErrSigner,
			next: edit(func(_ *world, p *continuity.Proof) {
				for range 10 {
					p.Chain = append(p.Chain, p.Chain[0])
				}
			})},
		{name: "chain of rubbish", want: continuity.ErrSigner, next: edit(func(_ *world, p *continuity.Proof) { p.Chain = [][]byte{{1, 2}} })},
		{name: "no signature", want: continuity.ErrSignature, next: edit(func(_ *world, p *continuity.Proof) { p.Signature = nil })},
		{name: "signature of another bundle", want: continuity.ErrSignature,
			next: edit(func(w *world, p *continuity.Proof) {
				w.east.Rotate()
				p.Bundle = w.east.JWKS(6)
			})},
		{name: "signature of another key", want: continuity.ErrSignature,
			next: edit(func(w *world, p *continuity.Proof) {
				p.Chain = w.east.SVID(agent, time.Hour).Certificate.Certificate
			})},
		{name: "first introduction signed by somebody else", want: continuity.ErrSigner, held: func(*world) []byte { return nil },
			next: edit(func(w *world, p *continuity.Proof) {
				p.Bundle = w.evil.JWKS(6)
			})},
	}
}

// contents are proofs of bundles that must not be taken whoever signed them.
func contents() []refusal {
	return []refusal{
		{name: "older", want: continuity.ErrSequence,
			next: func(t *testing.T, w *world) continuity.Proof {
				return prove(t, w.east.SVID(agent, time.Hour), 4, w.east.JWKS(4))
			}},
		{name: "same sequence, other keys", want: continuity.ErrSequence,
			next: func(t *testing.T, w *world) continuity.Proof {
				m := w.east.SVID(agent, time.Hour)
				w.east.Rotate()
				return prove(t, m, 5, w.east.JWKS(5))
			}},
		{name: "sequence differs from the document's", want: continuity.ErrMalformed,
			next: edit(func(_ *world, p *continuity.Proof) { p.Sequence = 7 })},
		{name: "without sequence", want: continuity.ErrMalformed,
			next: edit(func(_ *world, p *continuity.Proof) {
				p.Bundle = bytes.Replace(p.Bundle, []byte("spiffe_sequence"), []byte("other"), 1)
			})},
		{name: "without keys", want: continuity.ErrMalformed,
			next: edit(func(_ *world, p *continuity.Proof) { p.Bundle = []byte(`{"keys":[],"spiffe_sequence":6}`) })},
		{name: "another domain's roots", want: continuity.ErrMalformed,
			next: edit(func(w *world, p *continuity.Proof) { p.Bundle = w.west.JWKS(6) })},
		{name: "10 MB", want: continuity.ErrMalformed,
			next: edit(func(_ *world, p *continuity.Proof) {
				p.Bundle = append(p.Bundle, bytes.Repeat([]byte{' '}, 10<<20)...)
			})},
		{name: "something after the document", want: continuity.ErrMalformed,
			next: edit(func(_ *world, p *continuity.Proof) { p.Bundle = append(p.Bundle, "{}"...) })},
		{name: "no trust domain", want: continuity.ErrMalformed,
			next: edit(func(_ *world, p *continuity.Proof) { p.TrustDomain = spiffeid.TrustDomain{} })},
	}
}

func (r refusal) check(t *testing.T) {
	w := &world{east: trusttest.NewCA("east.mesh"), evil: trusttest.NewCA("east.mesh"), west: trusttest.NewCA("west.mesh")}
	w.held = w.east.JWKS(5)
	if r.held != nil {
		w.held = r.held(w)
	}
	next := r.next(t, w)
	bundle, err := continuity.Verify(w.held, next, time.Now().Add(r.at))
	if !errors.Is(err, r.want) || bundle != nil {
		t.Fatalf("got %v, want %v", err, r.want)
	}
}

func TestBrokenHeldBundleFailsClosed(t *testing.T) {
	east := trusttest.NewCA("east.mesh")
	p := prove(t, east.SVID(agent, time.Hour), 2, east.JWKS(2))
	for _, held := range []string{"", "{}", "rubbish"} {
		if _, err := continuity.Verify([]byte(held), p, time.Now()); err == nil {
			t.Fatalf("held %q: accepted", held)
		}
	}
}

func TestSignRefuses(t *testing.T) {
	east := trusttest.NewCA("east.mesh")
	west := trusttest.NewCA("west.mesh").TrustDomain
	m := east.SVID(agent, time.Hour)
	for name, try := range map[string]func() error{
		"a foreign bundle": func() error { _, _, err := continuity.Sign(m, west, 1, east.JWKS(1)); return err },
		"a workload's key": func() error {
			_, _, err := continuity.Sign(east.SVID("/ns/a/sa/b", time.Hour), east.TrustDomain, 1, east.JWKS(1))
			return err
		},
		"an empty bundle":   func() error { _, _, err := continuity.Sign(m, east.TrustDomain, 1, []byte(`{"keys":[]}`)); return err },
		"a wrong sequence":  func() error { _, _, err := continuity.Sign(m, east.TrustDomain, 2, east.JWKS(1)); return err },
		"a malformed input": func() error { _, _, err := continuity.Sign(m, east.TrustDomain, 1, []byte(`{`)); return err },
	} {
		if err := try(); err == nil {
			t.Errorf("signed %s", name)
		}
	}
}

// Different inputs have different statements: the parts cannot run into each other.
func TestStatementIsUnambiguous(t *testing.T) {
	a, ab := spiffeid.RequireTrustDomainFromString("a"), spiffeid.RequireTrustDomainFromString("ab")
	seen := make(map[string]bool)
	for _, s := range [][]byte{
		continuity.Statement(a, 1, nil), continuity.Statement(ab, 1, nil), continuity.Statement(a, 2, nil),
		continuity.Statement(a, 1, []byte{0}), continuity.Statement(a, 1<<8, nil),
	} {
		if seen[string(s)] || !strings.HasPrefix(string(s), "periplus bundle continuity v1\x00") {
			t.Fatalf("statement %x", s)
		}
		seen[string(s)] = true
	}
}

// recorded is a held bundle and the proof of the next, made once, so that every fuzz worker sees the same.
type recorded struct {
	Held, Bundle, Signature, Leaf []byte
	At                            time.Time
}

var update = flag.Bool("update", false, "record the proof in testdata anew")

func record(f *testing.F) recorded {
	const path = "testdata/proof.json"
	if *update {
		east := trusttest.NewCA("east.mesh")
		p := prove(f, east.SVID(agent, time.Hour), 6, east.JWKS(6))
		data, err := json.Marshal(recorded{east.JWKS(5), p.Bundle, p.Signature, p.Chain[0], time.Now()})
		if err = errors.Join(err, os.MkdirAll("testdata", 0o755), os.WriteFile(path, data, 0o644)); err != nil {
			f.Fatal(err)
		}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	var r recorded
	if err := json.Unmarshal(data, &r); err != nil {
		f.Fatal(err)
	}
	return r
}

// No input makes Verify panic, and nothing but the held bundle is accepted without the key.
func FuzzVerify(f *testing.F) {
	r, domain := record(f), spiffeid.RequireTrustDomainFromString("east.mesh")
	f.Add(r.Bundle, r.Signature, r.Leaf, uint64(6))
	f.Add(r.Held, []byte(nil), []byte(nil), uint64(5))
	f.Add([]byte(`{"keys":[{"use":"x509-svid","kty":"EC"}],"spiffe_sequence":7}`), r.Signature, r.Leaf, uint64(7))
	f.Fuzz(func(t *testing.T, bundle, signature, leaf []byte, sequence uint64) {
		next := continuity.Proof{TrustDomain: domain, Sequence: sequence, Bundle: bundle, Signature: signature, Chain: [][]byte{leaf}}
		b, err := continuity.Verify(r.Held, next, r.At)
		if err == nil && !bytes.Equal(bundle, r.Held) && !bytes.Equal(bundle, r.Bundle) {
			t.Fatalf("accepted %q", bundle)
		}
		if err == nil && (b.Sequence != sequence || len(b.X509) == 0) {
			t.Fatalf("accepted %+v", b)
		}
		if bytes.Equal(bundle, r.Bundle) && bytes.Equal(signature, r.Signature) && bytes.Equal(leaf, r.Leaf) && sequence == 6 && err != nil {
			t.Fatalf("refused the good one: %v", err)
		}
	})
}
