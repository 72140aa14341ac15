package kube

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"

	"github.com/periplus-mesh/periplus/cluster-agent/kube/convert"
)

// resources is how many kinds are read.
const resources = 5

// runningPods leaves out those that have ended: no EndpointSlice names them.
const runningPods = "status.phase!=Succeeded,status.phase!=Failed"

// kind is one resource: its name, a record of it, and how to list and watch it.
type kind struct {
	name     string
	record   convert.Record
	example  runtime.Object
	newList  func() runtime.Object // nil: unstructured
	selector string                // of fields
	group    schema.GroupVersion
	path     string // of the API
	optional bool   // an API server may not have it
}

// kinds are the resources that every API server has: one that does not find them is not up yet, or is none.
func kinds() []kind {
	core, discovery := corev1.SchemeGroupVersion, discoveryv1.SchemeGroupVersion
	return []kind{
		{name: "services", record: &convert.Service{}, example: &corev1.Service{}, newList: func() runtime.Object { return &corev1.ServiceList{} }, group: core, path: "/api"},
		{name: "pods", record: &convert.Pod{}, example: &corev1.Pod{}, newList: func() runtime.Object { return &corev1.PodList{} }, selector: runningPods, group: core, path: "/api"},
		{name: "nodes", record: &convert.Node{}, example: &corev1.Node{}, newList: func() runtime.Object { return &corev1.NodeList{} }, group: core, path: "/api"},
		{name: "endpointslices", record: &convert.Slice{}, example: &discoveryv1.EndpointSlice{}, newList: func() runtime.Object { return &discoveryv1.EndpointSliceList{} }, group: discovery, path: "/apis"},
	}
}

// lister lists and watches one kind.
type lister interface {
	list(context.Context, metav1.ListOptions) (runtime.Object, error)
	watch(context.Context, metav1.ListOptions) (watch.Interface, error)
}

// typed is a lister of objects that Kubernetes has Go types for. They come as protobuf: half the work of JSON.
type typed struct {
	kind   kind
	client *rest.RESTClient
	codec  runtime.ParameterCodec
}

func newTyped(connection *rest.Config, k kind) (*typed, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, discoveryv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	config := rest.CopyConfig(connection)
	config.GroupVersion, config.APIPath = &k.group, k.path
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	config.ContentType, config.AcceptContentTypes = runtime.ContentTypeProtobuf, runtime.ContentTypeProtobuf+","+runtime.ContentTypeJSON
	client, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, err
	}
	return &typed{k, client, runtime.NewParameterCodec(scheme)}, nil
}

func (t *typed) list(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	page := t.kind.newList()
	o.FieldSelector = t.kind.selector
	if err := t.client.Get().Resource(t.kind.name).VersionedParams(&o, t.codec).Do(ctx).Into(page); err != nil {
		return nil, err
	}
	return cut(page)
}

func (t *typed) watch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	o.Watch, o.FieldSelector = true, t.kind.selector
	var timeout time.Duration
	if o.TimeoutSeconds != nil {
		timeout = time.Duration(*o.TimeoutSeconds) * time.Second
	}
	return t.client.Get().Resource(t.kind.name).VersionedParams(&o, t.codec).Timeout(timeout).Watch(ctx)
}

// cut makes a page of a list one of entries, before the next page is fetched.
func cut(page runtime.Object) (*metainternalversion.List, error) {
	list, err := meta.ListAccessor(page)
	if err != nil {
		return nil, err
	}
	out := &metainternalversion.List{ListMeta: metav1.ListMeta{
		ResourceVersion: list.GetResourceVersion(), Continue: list.GetContinue(), RemainingItemCount: list.GetRemainingItemCount(),
	}}
	return out, meta.EachListItem(page, func(object runtime.Object) error {
		e, err := read(object)
		if err == nil {
			out.Items = append(out.Items, e.(entry))
		}
		return err
	})
}
