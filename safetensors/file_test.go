package safetensors_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/safetensors"
)

// open writes b to a file and opens that.
func open(t *testing.T, b []byte) *safetensors.File {
	t.Helper()
	f, _ := openAt(t, b)
	return f
}

func openAt(t *testing.T, b []byte) (*safetensors.File, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.safetensors")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := safetensors.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f, path
}

func TestOpenErrorsNameThePath(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text.safetensors")
	if err := os.WriteFile(text, []byte("not a model at all"), 0o600); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(dir, "missing.safetensors")
	for path, kind := range map[string]error{
		text: safetensors.ErrFormat, dir: safetensors.ErrFormat, missing: fs.ErrNotExist,
	} {
		_, err := safetensors.Open(path)
		if !errors.Is(err, kind) || !strings.Contains(err.Error(), path) {
			t.Errorf("Open(%s) = %v, want %v", path, err, kind)
		}
	}
}

func TestReadSection(t *testing.T) {
	b := fileOf(valid, 0)
	f := open(t, append(b, 'x', 'y'))
	tensor, _ := f.Header().Lookup("a")
	for _, tt := range []struct {
		off, n int
		want   string
	}{{0, 2, "xy"}, {1, 1, "y"}, {0, 0, ""}, {2, 0, ""}} {
		p := make([]byte, tt.n)
		if err := f.ReadSection(tensor, p, int64(tt.off)); err != nil || string(p) != tt.want {
			t.Errorf("got %q, %v, want %q", p, err, tt.want)
		}
	}
}

func TestReadSectionOutOfRange(t *testing.T) {
	f := open(t, fileOf(valid, 2))
	tensor, _ := f.Header().Lookup("a")
	foreign := safetensors.Tensor{Name: "a", Offset: 1, Size: 2}
	for _, tt := range []struct {
		tensor safetensors.Tensor
		off, n int
		want   string
	}{
		{tensor, -1, 1, "section of 1 bytes at -1 goes past its 2 bytes"},
		{tensor, 0, 3, "section of 3 bytes at 0 goes past its 2 bytes"},
		{tensor, 2, 1, "section of 1 bytes at 2 goes past its 2 bytes"},
		{tensor, 3, 0, "section of 0 bytes at 3 goes past its 2 bytes"},
		{foreign, 0, 1, "2 bytes at 1 are not in the data section of 2 bytes"},
	} {
		err := f.ReadSection(tt.tensor, make([]byte, tt.n), int64(tt.off))
		if !errors.Is(err, safetensors.ErrRange) || !strings.Contains(err.Error(), `tensor "a": `+tt.want) {
			t.Errorf("got %v, want %q", err, tt.want)
		}
	}
}

func TestReadSectionOfAFileCutShort(t *testing.T) {
	f, path := openAt(t, fileOf(valid, 2))
	if err := os.Truncate(path, int64(len(valid)+8+1)); err != nil {
		t.Skip(err) // some systems refuse while the file is open
	}
	tensor, _ := f.Header().Lookup("a")
	err := f.ReadSection(tensor, make([]byte, 2), 0)
	if !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), `tensor "a"`) {
		t.Errorf("got %v", err)
	}
}

func TestReadSectionAfterClose(t *testing.T) {
	f := open(t, fileOf(valid, 2))
	tensor, _ := f.Header().Lookup("a")
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.ReadSection(tensor, make([]byte, 2), 0); !errors.Is(err, os.ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
}

// TestNewFile: a file that lies in memory, or wherever a program reads it from, must
// say what one on disk does, and its errors those of what reads it.
func TestNewFile(t *testing.T) {
	b := append(fileOf(valid, 0), 'x', 'y')
	f, err := safetensors.NewFile(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	tensor, p := f.Header().Tensors[0], make([]byte, 1)
	if err := f.ReadSection(tensor, p, 1); err != nil || string(p) != "y" {
		t.Errorf("got %q, %v", p, err)
	}
	if err := f.ReadSection(tensor, p, 2); !errors.Is(err, safetensors.ErrRange) || !strings.HasPrefix(err.Error(), `tensor "a": `) {
		t.Errorf("past the end: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if _, err := safetensors.NewFile(bytes.NewReader(b[:len(b)-1]), int64(len(b))); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("shorter than it is said to be: %v", err)
	}
	if _, err := safetensors.NewFile(bytes.NewReader(b), int64(len(b)-1)); !errors.Is(err, safetensors.ErrFormat) {
		t.Errorf("of another size: %v", err)
	}
}
