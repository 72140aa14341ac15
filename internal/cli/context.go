package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"sigs.k8s.io/yaml"

	"github.com/periplus-mesh/periplus/internal/durable"
)

// Config is the file of contexts, ~/.config/periplus/config, in the shape of a kubeconfig.
type Config struct {
	APIVersion     string         `json:"apiVersion"`
	Kind           string         `json:"kind"`
	CurrentContext string         `json:"current-context,omitempty"`
	Contexts       []NamedContext `json:"contexts"`
}

// NamedContext is one mesh under one name.
type NamedContext struct {
	Name    string  `json:"name"`
	Context Context `json:"context"`
}

// Context is how to reach one mesh as one operator.
type Context struct {
	// Servers are host:port of the replicas' admin API; the first that answers is used.
	Servers []string `json:"servers"`
	// TrustDomain of the control plane; the server must be a controller of it.
	TrustDomain string `json:"trust-domain"`
	// Files: the operator's certificate and key, the control plane's root certificates. PEM.
	Certificate string `json:"client-certificate"`
	Key         string `json:"client-key"`
	Authority   string `json:"certificate-authority"`
}

// EnvContext and EnvConfig override the current context and the path of the file.
const (
	EnvContext = "PERIPLUS_CONTEXT"
	EnvConfig  = "PERIPLUS_CONFIG"
)

// ConfigPath is $PERIPLUS_CONFIG, or config in the user's configuration folder.
func ConfigPath() (string, error) {
	if path := os.Getenv(EnvConfig); path != "" {
		return path, nil
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("contexts: %w (set %s)", err, EnvConfig)
	}
	return filepath.Join(dir, "periplus", "config"), nil
}

// LoadConfig reads path strictly; a file that is not there is an empty configuration.
func LoadConfig(path string) (*Config, error) {
	config := &Config{APIVersion: "periplus.io/v1", Kind: "Config"}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return config, nil
	}
	if err == nil {
		err = yaml.UnmarshalStrict(data, config)
	}
	if err != nil {
		return nil, fmt.Errorf("contexts: %s: %w", path, err)
	}
	return config, nil
}

// Save writes the file atomically, readable by its owner only.
func (c *Config) Save(path string) error {
	data, err := yaml.Marshal(c)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(path), 0o700)
	}
	if err == nil {
		err = durable.Write(path, data)
	}
	if err != nil {
		return fmt.Errorf("contexts: %w", err)
	}
	return nil
}

// Set adds or replaces a context, and makes it current if none is or if asked to.
func (c *Config) Set(name string, context Context, current bool) {
	i := slices.IndexFunc(c.Contexts, func(n NamedContext) bool { return n.Name == name })
	if i < 0 {
		c.Contexts = append(c.Contexts, NamedContext{name, context})
	} else {
		c.Contexts[i].Context = context
	}
	if current || c.CurrentContext == "" {
		c.CurrentContext = name
	}
}

// Remove forgets a context; it is no error if it is not there.
func (c *Config) Remove(name string) {
	c.Contexts = slices.DeleteFunc(c.Contexts, func(n NamedContext) bool { return n.Name == name })
	if c.CurrentContext == name {
		c.CurrentContext = ""
	}
}

// Current is the context's name by name, else by $PERIPLUS_CONTEXT, else the current one. It exists, or the error says
// what to do ([ExitUsage]).
func (c *Config) Current(name string) (string, error) {
	name = cmp.Or(name, os.Getenv(EnvContext), c.CurrentContext)
	switch {
	case name == "":
		return "", Exit(ExitUsage, errors.New("no context: start a mesh with 'periplus up', or name one with --context or "+EnvContext))
	case !slices.ContainsFunc(c.Contexts, func(n NamedContext) bool { return n.Name == name }):
		return "", Exit(ExitUsage, fmt.Errorf("context %q does not exist: 'periplus config get-contexts' lists them", name))
	}
	return name, nil
}

// Pick is the context that Current names.
func (c *Config) Pick(name string) (Context, error) {
	name, err := c.Current(name)
	if err != nil {
		return Context{}, err
	}
	i := slices.IndexFunc(c.Contexts, func(n NamedContext) bool { return n.Name == name })
	return c.Contexts[i].Context, nil
}
