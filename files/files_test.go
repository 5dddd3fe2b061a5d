package files_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/files"
)

// TestDir: a path is a source and a sink like any other, for those who wrap one.
func TestDir(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"x.safetensors": "1", "a/y": "22"} {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o777), os.WriteFile(path, []byte(text), 0o666)); err != nil {
			t.Fatal(err)
		}
	}
	one := files.At(files.Dir(dir), "x.safetensors")
	for source, want := range map[files.Source][]string{files.Dir(dir): {"a/y", "x.safetensors"}, one: {"x.safetensors"}} {
		names, err := source.List(t.Context())
		if slices.Sort(names); err != nil || !slices.Equal(names, want) {
			t.Errorf("%s: %v, %v", source, names, err)
		}
		f, err := source.Open(t.Context(), "x.safetensors")
		if err != nil {
			t.Fatal(err)
		}
		p := make([]byte, 2)
		if n, err := f.ReadAt(p, 0); n != 1 || p[0] != '1' || err != io.EOF || f.Size() != 1 {
			t.Errorf("%s: %q, %v", source, p[:n], err)
		}
		if err := f.(io.Closer).Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := files.Dir(filepath.Join(dir, "none")).List(t.Context()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want ErrNotExist", err)
	}
	type wrapped struct{ files.Source } // which counts what is read, say
	store := files.FS(os.DirFS(dir))
	for name, want := range map[string]string{"a": "y", "a/y.safetensors": "", "x.safetensors": "x.safetensors", ".": "a/y x.safetensors"} {
		part := wrapped{files.At(store, name)}
		names, err := part.List(t.Context())
		if got := strings.Join(names, " "); err != nil || got != want {
			t.Errorf("the part %s of a store lists %q, want %q: %v", name, got, want, err)
		}
		for _, name := range names {
			if f, err := part.Open(t.Context(), name); err != nil || f.Size() == 0 {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if got := files.At(files.At(files.FS(os.DirFS(dir)), "a"), "./b/").String(); got != "fs/a/b" {
		t.Errorf("a part of a part is %s", got)
	}

	dest := files.Dir(filepath.Join(dir, "new"))
	for _, commit := range []bool{false, true} {
		out, err := dest.Begin(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		f, err := out.Create("b/z", 3)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte("333"), 0); err != nil {
			t.Fatal(err)
		}
		if commit {
			err = out.Commit(t.Context())
		}
		if err := errors.Join(err, out.Abort()); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(string(dest), "b", "z"))
		if commit != (string(text) == "333") || commit == errors.Is(err, fs.ErrNotExist) {
			t.Errorf("committed %v: %q, %v", commit, text, err)
		}
	}
	if _, err := dest.Begin(t.Context(), false); !errors.Is(err, fs.ErrExist) {
		t.Errorf("got %v, want ErrExist", err)
	}
}
