package safetensors

import (
	"errors"
	"fmt"
)

// The kinds of errors, for [errors.Is]. An error of no such kind comes from the
// operating system or from the given reader or writer.
var (
	// ErrFormat says that a file is not a valid safetensors file.
	ErrFormat = errors.New("not a valid safetensors file")
	// ErrInvalid says that a dtype, a shape, or a set of tensors and metadata
	// cannot be stored in a safetensors file.
	ErrInvalid = errors.New("cannot be stored as safetensors")
	// ErrRange says that a section lies outside of its tensor or of the file.
	ErrRange = errors.New("section out of range")
	// ErrIncomplete says that a body was not written exactly once.
	ErrIncomplete = errors.New("incomplete tensor")
)

// kindError is an error with the text of err that is also of the kind.
type kindError struct {
	kind error
	err  error
}

func (e *kindError) Error() string        { return e.err.Error() }
func (e *kindError) Unwrap() error        { return e.err }
func (e *kindError) Is(target error) bool { return target == e.kind }

func errorOf(kind error, format string, args ...any) error {
	return &kindError{kind: kind, err: fmt.Errorf(format, args...)}
}

func formatErrorf(format string, args ...any) error {
	return errorOf(ErrFormat, format, args...)
}

// quoted quotes text from a file for a message, and shortens it: hostile files contain
// names of many megabytes.
func quoted(s string) string {
	const most = 200
	if len(s) <= most {
		return fmt.Sprintf("%q", s)
	}
	return fmt.Sprintf("%.200q... (%d bytes)", s, len(s))
}

// shapeText returns a shape as text for a message.
func shapeText(shape []int) string {
	const most = 16
	if len(shape) <= most {
		return fmt.Sprint(shape)
	}
	return fmt.Sprintf("%v... (%d dimensions)", shape[:most], len(shape))
}
