package adsclient

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/periplus-mesh/periplus/internal/ads"
	"github.com/periplus-mesh/periplus/internal/xds"
)

// settled is how long a stream must live for the next reconnect to be without back-off.
const settled = 5 * time.Second

// firstBackoff bounds the back-off of who was never connected: a mesh that starts is complete soon after its control
// plane is there.
const firstBackoff = time.Second

// client is one Run. Everything belongs to its goroutine.
type client struct {
	config    Config
	metrics   *clientMetrics
	session   *xds.ClientSession
	followers map[xds.Type]*xds.Follower

	// resources are what is applied, for the disk cache; nil without one. dirty: the disk has something else.
	resources map[xds.Type]map[string]kept
	dirty     bool
	fromDisk  bool
	writes    chan []byte // to the writer; unbuffered
	writeAt   *time.Timer
}

// Run keeps one delta stream alive until ctx ends, and then returns ctx's error. Before the network it applies what
// the disk cache holds. Any other error is a configuration that cannot work.
func Run(ctx context.Context, c Config) error {
	if err := c.validate(); err != nil {
		return err
	}
	client := newClient(c)
	defer client.writeAt.Stop()
	client.boot()
	var writer sync.WaitGroup
	defer writer.Wait()
	writer.Go(client.write)
	defer close(client.writes)
	client.loop(ctx)
	client.save()
	return ctx.Err()
}

func newClient(c Config) *client {
	client := &client{
		config: c, metrics: newClientMetrics(c.Metrics), session: xds.NewClientSession(c.Wildcard...),
		followers: make(map[xds.Type]*xds.Follower), writes: make(chan []byte), writeAt: time.NewTimer(time.Hour),
	}
	if c.DiskCache != "" {
		client.resources = make(map[xds.Type]map[string]kept)
	}
	if c.Follow {
		client.followers[xds.Cluster], client.followers[xds.Listener] = new(xds.Follower), new(xds.Follower)
	}
	return client
}

// loop connects to the first target that answers and stays while it does.
func (c *client) loop(ctx context.Context) {
	backoff, limit := c.config.BackoffMin, min(c.config.BackoffMax, firstBackoff)
	for ctx.Err() == nil {
		l, err := c.connect(ctx)
		if err == nil {
			limit = c.config.BackoffMax
			err = c.stay(ctx, &l)
			if time.Since(l.opened) > settled {
				backoff = c.config.BackoffMin
			}
			l.close()
		}
		c.report(nil)
		if ctx.Err() != nil {
			return
		}
		wait := backoff/2 + rand.N(backoff/2+1)
		c.config.Log.Warn("ads: no control plane", "err", err, "retry", wait)
		c.pause(ctx, wait)
		backoff = min(2*backoff, limit)
	}
}

// pause waits, and meanwhile still writes the disk cache.
func (c *client) pause(ctx context.Context, wait time.Duration) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			return
		case <-c.writeAt.C:
			c.trySave()
		}
	}
}

// connect returns a stream to the first target that accepts one.
func (c *client) connect(ctx context.Context) (*link, error) {
	c.retarget()
	var problems error
	for i := range c.config.Targets {
		l, err := c.dial(ctx, ctx, i)
		if err == nil {
			if _, err = l.begin(c, c.session.Open(), c.config.ConnectTimeout); err == nil {
				c.report(l)
				return l, nil
			}
			l.close()
		}
		problems = errors.Join(problems, err)
	}
	return nil, problems
}

// stay serves a stream until it fails. While it is not to the preferred target, it looks for a better one and moves
// there before it lets go.
func (c *client) stay(ctx context.Context, current **link) error {
	changed := c.retarget() // nothing may have told of it since connect
	if !c.reindex(*current) {
		return fmt.Errorf("%s: %w", (*current).target, errLeft)
	}
	better := c.probe(ctx, (*current).index)
	defer func() { better.stop() }()
	for {
		l := *current
		select {
		case <-ctx.Done():
			return ctx.Err()
		case m := <-l.responses:
			if err := c.handle(l, m); err != nil {
				return fmt.Errorf("%s: %w", l.target, l.reason(err))
			}
		case err := <-l.failed:
			return fmt.Errorf("%s: %w", l.target, err)
		case <-c.writeAt.C:
			c.trySave()
		case <-changed:
			better.stop()
			if changed = c.retarget(); !c.reindex(l) {
				return fmt.Errorf("%s: %w", l.target, errLeft)
			}
			better = c.probe(ctx, l.index)
		case next := <-better.found:
			*current = c.move(l, next)
			better.stop()
			better = c.probe(ctx, (*current).index)
		}
	}
}

// move changes over to next, if that accepts the stream. Until it is known, nothing more is taken from the current
// one: what the next was told to be there must stay true.
func (c *client) move(current, next *link) *link {
	if ok, err := next.begin(c, c.session.Open(), c.config.ConnectTimeout); !ok {
		c.config.Log.Info("ads: preferred control plane is not ready", "target", next.target, "err", err)
		next.close()
		return current
	}
	current.close()
	c.report(next)
	return next
}

