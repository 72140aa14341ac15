package prometheus

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/periplus-mesh/periplus/integration/harness"
	"github.com/periplus-mesh/periplus/integration/realdeps"
)

// scene is a mesh with traffic from west through a gateway to east, and a Prometheus that watches all of it.
type scene struct {
	*harness.Mesh
	*realdeps.Prometheus
	promtool string
	visitor  *harness.Sidecar
	targets  map[string]string // URL by job
}

// requests are sent before anything is asked; lost to a service that has no endpoint.
const requests, lost = 400, 40

func TestPrometheus(t *testing.T) {
	s := newScene(t)
	t.Run("EveryTargetIsUp", s.up)
	t.Run("WhatHappenedIsThere", s.series)
	t.Run("PromtoolFindsNothing", s.check)
	t.Run("EveryMetricIsDescribed", s.described)
	t.Run("RulesUseWhatThereIs", s.rules)
}

func newScene(t *testing.T) *scene {
	s := &scene{promtool: realdeps.Path(t, "promtool")}
	realdeps.Path(t, "prometheus")
	s.Mesh = harness.New(t, harness.Options{Prefix: "127.47", Controllers: 3})
	east, west := s.Cluster(harness.ClusterOptions{Name: "east"}), s.Cluster(harness.ClusterOptions{Name: "west"})
	west.AgentProgram = "periplus-agent" // the same agent, and what it can do with Kubernetes
	for c, flags := range map[*harness.Cluster][]string{east: nil, west: {"--kubernetes=false"}} {
		c.Authority()
		c.Agent(append(flags, "--services", c.Services("catalog.shop:http:80:http", "empty.shop:http:80:http"))...)
	}
	east.Gateway("east-gateway", "a")
	east.Sidecar(harness.SidecarOptions{Name: "catalog-7d9f-1", Service: "catalog.shop", Zone: "a", App: s.App(t, "catalog")})
	s.visitor = west.Sidecar(harness.SidecarOptions{Name: "visitor-5c8b-1", Service: "visitor.shop", Zone: "b"})
	harness.Eventually(t, 30*time.Second, "a request", harness.Answered(s.visitor.Outbound, "catalog.shop", "catalog"))
	root, err := realdeps.Root()
	if err != nil {
		t.Fatal(err)
	}
	s.Prometheus = realdeps.StartPrometheus(t, s.configuration(filepath.Join(root, "deploy/prometheus/rules.yml")))
	s.up(t) // Prometheus takes five seconds to begin; rates are of what it sees
	s.traffic(t)
	return s
}

// configuration scrapes every process once a second, and has the rules of deploy.
func (s *scene) configuration(rules string) string {
	s.targets = map[string]string{}
	jobs := map[string][]string{}
	for _, u := range s.MetricsURLs {
		at, _ := url.Parse(u)
		job := "periplus-sidecars"
		switch {
		case strings.HasPrefix(at.Host, s.Prefix+".250."):
			job = "periplus-controllers"
		case strings.HasPrefix(at.Hostname(), s.Prefix) && strings.HasSuffix(at.Hostname(), ".2"):
			job = "periplus-agents"
		case strings.HasSuffix(at.Hostname(), ".11"):
			job = "periplus-gateways"
		}
		jobs[job] = append(jobs[job], fmt.Sprintf("%q", at.Host))
		s.targets[fmt.Sprintf("%s %s", job, at.Host)] = u
	}
	text := "global: {scrape_interval: 1s, evaluation_interval: 1s}\nrule_files: [" + rules + "]\nscrape_configs:\n"
	for job, hosts := range jobs {
		text += fmt.Sprintf("- {job_name: %s, static_configs: [{targets: [%s]}]}\n", job, strings.Join(hosts, ", "))
	}
	return text
}

