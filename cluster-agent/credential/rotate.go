package credential

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/trust"
)

// Run rotates the credential at half its life, and at once when the controllers want a newer generation, until
// ctx is done.
func (c *Credential) Run(ctx context.Context) error {
	wait := firstRetry
	for {
		_, changed := c.cluster.Get()
		var err error
		switch left, unsaved := c.untilDue(time.Now()); {
		case left <= 0:
			err = c.Rotate(ctx)
		case unsaved:
			err = c.saveAgain()
		default:
			select {
			case <-ctx.Done():
				return nil
			case <-changed:
			case <-time.After(min(left, lookAgain)):
			}
			continue
		}
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			wait = firstRetry
			continue
		}
		c.failed(err, wait)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(jitter(wait)):
		}
		wait = min(2*wait, time.Minute)
	}
}

// lookAgain bounds a wait for the time of rotation: a timer does not notice that the clock was set, nor that the
// machine slept.
const lookAgain = 30 * time.Second

// untilDue is how long the credential is good as it is, at half its life give or take a fortieth; not positive: it is to
// be replaced. Unsaved: it is in force but not on disk.
//
// Its dates are by the controllers' clock. What this process was issued is also timed by the monotonic clock, which
// nobody sets: it is replaced at half its life though this machine's clock is behind theirs, and has at least a tenth of
// its life though this clock is ahead, or each new credential would look old and be replaced at once.
func (c *Credential) untilDue(now time.Time) (left time.Duration, unsaved bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current.generation() < c.cluster.Latest().CredentialGeneration {
		return 0, c.unsaved
	}
	leaf := c.current.material.Certificate.Leaf
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	half := life/2 + c.spread
	left = leaf.NotBefore.Add(half).Sub(now)
	if !c.obtained.IsZero() {
		held := now.Sub(c.obtained)
		left = max(min(left, half-held), life/10-held)
	}
	return left, c.unsaved
}

// spreadOf draws by how much the rotation of leaf is moved.
func spreadOf(leaf *x509.Certificate) time.Duration {
	twentieth := leaf.NotAfter.Sub(leaf.NotBefore) / 20
	return jitter(twentieth) - twentieth
}

// failed says how urgent it has become. After the end, nothing but a new token helps.
func (c *Credential) failed(err error, wait time.Duration) {
	c.metrics.failures.Inc()
	leaf := c.material.Latest().Certificate.Leaf
	left, life := time.Until(leaf.NotAfter), leaf.NotAfter.Sub(leaf.NotBefore)
	log := c.config.Log.With("err", err, "expires_in", left.Round(time.Second), "in", wait)
	if _, unsaved := c.untilDue(time.Now()); unsaved {
		log.Error("credential was rotated but could not be written: a restart would find the older one")
		return
	}
	switch {
	case left <= 0:
		log.Error("credential has expired and could not be rotated: start the agent with a new join token")
	case left < life/10:
		log.Error("credential could not be rotated and ends soon: is any controller reachable?")
	default:
		log.Warn("credential could not be rotated; trying again")
	}
}

// Rotate trades the credential in force for a new one, with a new key, at the first controller that answers.
func (c *Credential) Rotate(ctx context.Context) error {
	key, err := newKey()
	if err != nil {
		return err
	}
	csr, err := certificateRequest(key)
	if err != nil {
		return err
	}
	var errs []error
	for _, address := range c.Controllers() {
		var response *pb.RotateResponse
		err := call(ctx, c.config, address, trust.ClientConfig(c, AuthorizeController(c.plane)), c.config.CallTimeout, func(ctx context.Context, client pb.AgentServiceClient) (err error) {
			response, err = client.Rotate(ctx, &pb.RotateRequest{Csr: csr})
			return err
		})
		if err == nil {
			c.mu.Lock()
			defer c.mu.Unlock()
			next, err := receive(response.GetCredential(), key, c.current.stored.Cluster, c.current.stored.TokenHash)
			if err != nil {
				return fmt.Errorf("rotate: %w", err)
			}
			if wanted := c.current.cluster.CredentialGeneration; next.generation() < wanted {
				return fmt.Errorf("rotate: controller issued generation %d, wanted is %d", next.generation(), wanted)
			}
			if merged := merge(c.current.stored.Controllers, next.stored.Controllers); len(merged) > 0 {
				next.stored.Controllers = merged
			}
			if err := c.keep(func(s *stored) { *s = *next.stored }); err != nil {
				return err
			}
			c.config.Log.Info("credential rotated", "expires", next.material.Certificate.Leaf.NotAfter, "generation", next.generation())
			c.metrics.rotations.Inc()
			return nil
		}
		errs = append(errs, fmt.Errorf("controller %s: %w", address, err))
	}
	return fmt.Errorf("rotate: %w", errors.Join(errs...))
}
