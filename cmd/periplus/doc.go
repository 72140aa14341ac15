// Command periplus joins clusters into one service mesh: see 'periplus --help'.
//
// It holds every part but the Kubernetes source of the agent (cmd/periplus-agent): its cold build is the first thing
// a new user waits for. main only assembles; each noun of the command line is a package below internal, which turns
// flags into a Config and calls Run.
package main
