package kube

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/periplus-mesh/periplus/cluster-agent/kube/convert"
)

// Labels that the source reads.
const (
	// SidecarLabel, with the value "true", is how a pod says that its ports are a sidecar's: they speak the mesh's
	// mTLS with the identity of the pod's service account.
	SidecarLabel  = "periplus.io/sidecar"
	networkLabel  = "topology.istio.io/network"
	subzoneLabel  = "topology.istio.io/subzone"
	serviceOfName = discoveryv1.LabelServiceName
)

// ownLabels begin the labels that name one pod or one revision. Other clusters count endpoints by their labels:
// these would make as many counts as pods.
func ownLabels() []string {
	return []string{
		"pod-template-hash", "controller-revision-hash", "pod-template-generation", "statefulset.kubernetes.io/pod-name",
		"apps.kubernetes.io/pod-index", "batch.kubernetes.io/", "controller-uid", "job-name",
	}
}

// entry is a record as reflectors keep it for the time of a list: to them it is an object with a name.
type entry struct{ convert.Record }

// GetObjectKind and DeepCopyObject make an entry an object for client-go. Records are never written.
func (e entry) GetObjectKind() schema.ObjectKind { return schema.EmptyObjectKind }

func (e entry) DeepCopyObject() runtime.Object { return e }

// GetObjectMeta gives it a name.
func (e entry) GetObjectMeta() metav1.Object {
	name := e.Of()
	return &metav1.ObjectMeta{Namespace: name.Namespace, Name: name.Name}
}

// read cuts an object down to an entry. What is one already stays.
func read(object any) (any, error) {
	switch o := object.(type) {
	case *corev1.Service:
		return entry{readService(o)}, nil
	case *discoveryv1.EndpointSlice:
		return entry{readSlice(o)}, nil
	case *corev1.Pod:
		return entry{readPod(o)}, nil
	case *corev1.Node:
		return entry{readNode(o)}, nil
	case *unstructured.Unstructured:
		return entry{readExport(o)}, nil
	case entry:
		return o, nil
	}
	return nil, fmt.Errorf("kubernetes: object of type %T", object)
}

func nameOf(o metav1.Object) convert.Name {
	return convert.Name{Namespace: o.GetNamespace(), Name: o.GetName()}
}

func readService(o *corev1.Service) *convert.Service {
	out := &convert.Service{Name: nameOf(o), External: o.Spec.Type == corev1.ServiceTypeExternalName}
	for _, port := range o.Spec.Ports {
		p := convert.Port{Name: port.Name, Number: number(port.Port), Protocol: string(port.Protocol)}
		if port.AppProtocol != nil {
			p.App = *port.AppProtocol
		}
		if p.Protocol == "" {
			p.Protocol = "TCP"
		}
		out.Ports = append(out.Ports, p)
	}
	for _, family := range o.Spec.IPFamilies {
		out.Families = append(out.Families, convert.Family(family))
	}
	return out
}

// number is a port, 0 if it is none.
func number(port int32) uint16 {
	if port < 1 || port > math.MaxUint16 {
		return 0
	}
	return uint16(port)
}

func readSlice(o *discoveryv1.EndpointSlice) *convert.Slice {
	out := &convert.Slice{Name: nameOf(o), Service: o.Labels[serviceOfName], Family: convert.Family(o.AddressType), Ports: map[string]uint16{}}
	for _, port := range o.Ports {
		if port.Port == nil || port.Protocol != nil && *port.Protocol != corev1.ProtocolTCP {
			continue
		}
		name := ""
		if port.Name != nil {
			name = *port.Name
		}
		out.Ports[name] = number(*port.Port)
	}
	for i := range o.Endpoints {
		e := &o.Endpoints[i]
		if len(e.Addresses) == 0 {
			continue
		}
		address, err := netip.ParseAddr(e.Addresses[0]) // the others are not used, as in Kubernetes itself
		if err != nil && out.Family != "FQDN" {
			continue // the API server admits none
		}
		out.Endpoints = append(out.Endpoints, readEndpoint(e, address))
	}
	return out
}

// readEndpoint applies what the API says of absent conditions: ready is true, serving is as ready, terminating false.
func readEndpoint(e *discoveryv1.Endpoint, address netip.Addr) convert.Endpoint {
	is := func(condition *bool, absent bool) bool {
		if condition == nil {
			return absent
		}
		return *condition
	}
	out := convert.Endpoint{Address: address.Unmap(), Ready: is(e.Conditions.Ready, true), Terminating: is(e.Conditions.Terminating, false)}
	out.Serving = is(e.Conditions.Serving, out.Ready)
	if e.TargetRef != nil && e.TargetRef.Kind == "Pod" {
		out.Pod = e.TargetRef.Name
	}
	if e.NodeName != nil {
		out.Node = *e.NodeName
	}
	if e.Zone != nil {
		out.Zone = *e.Zone
	}
	return out
}

func readPod(o *corev1.Pod) *convert.Pod {
	out := &convert.Pod{
		Name: nameOf(o), Node: o.Spec.NodeName, Account: o.Spec.ServiceAccountName, Network: o.Labels[networkLabel],
		Sidecar: o.Labels[SidecarLabel] == "true", Labels: make(map[string]string, len(o.Labels)),
	}
	own := ownLabels()
	for name, value := range o.Labels {
		if !slices.ContainsFunc(own, func(prefix string) bool { return strings.HasPrefix(name, prefix) }) {
			out.Labels[name] = value
		}
	}
	return out
}

func readNode(o *corev1.Node) *convert.Node {
	return &convert.Node{
		Name: o.Name, Region: o.Labels[corev1.LabelTopologyRegion], Zone: o.Labels[corev1.LabelTopologyZone], Subzone: o.Labels[subzoneLabel],
	}
}

// readExport takes from the status only what the source itself writes there.
func readExport(o *unstructured.Unstructured) *convert.Export {
	out := &convert.Export{Name: nameOf(o)}
	conditions, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
	for _, c := range conditions {
		if condition, ok := c.(map[string]any); ok && condition["type"] == conditionValid {
			reason, _ := condition["reason"].(string)
			out.Told = convert.Validity(reason)
		}
	}
	return out
}
