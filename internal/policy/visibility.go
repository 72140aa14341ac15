package policy

import (
	"fmt"

	"github.com/periplus-mesh/periplus/internal/mesh"
)

// visible refuses a VirtualService whose reach here is not what Istio gives it. It holds for all clients of the services
// of its own namespace (in the root namespace: of any); for a service of another namespace it holds for the clients of
// its own namespace alone, which is what exportTo "." says. To hold for everybody's clients of a foreign service it
// would have to redirect other people's traffic, and is refused.
func (d *document) visible(hosts []mesh.ServiceName, exportTo []string) {
	own := len(exportTo) == 1 && exportTo[0] == "."
	for i, host := range hosts {
		foreign := host.Namespace != d.namespace && d.namespace != mesh.RootNamespace
		at := fmt.Sprintf("spec.hosts[%d]", i)
		switch {
		case host.Name == "": // refused before
		case foreign && !own:
			d.fault(at, fmt.Sprintf("%s is of another namespace than the policy, %q, which cannot decide for all its clients", host, d.namespace),
				fmt.Sprintf(`move the policy to namespace %q or, if only clients in %q are meant, say exportTo: ["."]`, host.Namespace, d.namespace))
		case own && !foreign:
			d.fault("spec.exportTo", fmt.Sprintf("%q is not supported for a service of the same namespace", "."), "remove it; the policy holds for all clients of "+host.String())
		}
	}
	if !own && len(exportTo) > 0 && (len(exportTo) > 1 || exportTo[0] != "*") {
		d.fault("spec.exportTo", fmt.Sprintf("%q is not supported", exportTo), `say ".", or "*", or confine the policy with the annotation `+ScopeAnnotation)
	}
}
