package adsclient

import (
	"context"
	"errors"
	"testing"
)

type unwanted string

func (r unwanted) Error() string   { return "cannot have " + string(r) }
func (r unwanted) Refused() string { return string(r) }

func TestRefusalsOfAnError(t *testing.T) {
	other := errors.New("all of it")
	for _, c := range []struct {
		err  error
		want int // -1: all
	}{
		{unwanted("a"), 1}, {errors.Join(unwanted("a"), errors.Join(unwanted("b"), unwanted("c"))), 3},
		{other, -1}, {errors.Join(unwanted("a"), other), -1}, {context.Canceled, -1},
	} {
		got := refusals(c.err)
		if got == nil && c.want != -1 || got != nil && len(got) != c.want {
			t.Errorf("%v: %v", c.err, got)
		}
	}
}
