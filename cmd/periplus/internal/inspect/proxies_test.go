package inspect

import (
	"strings"
	"testing"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
)

// What an agent that is gone said last is not what is.
func TestProxyStatusDoesNotVouchForOldReports(t *testing.T) {
	state := &pb.ProxyState{Id: "sidecar~east~catalog-1", Role: "sidecar", Types: map[string]string{"CDS": "SYNCED", "EDS": "ERROR"}, AckAgeMs: 1000}
	var out strings.Builder
	list := proxyList([]*pb.ProxyStatus{
		{Cluster: "east", State: state, AgeMs: 1000, Replica: "g-1"}, {Cluster: "east", State: state, AgeMs: 60_000},
	})
	if err := list.Print(&out, "table"); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out.String(), "\n")
	for i, want := range []string{
		"NAME CLUSTER ROLE CDS EDS LDS RDS LAST-ACK REPORTED CONTROLLER", "catalog-1 east sidecar SYNCED ERROR - - 1s 1s g-1",
		"catalog-1 east sidecar was SYNCED was ERROR - - 1s 60s <none>",
	} {
		if got := strings.Join(strings.Fields(lines[i]), " "); got != want {
			t.Errorf("line %d: %q, want %q", i, got, want)
		}
	}
}
