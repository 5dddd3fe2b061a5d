package remote_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// TestRevoke: an output that is taken back after its Commit leaves nothing, and says where
// an older one is gone with it.
func TestRevoke(t *testing.T) {
	s := store(t)
	for _, kind := range kinds {
		before := fmt.Sprint(s.Objects())
		to := dest(t, kind+"://models/revoked")
		for _, old := range []bool{false, true} {
			if old {
				out, err := begin(t.Context(), to, false)
				if err == nil {
					err = errors.Join(write(t, out, model), out.Commit(t.Context()), out.Abort())
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			names := []string{}
			for name := range model {
				names = append(names, name)
			}
			out, err := begin(t.Context(), to, old, names...)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(write(t, out, model), out.Commit(t.Context())); err != nil {
				t.Fatal(err)
			}
			err = out.(interface{ Revoke() error }).Revoke()
			if gone := err != nil && strings.Contains(err.Error(), "the older output is gone"); gone != old || err != nil && !gone {
				t.Errorf("%s, over an older one %v: %v", kind, old, err)
			}
			if err := out.Abort(); err != nil {
				t.Error(err)
			}
			if after := fmt.Sprint(s.Objects()); after != before {
				t.Errorf("%s, over an older one %v: something is left", kind, old)
			}
		}
	}
}
