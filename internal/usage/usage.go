// Package usage marks errors that are the command's, not the data's: what was
// asked for does not exist, contradicts itself, or would overwrite something.
package usage

import (
	"errors"
	"fmt"
)

// Err is what every error of this package is.
var Err = errors.New("wrong usage")

type usageError struct{ err error }

func (e *usageError) Error() string        { return e.err.Error() }
func (e *usageError) Unwrap() error        { return e.err }
func (e *usageError) Is(target error) bool { return target == Err }

// Errorf is fmt.Errorf for such an error.
func Errorf(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

// Wrap marks an error, nil excepted.
func Wrap(err error) error {
	if err == nil {
		return nil
	}
	return &usageError{err}
}