// traffic is requests, and a change for xDS to push.
func (s *scene) traffic(t *testing.T) {
	t.Helper()
	s.Apply(`apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: catalog, namespace: shop}
spec: {host: catalog.shop.svc.cluster.local, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}}
`)
	client := harness.NewClient(s.visitor.Outbound)
	defer client.CloseIdleConnections()
	began := time.Now()
	for i := range requests + lost {
		authority, want := "catalog.shop", http.StatusOK
		if i%(requests/lost+1) == 0 {
			authority, want = "empty.shop", http.StatusServiceUnavailable
		}
		request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://"+authority+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != want {
			t.Fatalf("%s: %s", authority, response.Status)
		}
		time.Sleep(max(0, time.Until(began.Add(time.Duration(i)*10*time.Millisecond)))) // rates need seconds
	}
}

func (s *scene) up(t *testing.T) {
	harness.Eventually(t, 15*time.Second, "every target up", func() error {
		samples, err := s.Query(`up`)
		var down []string
		for _, sample := range samples {
			if sample.Value != 1 {
				down = append(down, sample.Labels["instance"])
			}
		}
		if err == nil && (len(samples) != len(s.MetricsURLs) || len(down) > 0) {
			err = fmt.Errorf("%d targets, want %d; down: %v", len(samples), len(s.MetricsURLs), down)
		}
		return err
	})
}

// series asks what an operator would.
func (s *scene) series(t *testing.T) {
	for _, test := range []struct {
		expression string
		low, high  float64 // of each sample
		samples    int
	}{
		{`sum(istio_requests_total{reporter="source",destination_service=~"catalog.shop.*",response_code="200"})`, requests, requests + 20, 1},
		{`sum(istio_requests_total{reporter="source",destination_service=~"empty.shop.*",response_code="503",response_flags=~".*UH.*"})`, lost, lost, 1},
		{`sum(istio_requests_total{reporter="destination",source_principal="spiffe://west.test/ns/shop/sa/visitor",connection_security_policy="mutual_tls"})`, requests, requests + 20, 1},
		{`sum(service_region:istio_requests:rate1m{source_region="west",destination_region="east"})`, 5, 120, 1},
		{`service:istio_requests_errors:ratio1m{destination_service=~"empty.*"}`, 1, 1, 1},
		{`histogram_quantile(0.5, sum by (le) (rate(istio_request_duration_milliseconds_bucket{reporter="source",response_code="200"}[1m])))`, .01, 250, 1},
		{`mesh:pilot_xds_push_time:p99_5m`, 1e-6, 3, 1},
		{`mesh:pilot_proxy_convergence_time:p99_5m`, 1e-6, 5, 1},
		{`periplus_mesh_policies`, 1, 1, 3},
		{`sum by (instance) (pilot_xds_pushes{job="periplus-agents",type="eds"})`, 1, 1e4, 2},
		{`sum by (instance) (pilot_xds{job="periplus-agents"})`, 1, 2, 2},
		{`sum(pilot_xds{job="periplus-controllers"})`, 2, 2, 1}, // two agents
		{`sum(pilot_total_xds_rejects)`, 0, 0, 1},
		{`sum(raft_state == bool 2)`, 1, 1, 1},
		{`raft_peers`, 3, 3, 3},
		{`scalar(max(raft_commit_index)) - raft_applied_index`, 0, 5, 3},
		{`periplus_mesh_clusters{state="active"}`, 2, 2, 3},
		{`periplus_mesh_services`, 2, 2, 3},
		{`periplus_mesh_endpoints{cluster="east",health="healthy"}`, 1, 1, 3},
		{`periplus_mesh_endpoints{cluster="west"}`, 0, 0, 9},
		{`periplus_mesh_gateways{cluster="east",health="healthy"}`, 1, 1, 3},
		{`periplus_cluster_agent_connected`, 1, 1, 6},
		{`min by (cluster) (periplus_cluster_agent_age_seconds)`, 0, 10, 2},
		{`periplus_cluster_credential_expiry_timestamp_seconds - time()`, 1800, 3700, 6},
		{`periplus_agent_credential_expiry_timestamp_seconds - time()`, 1800, 3700, 2},
		{`sum(periplus_agent_workloads{state="connected"})`, 2, 2, 1}, // a sidecar that only sends announces nothing
		{`periplus_agent_report_connected`, 1, 1, 2},
		{`periplus_trust_svid_expiry_timestamp_seconds - time()`, 1200, 3700, 3},
		{`periplus_gateway_connections_opened_total`, 1, 1e4, 1},
		{`periplus_gateway_received_bytes_total`, 1000, 1e9, 1},
		{`sum(periplus_gateway_rejected_total)`, 0, 0, 1},
		{`periplus_proxy_ready`, 1, 1, 2},
		{`process_resident_memory_bytes`, 1e6, 500e6, len(s.MetricsURLs)},
		// Of what happened, one alert is right: the service without endpoints fails.
		{`count(ALERTS{alertname!="PeriplusErrors"}) or vector(0)`, 0, 0, 1},
		{`count(ALERTS{alertname="PeriplusErrors"})`, 1, 1, 1},
	} {
		harness.Eventually(t, 10*time.Second, test.expression, func() error {
			samples, err := s.Query(test.expression)
			if err == nil && len(samples) != test.samples {
				err = fmt.Errorf("%d samples, want %d: %v", len(samples), test.samples, samples)
			}
			for _, sample := range samples {
				if !(sample.Value >= test.low && sample.Value <= test.high) { // a NaN is neither
					err = errors.Join(err, fmt.Errorf("%v, want %v to %v", sample, test.low, test.high))
				}
			}
			return err
		})
	}
	// A pod's name is in no label: series must not come and go with pods.
	samples, err := s.Query(`{__name__=~".+",job=~"periplus-.*"}`)
	if err != nil || len(samples) < 500 {
		t.Fatalf("%d series, %v", len(samples), err)
	}
	t.Logf("%d series of %d processes", len(samples), len(s.MetricsURLs))
	for _, sample := range samples {
		for label, value := range sample.Labels {
			if strings.Contains(value, "7d9f") || strings.Contains(value, "5c8b") {
				t.Errorf("%s{%s=%q}", sample.Labels["__name__"], label, value)
			}
		}
	}
}

