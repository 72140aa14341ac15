package xds

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the transcripts")

// names of types in transcripts.
var shortNames = map[string]Type{"CDS": Cluster, "EDS": Endpoints, "LDS": Listener, "RDS": Route, "MESH": MeshObject}

// TestTranscripts plays the stories of testdata/transcripts. A line is
//
//	# comment                                what happens and why
//	protocol delta | sotw                    a new stream begins, at the state as it is
//	state CDS/a=1 EDS/a=1                    the state is now exactly this
//	> EDS sub=a,b unsub=c have=a:1 ack=3     the client says; also names=a,b (sotw) and nack=3:reason
//	< EDS 4 a=1 b=2 -c                       the server says: nonce, resources, removals
//	status CDS SYNCED ...                    what proxy-status shows
//
// All < and status lines are checked, and rewritten with -update.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/transcripts/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(want))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != string(want) {
				t.Errorf("the story went differently:\n%s", got)
			}
		})
	}
}

func play(t *testing.T, script string) string {
	var out strings.Builder
	var session *ServerSession[world]
	state := world{}
	for line := range strings.Lines(script) {
		verb, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch verb {
		case "<":
			continue
		case "status":
			fmt.Fprintf(&out, "status%s\n", describe(session.Status()))
			continue
		}
		out.WriteString(line)
		switch verb {
		case "protocol":
			session = NewStateSession(worldCatalog{}, state)
			if rest == "delta" {
				session = NewDeltaSession(worldCatalog{}, state)
			}
		case "state":
			state = parseWorld(t, rest)
			if session != nil {
				session.Advance(state)
			}
		case ">":
			if _, err := session.Request(parseRequest(t, rest)); err != nil {
				fmt.Fprintf(&out, "< ended: %v\n", err)
			}
		case "#", "":
			continue
		default:
			t.Fatalf("unknown line %q", line)
		}
		if session == nil {
			continue
		}
		for r, ok := session.Next(); ok; r, ok = session.Next() {
			fmt.Fprintf(&out, "< %s\n", print(r))
		}
	}
	return out.String()
}

func parseWorld(t *testing.T, text string) world {
	w := world{}
	for _, field := range strings.Fields(text) {
		where, content, ok := strings.Cut(field, "=")
		short, name, ok2 := strings.Cut(where, "/")
		if !ok || !ok2 || shortNames[short] == "" {
			t.Fatalf("bad resource %q", field)
		}
		w.set(shortNames[short], name, content)
	}
	return w
}

func parseRequest(t *testing.T, text string) Request {
	fields := strings.Fields(text)
	r := Request{Type: shortNames[fields[0]], InitialVersions: make(map[string]string)}
	if r.Type == "" {
		r.Type = Type(fields[0])
	}
	for _, field := range fields[1:] {
		key, value, _ := strings.Cut(field, "=")
		list := strings.Split(value, ",")
		switch key {
		case "sub":
			r.Subscribe = list
		case "unsub":
			r.Unsubscribe = list
		case "names":
			r.Names = list
		case "ack":
			r.Nonce = value
		case "nack":
			r.Nonce, r.Detail, _ = strings.Cut(value, ":")
			r.Rejected = true
		case "have":
			for _, item := range list {
				name, content, _ := strings.Cut(item, ":")
				r.InitialVersions[name] = NewRawResource(r.Type, name, []byte(content)).Version.String()
				if content == "foreign" {
					r.InitialVersions[name] = "v17"
				}
			}
		default:
			t.Fatalf("bad field %q", field)
		}
	}
	return r
}

func print(r Response) string {
	var out strings.Builder
	for short, t := range shortNames {
		if t == r.Type {
			out.WriteString(short)
		}
	}
	out.WriteString(" " + r.Nonce)
	for _, resource := range r.Resources {
		fmt.Fprintf(&out, " %s=%s", resource.Name, bodyOf(resource, r.Type))
	}
	for _, name := range r.Removed {
		out.WriteString(" -" + name)
	}
	return out.String()
}

func describe(status []TypeStatus) string {
	var out strings.Builder
	for _, s := range status {
		for short, t := range shortNames {
			if t == s.Type {
				fmt.Fprintf(&out, " | %s %s %d", short, s.Status, s.Resources)
			}
		}
		if s.Detail != "" {
			fmt.Fprintf(&out, " (%s)", s.Detail)
		}
	}
	return out.String()
}
