package convert

import (
	"maps"
	"slices"
	"strings"
)

// State is the records as they are now. The zero State is empty; it is not safe for concurrent use.
type State struct {
	services map[Name]*Service
	slices   map[Name]map[string]*Slice // of a Service, by their names
	owner    map[Name]string            // a slice's Service
	pods     map[Name]*Pod
	users    map[Name][]user // of a pod
	nodes    map[string]*Node
	exports  map[Name]*Export
	labels   map[string]map[string]string // each set of labels once
}

// user is a Service of which slices name a pod, so many times.
type user struct {
	service string
	times   int
}

// Set takes a record in place of the one of its kind and name. It returns the Services whose conversion may have
// changed, some perhaps twice.
func (s *State) Set(r Record) []Name {
	switch r := r.(type) {
	case *Service:
		return set(&s.services, r.Name, r)
	case *Export:
		return set(&s.exports, r.Name, r)
	case *Pod:
		r.Labels = s.intern(r.Labels)
		return s.usersOf(r.Name, set(&s.pods, r.Name, r))
	case *Node:
		if old := s.nodes[r.Name]; old != nil && old.same(r) {
			return nil
		}
		put(&s.nodes, r.Name, r)
		return s.onNode(r.Name)
	case *Slice:
		return s.setSlice(r)
	}
	panic("convert: a record of no known kind")
}

// Delete takes away the record of r's kind and name.
func (s *State) Delete(r Record) []Name {
	name := r.Of()
	switch r.(type) {
	case *Service:
		delete(s.services, name)
	case *Export:
		delete(s.exports, name)
	case *Pod:
		delete(s.pods, name)
		return s.usersOf(name, []Name{name})
	case *Node:
		delete(s.nodes, name.Name)
		return s.onNode(name.Name)
	case *Slice:
		return s.deleteSlice(name)
	}
	return []Name{name}
}

// Names returns the names of all records of r's kind.
func (s *State) Names(r Record) []Name {
	switch r.(type) {
	case *Service:
		return slices.Collect(maps.Keys(s.services))
	case *Export:
		return slices.Collect(maps.Keys(s.exports))
	case *Pod:
		return slices.Collect(maps.Keys(s.pods))
	case *Slice:
		return slices.Collect(maps.Keys(s.owner))
	}
	var out []Name
	for name := range s.nodes {
		out = append(out, Name{Name: name})
	}
	return out
}

// All returns every name whose conversion is not empty.
func (s *State) All() []Name {
	all := map[Name]bool{}
	for name := range s.services {
		all[name] = true
	}
	for name := range s.exports {
		all[name] = true
	}
	return slices.Collect(maps.Keys(all))
}

// Regions returns how many nodes name each region; the empty one is left out.
func (s *State) Regions() map[string]int {
	out := map[string]int{}
	for _, node := range s.nodes {
		if node.Region != "" {
			out[node.Region]++
		}
	}
	return out
}

func put[K comparable, V any](m *map[K]V, key K, value V) {
	if *m == nil {
		*m = map[K]V{}
	}
	(*m)[key] = value
}

// set returns key unless the record means the same as before.
func set[R Record](m *map[Name]R, key Name, r R) []Name {
	if old, ok := (*m)[key]; ok && old.same(r) {
		return nil
	}
	put(m, key, r)
	return []Name{key}
}

// usersOf are the Services of pod, if it changed.
func (s *State) usersOf(pod Name, changed []Name) (out []Name) {
	if len(changed) == 0 {
		return nil
	}
	for _, u := range s.users[pod] {
		out = append(out, Name{pod.Namespace, u.service})
	}
	return out
}

// onNode are the Services with an endpoint on node. Nodes seldom change in what is kept of them, so this looks at all.
func (s *State) onNode(node string) (out []Name) {
	for service, all := range s.slices {
		for _, slice := range all {
			if slices.ContainsFunc(slice.Endpoints, func(e Endpoint) bool { return s.nodeOf(slice, &e) == node }) {
				out = append(out, service)
				break
			}
		}
	}
	return out
}

// nodeOf is the node that an endpoint is on, by the slice or by the pod; may be empty.
func (s *State) nodeOf(slice *Slice, e *Endpoint) string {
	if e.Node != "" || e.Pod == "" {
		return e.Node
	}
	if pod := s.pods[Name{slice.Namespace, e.Pod}]; pod != nil {
		return pod.Node
	}
	return ""
}

func (s *State) setSlice(r *Slice) (out []Name) {
	service := Name{r.Namespace, r.Service}
	if old := s.slice(r.Name); old != nil {
		if old.same(r) {
			return nil
		}
		out = s.deleteSlice(r.Name)
	}
	of := s.slices[service]
	if of == nil {
		of = map[string]*Slice{}
		put(&s.slices, service, of)
	}
	of[r.Name.Name] = r
	put(&s.owner, r.Name, r.Service)
	s.count(r, 1)
	return append(out, service)
}

func (s *State) slice(name Name) *Slice {
	return s.slices[Name{name.Namespace, s.owner[name]}][name.Name]
}

func (s *State) deleteSlice(name Name) []Name {
	old := s.slice(name)
	if old == nil {
		return nil
	}
	service := Name{name.Namespace, old.Service}
	s.count(old, -1)
	delete(s.owner, name)
	delete(s.slices[service], name.Name)
	if len(s.slices[service]) == 0 {
		delete(s.slices, service)
	}
	return []Name{service}
}

// count notes that slice names its pods, or does no more.
func (s *State) count(slice *Slice, by int) {
	for i := range slice.Endpoints {
		if pod := slice.Endpoints[i].Pod; pod != "" {
			s.use(Name{slice.Namespace, pod}, slice.Service, by)
		}
	}
}

func (s *State) use(pod Name, service string, by int) {
	users := s.users[pod]
	i := slices.IndexFunc(users, func(u user) bool { return u.service == service })
	if i < 0 {
		put(&s.users, pod, append(users, user{service, by}))
		return
	}
	users[i].times += by
	if users[i].times > 0 {
		return
	}
	if len(users) == 1 {
		delete(s.users, pod)
		return
	}
	s.users[pod] = slices.Delete(users, i, i+1)
}

// intern returns the one map that has these labels, so that the pods of a deployment share theirs.
func (s *State) intern(labels map[string]string) map[string]string {
	if len(labels) == 0 {
		return nil
	}
	var key strings.Builder
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		key.WriteString(name + "=" + labels[name] + "\n")
	}
	if held, ok := s.labels[key.String()]; ok {
		return held
	}
	if len(s.labels) > 2*len(s.pods)+1_000 {
		s.labels = nil // most of them are of pods that are gone
	}
	put(&s.labels, key.String(), labels)
	return labels
}

// Counts returns how many records there are, by the names that Kubernetes gives their resources.
func (s *State) Counts() map[string]int {
	return map[string]int{
		"services": len(s.services), "endpointslices": len(s.owner), "pods": len(s.pods), "nodes": len(s.nodes), "serviceexports": len(s.exports),
	}
}

// Told is what the condition Valid of a ServiceExport says.
func (s *State) Told(name Name) Validity {
	if export := s.exports[name]; export != nil {
		return export.Told
	}
	return NotExported
}
