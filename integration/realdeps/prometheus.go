package realdeps

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// Prometheus is one Prometheus server.
type Prometheus struct {
	*Process
	URL string
}

// Sample is one series of an instant query.
type Sample struct {
	Labels map[string]string
	Value  float64
}

// StartPrometheus starts it with a configuration file's content.
func StartPrometheus(t testing.TB, config string) *Prometheus {
	t.Helper()
	dir, address := shortDir(t), Address()
	p := &Prometheus{URL: "http://" + address}
	p.Process = Run(t, "prometheus", Path(t, "prometheus"), nil, "--config.file", write(t, filepath.Join(dir, "prometheus.yml"), config),
		"--storage.tsdb.path", filepath.Join(dir, "data"), "--web.listen-address", address)
	p.Await(30*time.Second, Answers(http.DefaultClient, p.URL+"/-/ready"))
	return p
}

// Query asks for the value of an expression now.
func (p *Prometheus) Query(expression string) ([]Sample, error) {
	response, err := http.Get(p.URL + "/api/v1/query?query=" + url.QueryEscape(expression))
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	var answer struct {
		Status, Error string
		Data          struct {
			Result []struct {
				Metric map[string]string
				Value  [2]any
			}
		}
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return nil, err
	}
	if answer.Status != "success" {
		return nil, fmt.Errorf("%s: %s", expression, answer.Error)
	}
	var out []Sample
	for _, r := range answer.Data.Result {
		text, _ := r.Value[1].(string)
		value, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, fmt.Errorf("%s: value %v: %w", expression, r.Value, err)
		}
		out = append(out, Sample{r.Metric, value})
	}
	return out, nil
}
