package kube

import (
	"context"
	"flag"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/periplus-mesh/periplus/integration/harness"
	"github.com/periplus-mesh/periplus/integration/realdeps"
)

var (
	services  = flag.Int("services", 300, "Services of TestInitialSync")
	endpoints = flag.Int("endpoints", 10, "endpoints of each, a Pod behind each")
	syncWant  = flag.Duration("sync", 10*time.Second, "longest initial sync")
	rssWant   = flag.Int("rss", 300, "most memory of the agent, MiB")
)

// An agent that starts in a cluster full of Services knows them soon, and stays small.
func TestInitialSync(t *testing.T) {
	k := realdeps.StartKubernetes(t, realdeps.StartEtcd(t), "full")
	began := time.Now()
	fill(t, k)
	t.Logf("%d Services and %d Pods written in %s", *services, *services**endpoints, time.Since(began).Round(time.Millisecond))
	m := harness.New(t, harness.Options{Prefix: prefix})
	c := m.Cluster(harness.ClusterOptions{Name: "full", CIDR: "10.128.0.0/9"})
	c.Authority()
	c.AgentProgram = "periplus-agent"
	agent := c.StartAgent("--kubeconfig", k.Kubeconfig)
	c.AwaitAgent(agent)
	took := time.Duration(metric(t, c, "periplus_agent_kubernetes_initial_sync_seconds") * float64(time.Second))
	var most uint64
	for range 20 { // the report to the controllers and the copy on disk are made meanwhile
		most = max(most, agent.RSS())
		time.Sleep(250 * time.Millisecond)
	}
	t.Logf("initial sync %s; RSS of the agent at most %d MiB, then %d MiB; %.1f s of CPU", took.Round(time.Millisecond), most>>20, agent.RSS()>>20,
		metric(t, c, "process_cpu_seconds_total"))
	if got := metric(t, c, `periplus_agent_kubernetes_objects{resource="pods"}`); got != float64(*services**endpoints) {
		t.Errorf("%v pods, want %d", got, *services**endpoints)
	}
	if took > *syncWant || most>>20 > uint64(*rssWant) {
		t.Errorf("initial sync %s and %d MiB, at most %s and %d MiB are wanted", took, most>>20, *syncWant, *rssWant)
	}
}

// fill writes Services, a slice for each, and a Pod for each endpoint, many at once.
func fill(t *testing.T, k *realdeps.Kubernetes) {
	t.Helper()
	k.Kubectl("", "create", "namespace", "shop")
	apply(k, node("node-1", "z1"))
	core, discovery := client(t, k, corev1.SchemeGroupVersion, "/api"), client(t, k, discoveryv1.SchemeGroupVersion, "/apis")
	var group errgroup.Group
	group.SetLimit(64)
	var written atomic.Int64
	create := func(c *rest.RESTClient, resource string, object runtime.Object) {
		group.Go(func() error {
			written.Add(1)
			return c.Post().Namespace("shop").Resource(resource).Body(object).Do(context.Background()).Error()
		})
	}
	for s := range *services {
		service, slice := manyService(s)
		create(core, "services", service)
		for e := range *endpoints {
			pod := manyPod(s, e)
			slice.Endpoints = append(slice.Endpoints, manyEndpoint(pod.Name, s**endpoints+e))
			create(core, "pods", pod)
		}
		create(discovery, "endpointslices", slice)
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
}

func client(t *testing.T, k *realdeps.Kubernetes, group schema.GroupVersion, path string) *rest.RESTClient {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", k.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	if err := discoveryv1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	config.GroupVersion, config.APIPath, config.QPS = &group, path, -1
	config.NegotiatedSerializer, config.ContentType = serializer.NewCodecFactory(scheme).WithoutConversion(), runtime.ContentTypeProtobuf
	out, err := rest.RESTClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func manyService(s int) (*corev1.Service, *discoveryv1.EndpointSlice) {
	name, port := fmt.Sprintf("service-%d", s), "http"
	number, protocol := int32(15006), corev1.ProtocolTCP
	// Without an address of its own: the API server gives those out one by one, from a range.
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ServiceSpec{
		ClusterIP: corev1.ClusterIPNone, Ports: []corev1.ServicePort{{Name: port, Port: 80}},
	}}
	return service, &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Name: name + "-x", Labels: map[string]string{discoveryv1.LabelServiceName: name}}, AddressType: discoveryv1.AddressTypeIPv4,
		Ports: []discoveryv1.EndpointPort{{Name: &port, Port: &number, Protocol: &protocol}},
	}
}

func manyEndpoint(pod string, n int) discoveryv1.Endpoint {
	node, ready := "node-1", true
	return discoveryv1.Endpoint{
		Addresses: []string{fmt.Sprintf("10.%d.%d.%d", 128+n>>16, n>>8&255, n&255)}, Conditions: discoveryv1.EndpointConditions{Ready: &ready},
		NodeName: &node, TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: "shop", Name: pod},
	}
}

// manyPod is as big as pods are: two containers with environments and probes, labels, an annotation.
func manyPod(s, e int) *corev1.Pod {
	service := fmt.Sprintf("service-%d", s)
	container := func(name string) corev1.Container {
		c := corev1.Container{Name: name, Image: "registry.example.org/shop/" + name + ":v1.2.3"}
		for i := range 20 {
			c.Env = append(c.Env, corev1.EnvVar{Name: fmt.Sprintf("SETTING_%d", i), Value: fmt.Sprintf("value-of-%d-for-%s", i, service)})
		}
		return c
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name:        fmt.Sprintf("%s-5d8f9c7b6d-%05d", service, e),
			Labels:      map[string]string{"app": service, "version": "v1", "pod-template-hash": "5d8f9c7b6d", "periplus.io/sidecar": "true"},
			Annotations: map[string]string{"example.org/checksum": "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"},
		},
		Spec: corev1.PodSpec{NodeName: "node-1", ServiceAccountName: service, Containers: []corev1.Container{container("app"), container("sidecar")}},
	}
}
