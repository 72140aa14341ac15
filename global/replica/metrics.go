package replica

import (
	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"
)

// collector reads raft when it is scraped.
type collector struct {
	replica                                                              *Replica
	state, term, last, commit, applied, peers, writing, failures, differ *prometheus.Desc
}

func newCollector(r *Replica) *collector {
	desc := func(name, help string) *prometheus.Desc { return prometheus.NewDesc(name, help, nil, nil) }
	return &collector{
		differ:   desc("periplus_replica_differing", "Replicas whose state at the same index is not this one's; above 0 somebody must act."),
		replica:  r,
		state:    desc("raft_state", "0 follower, 1 candidate, 2 leader, 3 shut down."),
		term:     desc("raft_term", "Current term."),
		last:     desc("raft_last_log_index", "Index of the newest entry in the log."),
		commit:   desc("raft_commit_index", "Index of the newest committed entry that the replica knows of."),
		applied:  desc("raft_applied_index", "Index of the newest entry that the state reflects."),
		peers:    desc("raft_peers", "Replicas in the configuration."),
		writing:  desc("periplus_replica_write_seconds", "How long the write to the log in progress has lasted; 0 when there is none."),
		failures: desc("periplus_replica_write_failures_total", "Writes to the log that have failed, as all do when the disk is full."),
	}
}

func (c *collector) Describe(out chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, out) }

func (c *collector) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64) { out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v) }
	r := c.replica
	gauge(c.writing, r.writing().Seconds())
	out <- prometheus.MustNewConstMetric(c.failures, prometheus.CounterValue, float64(r.log.Failures()))
	gauge(c.differ, float64(r.differ.Load()))
	node := r.node.Load()
	if node == nil {
		gauge(c.state, float64(raft.Shutdown))
		return
	}
	gauge(c.state, float64(node.State()))
	gauge(c.term, float64(node.CurrentTerm()))
	gauge(c.last, float64(node.LastIndex()))
	gauge(c.commit, float64(node.CommitIndex()))
	gauge(c.applied, float64(node.AppliedIndex()))
	gauge(c.peers, float64(len(r.Members())))
}
