package safetensors

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// TestCopySection: a tensor that is kept must have the source's bytes, whether
// the system copies it or not.
func TestCopySection(t *testing.T) {
	dir := t.TempDir()
	body := make([]byte, 3*mostJoined+17)
	for i := range body {
		body[i] = byte(i * i >> 3)
	}
	source := copySource(t, filepath.Join(dir, "source"), body)
	from := source.Header().Tensors[0]
	for _, name := range []string{"by the system", "through a buffer", "into memory"} {
		t.Run(name, func(t *testing.T) {
			h, err := NewHeader([]Tensor{{Name: "first", Dtype: U16, Shape: []int{3}}, {Name: "x", Dtype: U8, Shape: []int{len(body)}}}, nil)
			if err != nil {
				t.Fatal(err)
			}
			out, err := os.Create(filepath.Join(dir, "out"))
			if err != nil {
				t.Fatal(err)
			}
			defer out.Close()
			memory := &calls{}
			var to io.WriterAt = out
			if name == "into memory" {
				to = memory
			}
			w, err := NewWriter(to, h)
			if err != nil {
				t.Fatal(err)
			}
			w.refused.Store(name == "through a buffer")
			for _, part := range [][2]int{{1000, len(body) - 1000}, {0, 1000}} {
				if err := w.CopySection(Tensor{Name: "x"}, source, from, int64(part[0]), part[1]); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.WriteSection(Tensor{Name: "first"}, make([]byte, 6), 0); err != nil {
				t.Fatal(err)
			}
			if err := w.Finish(); err != nil {
				t.Error(err)
			}
			got := memory.data
			if to == io.WriterAt(out) {
				got, _ = os.ReadFile(out.Name())
			}
			if !bytes.HasSuffix(got, append(make([]byte, 6), body...)) {
				t.Error("other bytes")
			}
		})
	}
}

// TestCopySectionErrors: a source that became shorter must not leave a hole.
func TestCopySectionErrors(t *testing.T) {
	dir := t.TempDir()
	source := copySource(t, filepath.Join(dir, "source"), make([]byte, 1000))
	out, err := os.Create(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	w, err := NewWriter(out, source.Header())
	if err != nil {
		t.Fatal(err)
	}
	x := source.Header().Tensors[0]
	if err := w.CopySection(x, source, x, 1, 1000); !errors.Is(err, ErrRange) {
		t.Errorf("past the end: %v", err)
	}
	if err := os.Truncate(source.Path(), source.Header().DataStart+10); err != nil {
		t.Fatal(err)
	}
	if err := w.CopySection(x, source, x, 0, 1000); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("shorter source: %v", err)
	}
	if err := w.Finish(); !errors.Is(err, ErrIncomplete) {
		t.Errorf("got %v", err)
	}
}

func copySource(t *testing.T, path string, body []byte) *File {
	t.Helper()
	h, err := NewHeader([]Tensor{{Name: "x", Dtype: U8, Shape: []int{len(body)}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(h.Encode(), body...), 0o666); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}
