package catalog_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/translate"
	"github.com/periplus-mesh/periplus/internal/translate/catalog"
	"github.com/periplus-mesh/periplus/internal/translate/shares"
	"github.com/periplus-mesh/periplus/internal/translate/translatetest"
	"github.com/periplus-mesh/periplus/internal/xds"
)

var update = flag.Bool("update", false, "write what is got into testdata")

// Each file of testdata shows one behaviour: a [translatetest.Script] with questions, then "--" and the answers.
//
//	assign SERVICE PORT [SUBSET] | get TYPE NAME | names TYPE
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no golden files", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			input, want, _ := strings.Cut(string(data), "\n--\n")
			got := new(script).run(t, input)
			if *update {
				err = os.WriteFile(file, []byte(input+"\n--\n"+got), 0o644)
			} else if got != want {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}

type script struct {
	translatetest.Script
	out bytes.Buffer
}

func (s *script) run(t *testing.T, input string) string {
	s.Ask = func(words []string) error {
		words = append(words, "", "", "")
		return s.ask(words[0], words[1], words[2], words[3])
	}
	if err := s.Run(input); err != nil {
		t.Fatal(err)
	}
	return s.out.String()
}

var typeOf = map[string]xds.Type{"cluster": xds.Cluster, "endpoints": xds.Endpoints, "listener": xds.Listener, "route": xds.Route}

func (s *script) ask(verb, a, b, c string) error {
	snapshot, err := s.Snapshot()
	if err != nil {
		return err
	}
	switch verb {
	case "assign":
		port, _ := strconv.Atoi(b)
		name, err := mesh.ParseServiceName(a)
		if err != nil {
			return err
		}
		s.printAssignment(translate.Assign(snapshot, s.View, translate.Request{Service: name, Port: uint16(port), Subset: c}))
	case "names":
		for name := range catalog.Of(s.View).Names(snapshot, typeOf[a]) {
			fmt.Fprintln(&s.out, name)
		}
	case "get":
		resource, ok := catalog.Of(s.View).Get(snapshot, typeOf[a], b)
		if !ok {
			fmt.Fprintf(&s.out, "no %s %s\n", a, b)
			return nil
		}
		return s.printResource(resource)
	default:
		return fmt.Errorf("what is %q?", verb)
	}
	return nil
}

func (s *script) printResource(r xds.Resource) error {
	var any anypb.Any
	if err := proto.Unmarshal(r.Any, &any); err != nil {
		return err
	}
	message, err := any.UnmarshalNew()
	if err != nil {
		return err
	}
	if checked, ok := message.(interface{ ValidateAll() error }); ok {
		if err := checked.ValidateAll(); err != nil {
			return err // Envoy would NACK it
		}
	}
	data, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(message)
	if err != nil {
		return err
	}
	if err := json.Indent(&s.out, data, "", " "); err != nil {
		return err
	}
	s.out.WriteByte('\n')
	return nil
}

func (s *script) printAssignment(a translate.Assignment) {
	fmt.Fprintf(&s.out, "rules: %s\n", strings.Join(a.Rules, "; "))
	spread := shares.Of(a)
	for i, level := range a.Levels {
		fmt.Fprintf(&s.out, "level %d: %.0f%%\n", i, 100*spread.Levels[i])
		for j, p := range level {
			fmt.Fprintf(&s.out, "  %s (%d) %s %s %s weight %d: %.1f%%: %s\n", p.Locality, p.LocalityWeight, p.Name, p.Address,
				p.Health, p.Weight, 100*spread.Endpoints[i][j], p.Reason)
		}
	}
	for _, d := range a.Dropped {
		fmt.Fprintf(&s.out, "dropped %s/%s: %s\n", d.Cluster, d.Name, d.Reason)
	}
}
