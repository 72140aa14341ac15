package etcd

import (
	"context"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	clusteragent "github.com/periplus-mesh/periplus/cluster-agent"
	"github.com/periplus-mesh/periplus/internal/mesh"
)

// follower brings the registry to what etcd has. One goroutine.
type follower struct {
	source   *Source
	client   *clientv3.Client
	sink     clusteragent.Sink
	root     string
	registry *registry
	revision int64  // that the registry is at
	cluster  uint64 // of etcd, that has this revision: one that was restored from a backup has another ID
	applied  time.Time
}

// page is how many keys are read at once.
const page = 1000

// list reads everything at one revision, and makes it what the source says.
func (f *follower) list(ctx context.Context) error {
	f.judge(f.sink.Cluster())
	there := map[string]bool{}
	options := []clientv3.OpOption{clientv3.WithRange(clientv3.GetPrefixRangeEnd(f.root)), clientv3.WithLimit(page)}
	var revision int64
	var cluster uint64
	for from := f.root; ; {
		response, err := f.get(ctx, from, options...)
		if err != nil {
			return wrap("list", err)
		}
		if revision == 0 {
			revision, cluster = response.Header.Revision, response.Header.ClusterId
			options = append(options, clientv3.WithRev(revision))
		}
		if response.Header.ClusterId != cluster {
			return wrap("list", errRewound)
		}
		for _, kv := range response.Kvs {
			there[f.path(kv)] = true
			f.source.refuse(f.registry.put(f.path(kv), kv.Value, kv.Lease))
		}
		if !response.More || len(response.Kvs) == 0 {
			break
		}
		from = string(response.Kvs[len(response.Kvs)-1].Key) + "\x00"
	}
	now := time.Now()
	f.registry.listed(there, now)
	f.registry.commit()
	f.sink.Replace(f.registry.objects())
	f.revision, f.cluster, f.applied = revision, cluster, now
	f.source.metrics.hear(now)
	f.source.report(f)
	f.source.config.Log.Info("etcd listed", "revision", revision, "records", len(there), "lost", len(f.registry.lost))
	select {
	case <-f.source.synced:
	default:
		close(f.source.synced)
	}
	return nil
}

func (f *follower) get(ctx context.Context, from string, options ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	ctx, cancel := context.WithTimeout(clientv3.WithRequireLeader(ctx), requestTimeout)
	defer cancel()
	return f.client.Get(ctx, from, options...)
}

func (f *follower) path(kv *mvccpb.KeyValue) string {
	return strings.TrimPrefix(string(kv.Key), f.root)
}

// Times of a watch.
const (
	askEvery = 3 * time.Second       // whether etcd is still there
	silence  = 10 * time.Second      // that means it is not
	burst    = 50 * time.Millisecond // a change so soon after another waits for its fellows
)

// watch follows from the revision after the listed one, until it cannot.
func (f *follower) watch(ctx context.Context) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	changes := f.client.Watch(ctx, f.root, clientv3.WithPrefix(), clientv3.WithRev(f.revision+1), clientv3.WithProgressNotify())
	tick := time.NewTicker(min(time.Second, f.registry.grace/4+1))
	defer tick.Stop()
	heard, asked := time.Now(), time.Now()
	var gather <-chan time.Time
	for {
		cluster, registered := f.sink.WatchCluster()
		f.judge(cluster)
		select {
		case response, ok := <-changes:
			if !ok {
				return wrap("watch", errSilent)
			}
			if err := f.take(&response); err != nil {
				return err
			}
			heard = time.Now()
			f.source.metrics.hear(heard)
		case <-registered:
		case <-gather:
			gather = nil
		case now := <-tick.C:
			switch {
			case now.Sub(heard) > silence:
				return wrap("watch", errSilent)
			case now.Sub(asked) > askEvery:
				asked = now
				go f.client.RequestProgress(ctx) // may block while there is no stream; ends with ctx
			}
			if now.Sub(heard) <= 2*askEvery {
				f.registry.tick(now)
			}
			f.source.report(f)
		}
		if gather == nil && f.registry.changed() {
			gather = f.apply()
		}
	}
}

// apply tells the sink what changed, unless it was told just now: then it returns when to come back.
func (f *follower) apply() <-chan time.Time {
	now := time.Now()
	if wait := burst - now.Sub(f.applied); wait > 0 {
		return time.After(wait)
	}
	f.registry.assess()
	d := f.registry.commit()
	f.applied = now
	if len(d.Upserts)+len(d.Deletes) > 0 {
		f.sink.Apply(d)
	}
	return nil
}

func (f *follower) take(response *clientv3.WatchResponse) error {
	switch {
	case response.CompactRevision != 0:
		return wrap("watch", errCompacted)
	case response.Err() != nil:
		return wrap("watch", response.Err())
	case response.Header.Revision != 0 && response.Header.Revision < f.revision, response.Header.ClusterId != 0 && response.Header.ClusterId != f.cluster:
		return wrap("watch", errRewound)
	}
	for _, event := range response.Events {
		if event.Type == clientv3.EventTypeDelete {
			f.registry.deleted(f.path(event.Kv), time.Now())
		} else {
			f.source.refuse(f.registry.put(f.path(event.Kv), event.Kv.Value, event.Kv.Lease))
		}
		f.revision = max(f.revision, event.Kv.ModRevision)
	}
	return nil
}

// judge reads everything again when the cluster is registered otherwise.
func (f *follower) judge(cluster *mesh.Cluster) {
	if cluster != f.registry.cluster {
		f.source.refuse(f.registry.register(cluster)...)
	}
}
