package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"

	"github.com/periplus-mesh/periplus/cluster-agent/kube/convert"
	"github.com/periplus-mesh/periplus/internal/mesh"
)

const (
	exportGroup    = "multicluster.x-k8s.io"
	exportResource = "serviceexports"
	lookAgain      = 2 * time.Second // for a definition of ServiceExport that is not there
	conditionValid = "Valid"
)

// exportVersions are those that are understood, the best one first.
func exportVersions() []string { return []string{"v1beta1", "v1alpha1"} }

// exporter follows the ServiceExports, whose definition may come and go, and writes their conditions.
type exporter struct {
	core    *typed // any client of the API server, for questions
	dynamic dynamic.Interface
	engine  *engine
	log     *slog.Logger
	metrics *metrics
	// patience is how long the definition must be missing for there to be no exports: an API server that starts may not
	// serve it yet.
	patience time.Duration
	missing  time.Time // since when it is; zero: it is not
}

// unstructuredLister lists and watches what has no Go type here.
type unstructuredLister struct{ resource dynamic.ResourceInterface }

func (u unstructuredLister) list(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	return u.resource.List(ctx, o)
}

func (u unstructuredLister) watch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	return u.resource.Watch(ctx, o)
}

// run looks for the definition and follows the exports as long as it is there.
func (x *exporter) run(ctx context.Context) error {
	f := &follower{kind: kind{name: exportResource, record: &convert.Export{}, optional: true}, engine: x.engine, log: x.log, metrics: x.metrics}
	for ctx.Err() == nil {
		resource, err := persist(ctx, f, func() (schema.GroupVersionResource, error) { return x.find(ctx) })
		switch {
		case err == nil:
			x.missing = time.Time{}
			x.log.Info("kubernetes resource is served", "resource", exportResource, "version", resource.Version)
			x.follow(ctx, f, resource)
		case classify(err) == absent:
			x.none(time.Now())
		}
		sleep(ctx, lookAgain)
	}
	return nil
}

// none says that there are no exports, unless there were: those that go are told one by one.
func (x *exporter) none(now time.Time) {
	if x.missing.IsZero() {
		x.missing = now
	}
	if now.Sub(x.missing) >= x.patience && !x.engine.isListed(exportResource) {
		x.engine.replace(exportResource, &convert.Export{}, nil)
	}
}

// patienceWith is for an agent that said held before it was restarted: what it exported is not withdrawn at a glance.
func patienceWith(held []mesh.Object) time.Duration {
	exported := func(o mesh.Object) bool { s, ok := o.(*mesh.Service); return ok && s.Exported }
	if slices.ContainsFunc(held, exported) {
		return time.Minute
	}
	return 0
}

func (x *exporter) follow(ctx context.Context, f *follower, resource schema.GroupVersionResource) {
	example := &unstructured.Unstructured{}
	example.SetGroupVersionKind(resource.GroupVersion().WithKind("ServiceExport"))
	f.kind.example, f.lister = example, unstructuredLister{x.dynamic.Resource(resource)}
	writing, stop := context.WithCancel(ctx)
	written := make(chan struct{})
	go func() { defer close(written); x.write(writing, resource) }()
	f.run(ctx)
	stop()
	<-written
}

// find returns the best version of ServiceExport that is served, or NotFound.
func (x *exporter) find(ctx context.Context) (schema.GroupVersionResource, error) {
	var group metav1.APIGroup
	if err := x.ask(ctx, "/apis/"+exportGroup, &group); err != nil {
		return schema.GroupVersionResource{}, err
	}
	for _, version := range exportVersions() {
		if !slices.ContainsFunc(group.Versions, func(v metav1.GroupVersionForDiscovery) bool { return v.Version == version }) {
			continue
		}
		var served metav1.APIResourceList
		if err := x.ask(ctx, "/apis/"+exportGroup+"/"+version, &served); err != nil {
			return schema.GroupVersionResource{}, err
		}
		if slices.ContainsFunc(served.APIResources, func(r metav1.APIResource) bool { return r.Name == exportResource }) {
			return schema.GroupVersionResource{Group: exportGroup, Version: version, Resource: exportResource}, nil
		}
	}
	return schema.GroupVersionResource{}, apierrors.NewNotFound(schema.GroupResource{Group: exportGroup, Resource: exportResource}, "")
}

func (x *exporter) ask(ctx context.Context, path string, out any) error {
	data, err := x.core.client.Get().AbsPath(path).SetHeader("Accept", runtime.ContentTypeJSON).Do(ctx).Raw()
	if err != nil {
		return err
	}
	return json.Unmarshal(data, out)
}

func truth(v convert.Validity) string {
	if v == convert.Valid {
		return string(metav1.ConditionTrue)
	}
	return string(metav1.ConditionFalse)
}

// write keeps the condition Valid of each export as it is, until ctx is done.
func (x *exporter) write(ctx context.Context, resource schema.GroupVersionResource) {
	for ctx.Err() == nil {
		wait := time.Hour
		for name, validity := range x.engine.untold() {
			if err := x.patch(ctx, resource, name, validity); err != nil && ctx.Err() == nil {
				wait = x.failed(name, err)
			}
		}
		select {
		case <-ctx.Done():
		case <-x.engine.exports:
		case <-time.After(wait):
		}
	}
}

// failed tells when to try again: without the right to write, not soon.
func (x *exporter) failed(name convert.Name, err error) time.Duration {
	if apierrors.IsNotFound(err) {
		return time.Hour // the export is gone, or on its way
	}
	outcome, wait := "failed", lookAgain
	if classify(err) == forbidden {
		outcome, wait = "refused", 10*time.Minute
	}
	x.metrics.conditions.WithLabelValues(outcome).Inc()
	x.log.Warn("condition of a ServiceExport could not be written; the export is in force all the same", "service", name, "cure", classify(err).cure(), "err", err)
	return wait
}

func (x *exporter) patch(ctx context.Context, resource schema.GroupVersionResource, name convert.Name, validity convert.Validity) error {
	condition := map[string]any{
		"type": conditionValid, "status": truth(validity), "reason": string(validity), "message": validityText(validity),
		"lastTransitionTime": time.Now().UTC().Format(time.RFC3339),
	}
	body, err := json.Marshal(map[string]any{
		"apiVersion": resource.GroupVersion().String(), "kind": "ServiceExport",
		"metadata": map[string]any{"name": name.Name, "namespace": name.Namespace},
		"status":   map[string]any{"conditions": []any{condition}},
	})
	if err != nil {
		return err
	}
	force := true
	_, err = x.dynamic.Resource(resource).Namespace(name.Namespace).Patch(ctx, name.Name, types.ApplyPatchType, body,
		metav1.PatchOptions{FieldManager: "periplus-agent", Force: &force}, "status")
	if err != nil {
		return fmt.Errorf("ServiceExport %s: %w", name, err)
	}
	x.metrics.conditions.WithLabelValues("written").Inc()
	return nil
}

func validityText(v convert.Validity) string {
	switch v {
	case convert.Valid:
		return "the Service is exported to the mesh"
	case convert.NoService:
		return "there is no Service of this name"
	case convert.InvalidServiceType:
		return "a Service of type ExternalName cannot be exported"
	}
	return "the cluster's registration does not let it publish this Service, or the Service has no TCP port"
}

// untold are the exports whose condition says something else than it should.
func (e *engine) untold() map[convert.Name]convert.Validity {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := map[convert.Name]convert.Validity{}
	for name, validity := range e.validity {
		if e.state.Told(name) != validity {
			out[name] = validity
		}
	}
	return out
}
