package workload

import (
	"context"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/periplus-mesh/periplus/cluster-agent/etcd"
	"github.com/periplus-mesh/periplus/cmd/internal/output"
	"github.com/periplus-mesh/periplus/internal/cli"
	"github.com/periplus-mesh/periplus/internal/mesh"
)

func list() *cobra.Command {
	var f registryFlags
	command := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List the registered workloads", Args: cobra.NoArgs}
	f.add(command, true)
	format := output.ListFlag(command)
	command.RunE = func(c *cobra.Command, _ []string) error {
		client, err := f.connect(c.Context())
		if err != nil {
			return err
		}
		defer client.Close()
		ctx, cancel := context.WithTimeout(c.Context(), registryTimeout)
		defer cancel()
		root := f.root()
		response, err := client.Get(ctx, root, clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByKey, clientv3.SortAscend))
		if err != nil {
			return f.failed(err)
		}
		var rows []listed
		for _, kv := range response.Kvs {
			if row, ok := listedOf(strings.TrimPrefix(string(kv.Key), root), kv.Value, mesh.ClusterID(f.cluster)); ok {
				row.lease = time.Duration(-1)
				if kv.Lease != 0 {
					row.lease = leaseOf(ctx, client, clientv3.LeaseID(kv.Lease))
				}
				rows = append(rows, row)
			}
		}
		return printWorkloads(c.OutOrStdout(), *format, rows)
	}
	return command
}

// leaseOf is what is left of a lease; -1: unknown.
func leaseOf(ctx context.Context, client *clientv3.Client, id clientv3.LeaseID) time.Duration {
	response, err := client.TimeToLive(ctx, id)
	if err != nil {
		return -1
	}
	return time.Duration(response.TTL) * time.Second
}

// listed is a row of 'workload list'.
type listed struct {
	name   etcd.Name
	record etcd.Record
	bad    string
	lease  time.Duration // what is left; -1: none
}

func listedOf(path string, value []byte, cluster mesh.ClusterID) (l listed, ok bool) {
	name, err := etcd.ParseName(path)
	if err != nil || name.Folder == etcd.Services {
		return l, false
	}
	l.name = name
	l.record, err = parseWorkload(name, value, cluster)
	if err != nil {
		l.bad = err.Error()
	}
	return l, true
}

func printWorkloads(w io.Writer, format string, rows []listed) error {
	list := cli.List{Kind: "Workload", Columns: []cli.Column{
		{Title: "NAME"}, {Title: "SERVICE"}, {Title: "ADDRESS"}, {Title: "HEALTH"}, {Title: "BY"}, {Title: "LEASE"},
		{Title: "ZONE", Wide: true}, {Title: "IDENTITY", Wide: true}, {Title: "LABELS", Wide: true},
	}}
	for _, row := range rows {
		cells, item := row.print()
		list.Rows = append(list.Rows, cli.Row{Name: row.name.Workload, Cells: cells, Item: item})
	}
	return list.Print(w, format)
}

func (l *listed) print() (cells []string, item map[string]any) {
	by := "registration"
	if l.name.Folder == etcd.Sidecars {
		by = "sidecar"
	}
	item = map[string]any{"name": l.name.Workload, "service": l.name.Service.String(), "by": by}
	if l.lease >= 0 {
		item["leaseSeconds"] = int(l.lease.Seconds())
	}
	if l.bad != "" {
		item["error"] = l.bad
		return []string{l.name.Workload, l.name.Service.String(), "<bad>", "<bad>", by, cli.Age(l.lease), "", "", l.bad}, item
	}
	e := l.record.Slice.Endpoints[0]
	zone := strings.Trim(e.Locality.Zone+"/"+e.Locality.Subzone, "/")
	identity := "<none>"
	if !e.Identity.IsZero() {
		identity = e.Identity.String()
		item["identity"] = identity
	}
	labels := make([]string, 0, len(e.Labels))
	for key, value := range e.Labels {
		labels = append(labels, key+"="+value)
	}
	item["address"], item["ports"], item["health"], item["zone"], item["labels"], item["weight"] = e.Address.String(), e.Ports, e.Health, zone, e.Labels, e.Weight
	return []string{l.name.Workload, l.name.Service.String(), e.Address.String(), string(e.Health), by, cli.Age(l.lease), zone, identity, strings.Join(labels, ",")}, item
}
