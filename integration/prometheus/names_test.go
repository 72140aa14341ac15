package prometheus

import (
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func fetch(u string) (string, error) {
	response, err := http.Get(u)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", u, response.Status)
	}
	return "\n" + string(body), err
}

// ours are metrics of the mesh, not of the Go runtime.
var ours = regexp.MustCompile(`\b(?:periplus|pilot|istio|raft)_[a-z0-9_]+`)

// exposed are the families of every process.
func (s *scene) exposed(t *testing.T) map[string]bool {
	families := map[string]bool{}
	for _, u := range s.targets {
		for line := range strings.Lines(scrape(t, u)) {
			if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
				if name, _, _ := strings.Cut(rest, " "); ours.MatchString(name) {
					families[name] = true
				}
			}
		}
	}
	return families
}

// described compares with the list that people read.
func (s *scene) described(t *testing.T) {
	text := read(t, filepath.Join(deployed(t), "../../docs/observability.md"))
	said := map[string]bool{}
	for _, name := range ours.FindAllString(text, -1) {
		said[name] = true
	}
	families := s.exposed(t)
	for name := range families {
		if !said[name] {
			t.Errorf("docs/observability.md does not say what %s is", name)
		}
	}
	if len(families) < 60 {
		t.Errorf("only %d metrics were found", len(families))
	}
}

// rules of deploy may name only what some process exposes: an alert on a metric that does not exist never fires.
func (s *scene) rules(t *testing.T) {
	families := s.exposed(t)
	recorded := map[string]bool{}
	text := read(t, filepath.Join(deployed(t), "rules.yml"))
	for _, match := range regexp.MustCompile(`record: (\S+)`).FindAllStringSubmatch(text, -1) {
		recorded[match[1]] = true
	}
	used := 0
	for _, line := range strings.Split(text, "\n") {
		expression, isExpression := strings.CutPrefix(strings.TrimSpace(line), "expr: ")
		if !isExpression && !strings.Contains(line, "rate(") {
			continue
		}
		for name := range recorded {
			expression = strings.ReplaceAll(expression, name, "")
		}
		for _, name := range ours.FindAllString(expression, -1) {
			used++
			if !families[name] && !families[strings.TrimSuffix(name, "_bucket")] {
				t.Errorf("a rule uses %s, which nothing exposes", name)
			}
		}
	}
	if used < 15 {
		t.Errorf("only %d metrics were found in the rules", used)
	}
}
