package policy

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
)

var update = flag.Bool("update", false, "rewrite the goldens")

// Each testdata/*.txtar is one behaviour: input.yaml, and either the specs it becomes (specs.json) or what is said
// about it (error.txt).
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no goldens", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			input := archive.Files[0]
			got := txtar.File{Name: "error.txt"}
			parsed, err := Parse(input.Name, input.Data)
			if err != nil {
				got.Data = []byte(err.Error() + "\n")
			} else {
				got.Name = "specs.json"
				got.Data = specs(t, parsed)
			}
			if *update {
				archive.Files = []txtar.File{input, got}
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if len(archive.Files) != 2 || archive.Files[1].Name != got.Name || string(archive.Files[1].Data) != string(got.Data) {
				t.Errorf("got %s:\n%s", got.Name, got.Data)
			}
		})
	}
}

func specs(t *testing.T, parsed []Parsed) []byte {
	t.Helper()
	var b strings.Builder
	for _, p := range parsed {
		if err := json.NewEncoder(&b).Encode(map[string]any{
			"kind": p.Kind, "namespace": p.Namespace, "name": p.Name, "clusters": p.Clusters, "spec": p.Spec,
		}); err != nil {
			t.Fatal(err)
		}
	}
	return []byte(b.String())
}

// Whatever the input, Parse returns policies or an error, never both and never neither; and what it accepted it
// accepts again from the source that it keeps, with the same meaning.
func FuzzParse(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.txtar")
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(archive.Files[0].Data)
	}
	f.Add([]byte("a: &a [*a, *a]\n"))
	f.Add([]byte(strings.Repeat("[", 200)))
	f.Fuzz(func(t *testing.T, data []byte) {
		parsed, err := Parse("fuzz", data)
		if (err == nil) != (len(parsed) > 0) && err == nil {
			t.Fatal("neither policies nor an error")
		}
		if err != nil {
			return
		}
		for _, p := range parsed {
			again, err := Parse("again", p.Source)
			if err != nil || len(again) != 1 {
				t.Fatalf("source is not accepted again: %v\n%s", err, p.Source)
			}
			before, _ := json.Marshal(p.Spec)
			after, _ := json.Marshal(again[0].Spec)
			if string(before) != string(after) {
				t.Fatalf("meaning changed: %s\n%s", before, after)
			}
		}
	})
}
