package checkpoint

import (
	"errors"
	"fmt"
	"io"

	"github.com/tensorpress/tensorpress/safetensors"
)

// ErrSource says that a source is not the checkpoint it should be. Errors that
// are not of this kind come from the operating system.
var ErrSource = errors.New("not a usable checkpoint")

// sourceError has the text of err and is an ErrSource as well.
type sourceError struct{ err error }

func (e *sourceError) Error() string        { return e.err.Error() }
func (e *sourceError) Unwrap() error        { return e.err }
func (e *sourceError) Is(target error) bool { return target == ErrSource }

func sourceErrorf(format string, args ...any) error {
	return &sourceError{fmt.Errorf(format, args...)}
}

// asSource marks what the files themselves are to blame for.
func asSource(err error) error {
	if errors.Is(err, safetensors.ErrFormat) || errors.Is(err, io.ErrUnexpectedEOF) { // or has become shorter
		return &sourceError{err}
	}
	return err
}
