package kubernetes

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// document is what the tests look at.
type document struct {
	Kind     string
	Metadata struct{ Name, Namespace string }
	Data     map[string]string `yaml:"stringData"`
	Rules    []struct{ Resources, Verbs []string }
}

func parse(t *testing.T, data []byte) (out []document) {
	t.Helper()
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var d document
		err := decoder.Decode(&d)
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, data)
		}
		out = append(out, d)
	}
}

func good() Values { return Values{Cluster: "eu-1", Token: "token-1", Image: "example.org/agent:1"} }

func TestKinds(t *testing.T) {
	base := "Namespace ServiceAccount ClusterRole ClusterRoleBinding Secret PersistentVolumeClaim Deployment Service"
	for want, change := range map[string]func(*Values){
		base:                               func(*Values) {},
		base + " ":                         func(v *Values) { v.WorkloadAPI = HostPath; v.SPIREServer = "spire:8081" },
		base + " NetworkPolicy":            func(v *Values) { v.NetworkPolicy = true },
		base + " CustomResourceDefinition": func(v *Values) { v.CRDs = true },
	} {
		v := good()
		change(&v)
		data, err := Manifests(v)
		if err != nil {
			t.Fatal(err)
		}
		var kinds []string
		for _, d := range parse(t, data) {
			kinds = append(kinds, d.Kind)
		}
		if got := strings.Join(kinds, " "); got != strings.TrimSpace(want) {
			t.Errorf("kinds are %q, want %q", got, want)
		}
	}
}

// A value cannot become anything but a value.
func TestNothingBreaksOut(t *testing.T) {
	v := good()
	v.Token = "x\"\n---\nkind: Evil\n"
	v.SPIREServer = "a\"\n        - --evil"
	data, err := Manifests(v)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range parse(t, data) {
		if d.Kind == "Evil" || d.Kind == "Secret" && d.Data["token"] != v.Token {
			t.Errorf("%+v", d)
		}
	}
}

// The agent may read four kinds and exports, and write nothing but their status.
func TestLeastRights(t *testing.T) {
	data, err := Manifests(good())
	if err != nil {
		t.Fatal(err)
	}
	var rights []string
	for _, d := range parse(t, data) {
		for _, rule := range d.Rules {
			rights = append(rights, strings.Join(rule.Resources, ",")+":"+strings.Join(rule.Verbs, ","))
		}
	}
	want := "services,pods,nodes:list,watch endpointslices:list,watch serviceexports:list,watch serviceexports/status:patch"
	if got := strings.Join(rights, " "); got != want {
		t.Errorf("rights are %q, want %q: say in docs/kubernetes.md why", got, want)
	}
}

func TestRefused(t *testing.T) {
	for name, change := range map[string]func(*Values){
		"no image":      func(v *Values) { v.Image = "" },
		"image":         func(v *Values) { v.Image = "a b" },
		"no token":      func(v *Values) { v.Token = "" },
		"workload API":  func(v *Values) { v.WorkloadAPI = "tcp" },
		"relative path": func(v *Values) { v.WorkloadAPI, v.SocketPath = HostPath, "run/agent.sock" },
		"upwards":       func(v *Values) { v.SocketPath = "../agent.sock" },
	} {
		v := good()
		change(&v)
		if _, err := Manifests(v); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}
