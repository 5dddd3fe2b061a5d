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
	for _, err := range []error{Errorf("%w of x", fs.ErrNotExist), Wrap(fs.ErrNotExist)} {
		err = fmt.Errorf("more: %w", err)
		if !errors.Is(err, Err) || !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v lost its mark or its cause", err)
		}
	}
	if Wrap(nil) != nil {
		t.Error("no error became one")
	}
	if errors.Is(fs.ErrNotExist, Err) {
		t.Error("any error is one of usage")
	}
}
