package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The page in a real browser shows the regions, clusters and live traffic; every replica serves it.
func TestDashboardInABrowser(t *testing.T) {
	browser, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is missing: the dashboard is not opened in a browser")
	}
	time.Sleep(3 * time.Second) // a load report or two
	for i := range 3 {
		picture := filepath.Join(t.TempDir(), "dashboard.png")
		flags := func(extra ...string) []string {
			return append([]string{
				"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
				"--disable-component-update", "--disable-sync", "--hide-scrollbars", "--window-size=1280,1700", "--user-data-dir=" + t.TempDir(),
				"--virtual-time-budget=5000",
			}, append(extra, running.plan.DashboardURL(i))...)
		}
		within(t, 30*time.Second, fmt.Sprintf("the page of replica %d shows live traffic", i), func() error {
			dom, err := exec.Command(browser, flags("--dump-dom")...).Output()
			if err != nil {
				return err
			}
			for _, want := range []string{"3 regions, 3 clusters", "eu-west", "us-east", "ap-south", "catalog.shop", `data-from="eu-west" data-to="eu-west"`, "/s<span", "leader controller-"} {
				if !strings.Contains(string(dom), want) {
					return fmt.Errorf("%q is not on the page", want)
				}
			}
			return nil
		})
		if output, err := exec.Command(browser, flags("--screenshot="+picture)...).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, output)
		}
		if info, err := os.Stat(picture); err != nil || info.Size() < 10_000 {
			t.Errorf("screenshot: %v %v", info, err)
		}
		if keep := os.Getenv("PERIPLUS_SCREENSHOTS"); keep != "" {
			data, _ := os.ReadFile(picture)
			os.WriteFile(filepath.Join(keep, fmt.Sprintf("dashboard-%d.png", i)), data, 0o644)
		}
	}
}

// The dashboard's listener has no certificate, so nothing that changes state is reachable there.
func TestDashboardIsReadOnly(t *testing.T) {
	base := strings.TrimSuffix(running.plan.DashboardURL(0), "/")
	for _, method := range []string{
		"ClusterService/RegisterCluster", "ClusterService/RemoveCluster", "ClusterService/SetClusterState", "ClusterService/RotateCluster",
		"PolicyService/ApplyPolicy", "PolicyService/DeletePolicy", "MeshService/AddMember", "MeshService/RemoveMember",
	} {
		response, err := http.Post(base+"/periplus.v1."+method, "application/json", strings.NewReader(`{"id":"eu-west"}`))
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode < 400 {
			t.Errorf("%s: status %d %s", method, response.StatusCode, body)
		}
	}
}
