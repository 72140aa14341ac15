package periplus

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Limits, calibrated on the best code bases of the field (their median file has 72 to 144 lines).
const (
	maxFileLines     = 400
	maxFunctionLines = 70
	// maxPackageLines of all files that are neither tests nor generated. 1 500 is what to aim at; a package beyond the
	// limit holds two ideas.
	maxPackageLines = 1800
)

// ban is something that must not be written, with what to write instead.
type ban struct {
	in      []string // folders; empty is everywhere
	except  []string
	text    string
	instead string
}

var bans = []ban{
	{in: []string{"internal/mesh", "internal/translate", "internal/feed", "internal/xds", "internal/balance"}, text: "time.Now(", instead: "take the time as an argument: the package is pure"},
	{except: []string{"cmd", "integration"}, text: "context.Background()", instead: "take the context from the caller"},
	{except: []string{"integration"}, text: "log.Fatal", instead: "return the error to main"},
	{text: "reflect.DeepEqual", instead: "compare what matters, or digests"},
	{text: "prometheus.DefaultRegisterer", instead: "take a Registerer in Config"},
	{text: "prometheus.MustRegister", instead: "take a Registerer in Config"},
	{except: []string{"cmd", "integration"}, text: "os.Exit(", instead: "return the error to main"},
}

var bannedPackageNames = []string{"util", "utils", "common", "helpers", "types", "manager", "base", "misc"}

type source struct {
	path, folder string
	text         string
	file         *ast.File
	set          *token.FileSet
}

func sources(t *testing.T) (out []source) {
	t.Helper()
	for folder := range packages(t) {
		files, err := filepath.Glob(filepath.Join(folder, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range files {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasSuffix(path, "_test.go") || strings.Contains(string(data), "DO NOT EDIT.") {
				continue
			}
			set := token.NewFileSet()
			file, err := parser.ParseFile(set, path, data, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, source{path, folder, string(data), file, set})
		}
	}
	return out
}

func TestTidy(t *testing.T) {
	documented := map[string]bool{}
	for _, s := range sources(t) {
		if n := strings.Count(s.text, "\n"); n > maxFileLines {
			t.Errorf("%s: %d lines, at most %d: two ideas in one room", s.path, n, maxFileLines)
		}
		if s.file.Doc != nil {
			documented[s.folder] = true
		}
		if slices.Contains(bannedPackageNames, s.file.Name.Name) {
			t.Errorf("%s: a package named %s says nothing", s.path, s.file.Name.Name)
		}
		s.functions(t)
		for _, b := range bans {
			if len(b.in) > 0 && !below(s.folder, b.in) || below(s.folder, b.except) {
				continue
			}
			if strings.Contains(s.text, b.text) {
				t.Errorf("%s: %s: %s", s.path, b.text, b.instead)
			}
		}
	}
	for folder := range packages(t) {
		if !documented[folder] && !strings.HasPrefix(folder, "api/") {
			t.Errorf("%s: no package comment: what it is, what it guarantees, what it never does", folder)
		}
	}
}

func TestPackagesAreOneIdea(t *testing.T) {
	lines := map[string]int{}
	for _, s := range sources(t) {
		lines[s.folder] += strings.Count(s.text, "\n")
	}
	for folder, n := range lines {
		if n > maxPackageLines {
			t.Errorf("%s: %d lines, at most %d: two ideas in one house", folder, n, maxPackageLines)
		}
	}
}

func (s source) functions(t *testing.T) {
	for _, declaration := range s.file.Decls {
		f, ok := declaration.(*ast.FuncDecl)
		if !ok || f.Body == nil {
			continue
		}
		if f.Name.Name == "init" && f.Recv == nil {
			t.Errorf("%s: init(): say what happens where it is called", s.path)
		}
		from, to := s.set.Position(f.Body.Pos()).Line, s.set.Position(f.Body.End()).Line
		if n := to - from; n > maxFunctionLines {
			t.Errorf("%s:%d: %s has %d lines, at most %d", s.path, from, f.Name.Name, n, maxFunctionLines)
		}
	}
}

// A replace directive would make 'go install' of the module fail for its users.
func TestNoReplace(t *testing.T) {
	data, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(data), "\nreplace ") {
		t.Error("go.mod has a replace directive")
	}
}
