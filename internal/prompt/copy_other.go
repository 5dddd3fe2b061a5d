//go:build !linux

package prompt

import (
	"errors"
	"os"
)

// CanCopy says whether [Copy] can work on this system.
const CanCopy = false

// Copy always returns [errors.ErrUnsupported].
func Copy(*os.File, int64, *os.File, int64, int) (int, error) { return 0, errors.ErrUnsupported }
