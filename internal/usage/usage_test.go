package usage

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"
)

// TestMarks: the exit status follows from the mark, which must survive
// wrapping and leave the cause to be found.
func TestMarks(t *testing.T) {
	tests := []struct {
		err         error
		kind, other error
	}{
		{Errorf("%w of x", fs.ErrNotExist), Err, ErrSource},
		{Wrap(fs.ErrNotExist), Err, ErrSource},
		{SourceErrorf("%w of x", fs.ErrNotExist), ErrSource, Err},
		{Source(fs.ErrNotExist), ErrSource, Err},
	}
	for _, tt := range tests {
		err := fmt.Errorf("more: %w", tt.err)
		if !errors.Is(err, tt.kind) || !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v lost its mark or its cause", err)
		}
		if errors.Is(err, tt.other) {
			t.Errorf("%v has the other mark", err)
		}
	}
	if err := fmt.Errorf("more: %w", Existsf("%s exists", "x")); !errors.Is(err, Err) || !errors.Is(err, fs.ErrExist) || err.Error() != "more: x exists" {
		t.Errorf("%v is no error of the command's that says that something exists", err)
	}
	if Wrap(nil) != nil || Source(nil) != nil {
		t.Error("no error became one")
	}
}
