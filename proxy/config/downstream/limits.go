package downstream

// Limits on what is believed of a control plane, ours included: what exceeds them is refused.
const (
	maxHosts      = 50_000 // virtual hosts and domains of a table
	maxRoutes     = 50_000
	maxChains     = 1_000
	maxFilters    = 32
	maxClusters   = 256 // of one weighted split
	maxMatches    = 64
	maxConditions = 10_000 // nodes of one RBAC filter
	maxDepth      = 32
	maxBodyBytes  = 4 << 10 // of a direct response
)
