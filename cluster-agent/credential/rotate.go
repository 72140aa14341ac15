package credential

import (
	"context"
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
		due := c.due()
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
			continue
		case <-time.After(time.Until(due)):
		}
		err := c.Rotate(ctx)
		if err == nil {
			wait = firstRetry
			continue
		}
		if ctx.Err() != nil {
			return nil
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

// due is when the credential shall be replaced: from half its life on, spread over a tenth of it.
func (c *Credential) due() time.Time {
	own, wanted := c.Generation()
	if own < wanted {
		return time.Time{}
	}
	leaf := c.material.Latest().Certificate.Leaf
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	return leaf.NotBefore.Add(life/2 + jitter(life/20) - life/20)
}

// failed says how urgent it has become. After the end, nothing but a new token helps.
func (c *Credential) failed(err error, wait time.Duration) {
	c.metrics.failures.Inc()
	leaf := c.material.Latest().Certificate.Leaf
	left, life := time.Until(leaf.NotAfter), leaf.NotAfter.Sub(leaf.NotBefore)
	log := c.config.Log.With("err", err, "expires_in", left.Round(time.Second), "in", wait)
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
		err := call(ctx, c.config, address, trust.ClientConfig(c, AuthorizeController(c.plane)), func(ctx context.Context, client pb.AgentServiceClient) (err error) {
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
			c.config.Log.Info("credential rotated", "expires", next.material.Certificate.Leaf.NotAfter, "generation", next.generation())
			c.metrics.rotations.Inc()
			return c.keep(func(s *stored) { *s = *next.stored })
		}
		errs = append(errs, fmt.Errorf("controller %s: %w", address, err))
	}
	return fmt.Errorf("rotate: %w", errors.Join(errs...))
}
