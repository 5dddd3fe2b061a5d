package prompt

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"testing"
)

// folders are one on whatever the system keeps temporary files and, where there
// is one, another that lies in memory: their files are read by different calls.
func folders(t *testing.T) map[string]string {
	all := map[string]string{"temporary": t.TempDir()}
	if memory, err := os.MkdirTemp("/dev/shm", "tensorpress"); err == nil {
		t.Cleanup(func() { os.RemoveAll(memory) })
		all["memory"] = memory
	}
	return all
}

// TestPrompt: bytes must be those of the file, and errors those of the system,
// whichever way they are read and written.
func TestPrompt(t *testing.T) {
	for name, dir := range folders(t) {
		t.Run(name, func(t *testing.T) {
			file, err := os.Create(dir + "/file")
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			f, want := New(file), make([]byte, 3<<20+123) // more than one call takes
			r := rand.New(rand.NewPCG(1, 2))
			for i := range want {
				want[i] = byte(r.Uint32())
			}
			for _, part := range [][2]int{{1 << 20, len(want)}, {5, 1 << 20}, {0, 5}, {7, 7}} {
				if n, err := f.WriteAt(want[part[0]:part[1]], int64(part[0])); n != part[1]-part[0] || err != nil {
					t.Fatalf("wrote %d bytes of %v: %v", n, part, err)
				}
			}
			if got, err := os.ReadFile(file.Name()); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("file holds other bytes: %v", err)
			}
			for _, part := range [][2]int{{0, len(want)}, {1, 2}, {100, 1<<20 + 99}, {len(want), len(want)}} {
				got := make([]byte, part[1]-part[0])
				if n, err := f.ReadAt(got, int64(part[0])); n != len(got) || err != nil || !bytes.Equal(got, want[part[0]:part[1]]) {
					t.Errorf("read %d bytes of %v, or others: %v", n, part, err)
				}
			}
			past := make([]byte, 20)
			if n, err := f.ReadAt(past, int64(len(want)-10)); n != 10 || err != io.EOF || !bytes.Equal(past[:10], want[len(want)-10:]) {
				t.Errorf("read past the end: %d bytes, %v", n, err)
			}
			file.Close()
			if n, err := f.ReadAt(past, 0); n != 0 || !errors.Is(err, os.ErrClosed) {
				t.Errorf("read a closed file: %d bytes, %v", n, err)
			}
			if n, err := f.WriteAt(past, 0); n != 0 || !errors.Is(err, os.ErrClosed) {
				t.Errorf("wrote a closed file: %d bytes, %v", n, err)
			}
		})
	}
}

// TestPromptErrors: a file that may not be read or written says so.
func TestPromptErrors(t *testing.T) {
	for name, dir := range folders(t) {
		t.Run(name, func(t *testing.T) {
			path := dir + "/file"
			if err := os.WriteFile(path, []byte("content"), 0o600); err != nil {
				t.Fatal(err)
			}
			for flag, do := range map[int]func(*File) (int, error){
				os.O_RDONLY: func(f *File) (int, error) { return f.WriteAt([]byte("other"), 0) },
				os.O_WRONLY: func(f *File) (int, error) { return f.ReadAt(make([]byte, 7), 0) },
			} {
				file, err := os.OpenFile(path, flag, 0)
				if err != nil {
					t.Fatal(err)
				}
				defer file.Close()
				var refused *os.PathError
				if n, err := do(New(file)); n != 0 || !errors.As(err, &refused) || refused.Path != path {
					t.Errorf("%d bytes, %v", n, err)
				}
			}
		})
	}
}
