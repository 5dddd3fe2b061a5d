package checkpoint

import (
	"errors"
	"io"

	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/safetensors"
)

// ErrSource says that a source is not a valid checkpoint. Errors of other kinds come
// from the operating system.
var ErrSource = usage.ErrSource

// asSource turns an error that the files themselves cause into an [ErrSource].
func asSource(err error) error {
	if errors.Is(err, safetensors.ErrFormat) || errors.Is(err, io.ErrUnexpectedEOF) { // the latter if the file became shorter
		return usage.Source(err)
	}
	return err
}
