//go:build !linux

package prompt

import (
	"errors"
	"os"
)

// CanCopy is whether [Copy] may do anything.
const CanCopy = false

// Copy leaves all to others.
func Copy(*os.File, int64, *os.File, int64, int) (int, error) { return 0, errors.ErrUnsupported }
