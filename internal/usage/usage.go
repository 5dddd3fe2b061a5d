// Package usage marks errors by whose fault they are: the command's, where what
// was asked for does not exist, contradicts itself, or would overwrite something,
// or the source's. All others are the system's.
//
// Texts of errors, notes and reasons name options by their fields, in backquotes:
// "give `Force`", and where another call is meant, "`MigrateOptions.AddKeys`". The
// command puts its flags there.
package usage

import (
	"errors"
	"fmt"
	"io/fs"
)

// What errors of this package are, for errors.Is.
var (
	Err       = errors.New("wrong usage")
	ErrSource = errors.New("not a usable checkpoint")
)

// marked has the text of an error and is one of the kinds as well.
type marked struct{ err, kind error }

func (e *marked) Error() string        { return e.err.Error() }
func (e *marked) Unwrap() error        { return e.err }
func (e *marked) Is(target error) bool { return target == e.kind }

// Errorf is fmt.Errorf for an error of the command's.
func Errorf(format string, args ...any) error { return Wrap(fmt.Errorf(format, args...)) }

// Existsf is [Errorf] for what lies where something is to be written: it is an
// [fs.ErrExist] as well.
func Existsf(format string, args ...any) error {
	return Wrap(mark(fmt.Errorf(format, args...), fs.ErrExist))
}

// Wrap marks an error as the command's, nil excepted.
func Wrap(err error) error { return mark(err, Err) }

// SourceErrorf is fmt.Errorf for an error of the source's.
func SourceErrorf(format string, args ...any) error { return Source(fmt.Errorf(format, args...)) }

// Source marks an error as the source's, nil excepted.
func Source(err error) error { return mark(err, ErrSource) }

// AsSource marks an error as the source's unless it is the system's.
func AsSource(err error) error {
	if system := (*fs.PathError)(nil); errors.As(err, &system) {
		return err
	}
	return Source(err)
}

func mark(err, kind error) error {
	if err == nil {
		return nil
	}
	return &marked{err, kind}
}
