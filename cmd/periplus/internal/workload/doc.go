// Package workload is the commands that keep workloads of clusters without Kubernetes registered in etcd. The loop: the
// form or the file becomes a record, checked as far as it can be without the cluster's registration; it is written
// under a lease that the command keeps alive, and follows what a health check says; interrupted, the command takes it
// out.
package workload
