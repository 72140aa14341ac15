// Command periplus joins clusters into one service mesh: see 'periplus --help'.
//
// It holds every part but the Kubernetes source of the agent (cmd/periplus-agent): its cold build is the first thing
// a new user waits for. Each file is one noun of the command line; it turns flags into a Config and calls Run.
package main
