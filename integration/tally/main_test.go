package main

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestTally(t *testing.T) {
	for _, c := range []struct{ name, events, want, printed string }{
		{"a test, a case, a skip", `
{"Action":"start","Package":"p"}
{"Action":"run","Package":"p","Test":"A"}
{"Action":"output","Package":"p","Test":"A","Output":"chatter\n"}
{"Action":"pass","Package":"p","Test":"A"}
{"Action":"run","Package":"p","Test":"B"}
{"Action":"run","Package":"p","Test":"B/one"}
{"Action":"run","Package":"p","Test":"B/two"}
{"Action":"pass","Package":"p","Test":"B/one"}
{"Action":"pass","Package":"p","Test":"B/two"}
{"Action":"pass","Package":"p","Test":"B"}
{"Action":"run","Package":"p","Test":"C"}
{"Action":"output","Package":"p","Test":"C","Output":"    c_test.go:7: missing: etcd\n"}
{"Action":"output","Package":"p","Test":"C","Output":"--- SKIP: C (0.00s)\n"}
{"Action":"skip","Package":"p","Test":"C"}
{"Action":"output","Package":"p","Output":"PASS\n"}
{"Action":"output","Package":"p","Output":"ok  \tp\t0.1s\n"}
{"Action":"pass","Package":"p"}
`, "skipped: p C: missing: etcd\n3 passed, 0 failed, 1 skipped", "ok  \tp\t0.1s\n"},
		{"a case fails, and so its test and its package", `
{"Action":"start","Package":"p"}
{"Action":"run","Package":"p","Test":"B"}
{"Action":"run","Package":"p","Test":"B/one"}
{"Action":"output","Package":"p","Test":"B/one","Output":"why\n"}
{"Action":"fail","Package":"p","Test":"B/one"}
{"Action":"fail","Package":"p","Test":"B"}
{"Action":"fail","Package":"p"}
`, "failed: p B/one\n0 passed, 1 failed, 0 skipped", "why\n"},
		{"a test fails after its cases passed", `
{"Action":"start","Package":"p"}
{"Action":"run","Package":"p","Test":"B"}
{"Action":"run","Package":"p","Test":"B/one"}
{"Action":"pass","Package":"p","Test":"B/one"}
{"Action":"fail","Package":"p","Test":"B"}
{"Action":"fail","Package":"p"}
`, "failed: p B\n1 passed, 1 failed, 0 skipped", ""},
		{"a package dies", `
{"Action":"start","Package":"p"}
{"Action":"run","Package":"p","Test":"A"}
{"Action":"fail","Package":"p"}
`, "failed: p\n0 passed, 1 failed, 0 skipped", ""},
		{"a package dies, and a test of it says of what", `
{"Action":"start","Package":"p"}
{"Action":"run","Package":"p","Test":"A"}
{"Action":"run","Package":"p","Test":"B"}
{"Action":"output","Package":"p","Test":"B","Output":"chatter\n"}
{"Action":"pass","Package":"p","Test":"B"}
{"Action":"output","Package":"p","Test":"A","Output":"=== RUN   A\n"}
{"Action":"output","Package":"p","Test":"A","Output":"SIGSEGV\n"}
{"Action":"fail","Package":"p"}
`, "failed: p\n1 passed, 1 failed, 0 skipped", "--- A did not end\nSIGSEGV\n"},
		{"a package is not built", `
{"ImportPath":"p","Action":"build-output","Output":"no such thing\n"}
{"ImportPath":"p","Action":"build-fail"}
{"Action":"start","Package":"p"}
{"Action":"fail","Package":"p","FailedBuild":"p"}
`, "failed: p\n0 passed, 1 failed, 0 skipped", "no such thing\n"},
		{"the stream ends early", `
{"Action":"start","Package":"p"}
{"Action":"run","Package":"p","Test":"A"}
{"Action":"pass","Package":"p","Test":"A"}
`, "failed: p did not end\n1 passed, 1 failed, 0 skipped", ""},
		{"a package skips itself", `
{"Action":"start","Package":"p"}
{"Action":"output","Package":"p","Output":"--- SKIP: all tests: missing: a network namespace\n"}
{"Action":"pass","Package":"p"}
`, "skipped: p all tests: missing: a network namespace\n0 passed, 0 failed, 1 skipped", "--- SKIP: all tests: missing: a network namespace\n"},
		{"what is no event", "go: downloading\n", "0 passed, 0 failed, 0 skipped", "go: downloading\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out strings.Builder
			ours := newTally(&out, false)
			if err := ours.read(strings.NewReader(strings.TrimPrefix(c.events, "\n"))); err != nil {
				t.Fatal(err)
			}
			if got := ours.counts().String(); got != c.want {
				t.Errorf("counted\n%s\nwant\n%s", got, c.want)
			}
			if out.String() != c.printed {
				t.Errorf("printed %q, want %q", out.String(), c.printed)
			}
		})
	}
}

// What was never run did not pass.
func TestTotalOfNothing(t *testing.T) {
	var out strings.Builder
	if ok, err := addUp(&out, []string{filepath.Join(t.TempDir(), "missing")}); ok || err != nil || !strings.Contains(out.String(), "1 failed") {
		t.Errorf("%v %v %s", ok, err, out.String())
	}
}
