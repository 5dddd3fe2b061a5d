//go:build unix

package stage

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/tensorpress/tensorpress/internal/usage"
	"golang.org/x/sys/unix"
)

// TestCopySpecial: to open a pipe would be to wait for ever.
func TestCopySpecial(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Skip(err)
	}
	s := fill(t, Output{Dest: filepath.Join(dir, "out"), Folder: true}, "first")
	defer s.Abort()
	for _, path := range []string{filepath.Join(dir, "pipe"), "/dev/zero"} {
		if err := s.CopyFile(t.Context(), "copy", path); !errors.Is(err, usage.ErrSource) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
