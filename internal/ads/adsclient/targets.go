package adsclient

import "errors"

var errLeft = errors.New("no longer among the control planes")

// retarget takes the newest targets and returns what tells of the next. No prober may run: it reads them.
func (c *client) retarget() <-chan struct{} {
	if c.config.TargetUpdates == nil {
		return nil
	}
	targets, changed := c.config.TargetUpdates.Get()
	if len(targets) > 0 {
		c.config.Targets = targets
	}
	return changed
}

// reindex finds the link's target among the new ones.
func (c *client) reindex(l *link) bool {
	for i, target := range c.config.Targets {
		if target.Address == l.address {
			l.index = i
			return true
		}
	}
	return false
}
