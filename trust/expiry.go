package trust

import (
	"context"
	"crypto/x509"
	"log/slog"
	"time"
)

// warnings are the shares of an SVID's life, in percent left, at which somebody should hear that it was not
// renewed. Issuers renew at about half, so at 50 it is a warning only if the Workload API is known to be down.
var warnings = [...]int{50, 25, 10, 0}

// warn says in time that the own SVID is about to expire. Nothing else happens at expiry: peers refuse the
// certificate, which is the closed failure that is wanted.
func (s *WorkloadSource) warn(ctx context.Context) {
	for ctx.Err() == nil {
		material, next := s.Get()
		leaf := material.Certificate.Leaf
		for i, left := range warnings {
			if i+1 < len(warnings) && time.Until(momentAt(leaf, warnings[i+1])) <= 0 {
				continue // a later warning says it all
			}
			if !sleep(ctx, time.Until(momentAt(leaf, left)), next) {
				break
			}
			s.warnAt(ctx, material, left)
		}
		select {
		case <-next:
		case <-ctx.Done():
		}
	}
}

func (s *WorkloadSource) warnAt(ctx context.Context, material *Material, left int) {
	down := s.down()
	level, message := slog.LevelWarn, "identity expires soon and was not renewed"
	switch {
	case left == 0:
		level, message = slog.LevelError, "identity expired: peers refuse it until it is renewed"
	case left == warnings[0] && down == nil:
		level = slog.LevelInfo
	}
	s.metrics.warnings.Inc()
	s.log.Log(ctx, level, message,
		"id", material.ID, "expires", material.Certificate.Leaf.NotAfter, "left_percent", left, "err", down)
}

// momentAt is when left percent of the certificate's life is left.
func momentAt(c *x509.Certificate, left int) time.Time {
	life := c.NotAfter.Sub(c.NotBefore)
	return c.NotAfter.Add(-life * time.Duration(left) / 100)
}

// sleep reports whether d passed before superseded or ctx ended it. A moment that is past has passed.
func sleep(ctx context.Context, d time.Duration, superseded <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-superseded:
	case <-ctx.Done():
	}
	return false
}