// handle applies one response and answers it. What it refers to is subscribed before the answer: the server then knows
// of it when it goes on, and sends endpoints before the routes that lead to them.
func (c *client) handle(l *link, m *discoveryv3.DeltaDiscoveryResponse) error {
	t := xds.Type(m.GetTypeUrl())
	update, versions := c.decode(m)
	c.metrics.received.Add(float64(len(update.Upserts)))
	taken, err := c.apply(update)
	answer := c.session.Accept(t, m.GetNonce(), taken.versions(versions), taken.Removed)
	c.keep(taken, versions)
	if err != nil {
		c.metrics.rejected.Inc()
		c.config.Log.Warn("ads: rejected", "type", t, "target", l.target, "err", err)
		answer = c.session.Reject(t, m.GetNonce(), err)
	}
	if follow, ok := c.follow(t); ok {
		if err := l.stream.Send(ads.DeltaMessage(follow)); err != nil {
			return err
		}
	}
	return l.stream.Send(ads.DeltaMessage(answer))
}

// decode leaves out what is no longer subscribed.
func (c *client) decode(m *discoveryv3.DeltaDiscoveryResponse) (Update, map[string]string) {
	update := Update{Type: xds.Type(m.GetTypeUrl())}
	versions := make(map[string]string, len(m.GetResources()))
	for _, r := range m.GetResources() {
		if !c.session.Wants(update.Type, r.GetName()) {
			continue
		}
		body := r.GetResource().GetValue()
		update.Upserts = append(update.Upserts, Item{r.GetName(), versionOf(r.GetVersion(), body), body})
		versions[r.GetName()] = r.GetVersion()
	}
	for _, name := range m.GetRemovedResources() {
		if c.session.Wants(update.Type, name) {
			update.Removed = append(update.Removed, name)
		}
	}
	return update, versions
}

// versionOf hashes the content where the server's version is not such a hash.
func versionOf(text string, body []byte) xds.Version {
	if v, ok := xds.ParseVersion(text); ok {
		return v
	}
	sum := sha256.Sum256(body)
	return xds.Version(sum[:8])
}

// apply checks what an update refers to, hands it to Apply, and remembers the references of what that took.
func (c *client) apply(u Update) (taken Update, err error) {
	if len(u.Upserts)+len(u.Removed) == 0 {
		return u, nil
	}
	references, err := c.references(u)
	if err != nil {
		return u.without(nil), err
	}
	taken = u
	if err = c.config.Apply(u); err != nil {
		taken = u.without(refusals(err))
	}
	if follower := c.followers[u.Type]; follower != nil {
		for _, name := range taken.Removed {
			follower.Set(name, nil)
		}
		for _, item := range taken.Upserts {
			follower.Set(item.Name, references[item.Name])
		}
	}
	return taken, err
}

func (c *client) references(u Update) (map[string][]string, error) {
	if c.followers[u.Type] == nil {
		return nil, nil
	}
	references := make(map[string][]string)
	for _, item := range u.Upserts {
		names, err := xds.References(u.Type, item.Body)
		if err != nil {
			return nil, fmt.Errorf("resource %q: %w", item.Name, err)
		}
		references[item.Name] = names
	}
	return references, nil
}

// follow subscribes what is referred to now, and unsubscribes and removes what no longer is.
func (c *client) follow(t xds.Type) (xds.Request, bool) {
	follower := c.followers[t]
	if follower == nil {
		return xds.Request{}, false
	}
	child, _ := xds.Followed(t)
	add, remove := follower.Changes(func(name string) bool { return c.session.Wants(child, name) })
	request, changed := c.session.Subscribe(child, add, remove)
	if len(remove) == 0 {
		return request, changed
	}
	gone := Update{Type: child, Removed: remove}
	if err := c.config.Apply(gone); err != nil {
		c.config.Log.Warn("ads: resources that nothing refers to were not removed", "type", child, "err", err)
	}
	c.keep(gone, nil)
	return request, changed
}

// report publishes where the resources come from; nil: from nowhere.
func (c *client) report(l *link) {
	status := Status{Since: time.Now(), FromDisk: c.fromDisk}
	c.metrics.connected.Set(0)
	c.metrics.preferred.Set(0)
	if l != nil {
		c.fromDisk = false
		status.Target, status.FromDisk = l.target, false
		c.config.Log.Info("ads: connected", "target", l.target)
		c.metrics.connected.Set(1)
		if l.index == 0 {
			c.metrics.preferred.Set(1)
		}
	}
	if c.config.Status != nil {
		c.config.Status.Set(status)
	}
}

// boot applies what is on disk, type by type in order of delivery.
func (c *client) boot() {
	if c.config.DiskCache == "" {
		return
	}
	resources, err := readCache(c.config.DiskCache, c.config.Node.GetId())
	if err != nil {
		c.config.Log.Warn("ads: disk cache", "err", err, "resources", len(resources))
	}
	byType := make(map[xds.Type][]kept)
	for _, r := range resources {
		byType[r.t] = append(byType[r.t], r)
	}
	for _, t := range xds.Types() {
		if len(byType[t]) > 0 {
			c.bootType(t, byType[t])
		}
	}
	c.dirty = false
	c.report(nil)
}

func (c *client) bootType(t xds.Type, resources []kept) {
	update, versions := Update{Type: t, FromDisk: true}, make(map[string]string)
	for _, r := range resources {
		if c.session.Wants(t, r.name) {
			update.Upserts = append(update.Upserts, Item{r.name, versionOf(r.version, r.body), r.body})
			versions[r.name] = r.version
		}
	}
	taken, err := c.apply(update)
	if err != nil {
		c.config.Log.Error("ads: disk cache: resources were refused", "type", t, "err", err)
	}
	if len(taken.Upserts) == 0 {
		return
	}
	c.fromDisk = true
	c.session.Accept(t, "", taken.versions(versions), nil)
	c.keep(taken, versions)
	c.follow(t)
}
