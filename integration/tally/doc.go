// Command tally says in one line how many tests passed, failed and were skipped, and which of them were skipped why.
//
//	go test -json ./... | tally FILE    prints what 'go test' would, and keeps the counts in FILE
//	go test -json ./... | tally -v FILE the same for 'go test -v'
//	tally -total FILE...                adds up what was kept
//
// It counts tests that have no subtests, and each case of those that have. A package that cannot be built, or whose
// process dies, counts as one that failed; so does a stream of events that ends before its packages do, and a FILE that
// is not there. It exits with 1 if anything failed.
package main