// accepted are names that Istio's users know, against which promtool has something: Istio's own processes expose them
// under the same names.
var accepted = map[string]bool{
	`istio_request_duration_milliseconds use base unit "seconds" instead of "milliseconds"`: true,
	`pilot_total_xds_rejects counter metrics should have "_total" suffix`:                   true,
	`pilot_xds_pushes counter metrics should have "_total" suffix`:                          true,
}

func (s *scene) check(t *testing.T) {
	seen := map[string]bool{}
	for target, u := range s.targets {
		text := scrape(t, u)
		command := exec.Command(s.promtool, "check", "metrics")
		command.Stdin = strings.NewReader(text)
		output, err := command.CombinedOutput()
		for line := range strings.Lines(string(output)) {
			line = strings.TrimSpace(line)
			if seen[line] = true; !accepted[line] {
				t.Errorf("%s: %s (%v)", target, line, err)
			}
		}
		if help, kinds := strings.Count(text, "\n# HELP "), strings.Count(text, "\n# TYPE "); help != kinds || help < 20 {
			t.Errorf("%s: %d metrics, %d with help", target, kinds, help)
		}
	}
	for complaint := range accepted {
		if !seen[complaint] {
			t.Errorf("accepted, and no longer said: %s", complaint)
		}
	}
	for _, args := range [][]string{{"check", "rules", "rules.yml"}, {"check", "config", "prometheus.yml"}, {"test", "rules", "rules_test.yml"}} {
		command := exec.Command(s.promtool, args...)
		command.Dir = deployed(t)
		if output, err := command.CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, output)
		}
	}
}

func deployed(t *testing.T) string {
	t.Helper()
	root, err := realdeps.Root()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(root, "deploy/prometheus")
}

func scrape(t *testing.T, u string) string {
	t.Helper()
	text, err := fetch(u)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
