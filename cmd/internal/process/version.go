package process

import "runtime/debug"

// Version is the module's, with the commit if the build knows it.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	out := info.Main.Version
	if out == "" || out == "(devel)" {
		out = "devel"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && out == "devel" {
			out += "+" + s.Value[:min(len(s.Value), 12)]
		}
	}
	return out + " " + info.GoVersion
}
