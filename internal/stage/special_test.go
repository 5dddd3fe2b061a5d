//go:build unix

package stage

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

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

// TestPipesAtTheDestination: what another has there must not stop a run for ever.
func TestPipesAtTheDestination(t *testing.T) {
	dir := t.TempDir()
	dest := filepath.Join(dir, "out")
	write(t, filepath.Join(dest, "model.safetensors"), "old")
	for _, path := range []string{filepath.Join(dest, pipelineIndex), filepath.Join(dir, ".x.0123abcd.partial")} {
		if err := unix.Mkfifo(path, 0o600); err != nil {
			t.Skip(err)
		}
	}
	o := Output{Dest: dest, Folder: true, Force: true, Contents: Contents{Stems: map[string]string{"": "model"}}}
	wantError(t, "a pipe in an output", Check(o), "holds "+pipelineIndex)
	if notes := leftovers(dir); len(notes) > 0 {
		t.Errorf("a pipe is called what a run has left: %q", notes)
	}
}

// TestLeftoversOfAnyName: a user must be told of each, and never to give one a name
// that it did not have.
func TestLeftoversOfAnyName(t *testing.T) {
	long := strings.Repeat("ü", 120)
	for _, name := range []string{"plain", "two\nlines", "a\xffb", long, long + ".safetensors"} {
		dir := t.TempDir()
		hidden := hiddenName(filepath.Join(dir, name)) + replaced
		if utf8.ValidString(name) != utf8.ValidString(hidden) {
			t.Errorf("%q has become %q", name, hidden)
		}
		write(t, filepath.Join(hidden, "model.safetensors"), "old")
		wanted := "rename it to " + name + " to have it back"
		if len(name) > longest {
			wanted = "rename it to " + strings.Repeat("ü", 100) + "… to have it back"
		}
		if notes := strings.Join(leftovers(dir), ""); !strings.Contains(notes, wanted) {
			t.Errorf("%q, lost: the note is %q", name, notes)
		}
		write(t, filepath.Join(dir, name, "model.safetensors"), "new")
		if notes := strings.Join(leftovers(dir), ""); !strings.HasSuffix(notes, ": delete it") {
			t.Errorf("%q, there: the note is %q", name, notes)
		}
	}
}

// TestWhatCannotBeMoved: all the work would be for nothing, as with a folder of a
// container's image. The question itself moves nothing.
func TestWhatCannotBeMoved(t *testing.T) {
	defer func(old func(string, string) error) { system.refuses = old }(system.refuses)
	dir := t.TempDir()
	write(t, filepath.Join(dir, "out", "model.safetensors"), "old")
	want := tree(t, dir)
	o := Output{Dest: filepath.Join(dir, "out"), Folder: true, Force: true, Contents: Contents{Stems: map[string]string{"": "model"}}}
	for _, errno := range []error{nil, unix.EXDEV, unix.EACCES} {
		if errno != nil {
			system.refuses = func(string, string) error { return errno }
		}
		s, err := Open(o)
		switch {
		case errno == nil && err == nil:
			err = s.Abort()
			fallthrough
		case errno == nil:
			wantError(t, "a folder like others", err, "")
		case errno == unix.EXDEV:
			wantError(t, "a folder of another layer", err, "out cannot be replaced here")
		case !errors.Is(err, errno) || errors.Is(err, usage.Err) || strings.Contains(err.Error(), unfinished):
			t.Errorf("a folder in one that is not ours: %v", err)
		}
		wantTree(t, "after Open", dir, want)
	}
}

// TestMountInOutput: to remove an old output must not empty a disk that is mounted
// in it.
func TestMountInOutput(t *testing.T) {
	defer func(old func(string) bool) { system.isMount = old }(system.isMount)
	dir := t.TempDir()
	write(t, filepath.Join(dir, "out", "vae", "config.json"), "old")
	system.isMount = func(path string) bool { return path == filepath.Join(dir, "out", "vae") }
	o := Output{Dest: filepath.Join(dir, "out"), Folder: true, Force: true, Contents: Contents{Files: []string{"vae/config.json"}}}
	wantError(t, "a disk in an output", Check(o), "holds vae (where a disk is mounted)")
}
