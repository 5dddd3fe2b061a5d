package checkpoint

import (
	"errors"
	"io"

	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/safetensors"
)

// ErrSource says that a source is not the checkpoint it should be. Errors that
// are not of this kind come from the operating system.
var ErrSource = usage.ErrSource

// asSource marks what the files themselves are to blame for.
func asSource(err error) error {
	if errors.Is(err, safetensors.ErrFormat) || errors.Is(err, io.ErrUnexpectedEOF) { // or has become shorter
		return usage.Source(err)
	}
	return err
}
