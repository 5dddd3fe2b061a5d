package bodies

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/tensorpress/tensorpress/safetensors"
)

// TestCopy: what the system copies must lie where it belongs and count as written,
// and what it does not copy must not.
func TestCopy(t *testing.T) {
	dir := t.TempDir()
	body := make([]byte, 1<<20+17)
	for i := range body {
		body[i] = byte(i * i >> 3)
	}
	source := filepath.Join(dir, "source")
	if err := os.WriteFile(source, append(make([]byte, 100), body...), 0o666); err != nil {
		t.Fatal(err)
	}
	src, err := os.Open(source)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	h, err := safetensors.NewHeader([]safetensors.Tensor{
		{Name: "first", Dtype: safetensors.U16, Shape: []int{3}}, {Name: "x", Dtype: safetensors.U8, Shape: []int{len(body)}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	first, x := h.Tensors[0], h.Tensors[1]
	out, err := os.Create(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	w := NewWriter(out, h)
	for _, part := range [][2]int{{1000, len(body) - 1000}, {0, 1000}} {
		off, n := part[0], part[1]
		copied, err := w.Copy(x, int64(off), n, src, int64(100+off))
		if err != nil {
			t.Fatal(err)
		}
		if err := w.WriteSection(x, body[off+copied:off+n], int64(off+copied)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.WriteHeader(), w.WriteSection(first, make([]byte, 6), 0), w.Finish()); err != nil {
		t.Error(err)
	}
	got, err := os.ReadFile(out.Name())
	if err != nil || !bytes.Equal(got, append(append(h.Encode(), make([]byte, 6)...), body...)) {
		t.Error("other bytes", err)
	}
	if _, err := w.Copy(x, 1, len(body), src, 0); !errors.Is(err, safetensors.ErrRange) {
		t.Errorf("past the end: %v", err)
	}
	short := NewWriter(out, h)
	if copied, err := short.Copy(x, 0, len(body), src, int64(100+len(body)-10)); err != nil || copied > 10 {
		t.Errorf("copied %d bytes, %v of a source that has 10", copied, err)
	}
	if err := errors.Join(short.WriteHeader(), short.WriteSection(first, make([]byte, 6), 0)); err != nil {
		t.Fatal(err)
	}
	if err := short.Finish(); !errors.Is(err, safetensors.ErrIncomplete) {
		t.Errorf("a source that is too short: %v", err)
	}
	memory := NewWriter(&calls{}, h)
	if copied, err := memory.Copy(x, 0, 10, src, 100); copied != 0 || err != nil || memory.MayCopy() {
		t.Errorf("copied %d bytes to no file, %v", copied, err)
	}
}

// TestFind: tensors without bytes lie at the offset of another.
func TestFind(t *testing.T) {
	list := []safetensors.Tensor{{Name: "a", Shape: []int{0}}, {Name: "b", Shape: []int{0}}, {Name: "c", Shape: []int{4}}, {Name: "d", Shape: []int{0}}}
	for i := range list {
		list[i].Dtype = safetensors.U8
	}
	h, err := safetensors.NewHeader(list, nil)
	if err != nil {
		t.Fatal(err)
	}
	w := NewWriter(&calls{}, h)
	for i, one := range h.Tensors {
		for likely := range len(list) + 1 {
			if got, ok := w.find(one, likely); got != i || !ok {
				t.Errorf("tensor %s is %d, %v", one.Name, got, ok)
			}
		}
	}
	if err := w.Finish(); !errors.Is(err, safetensors.ErrIncomplete) {
		t.Errorf("without a header: %v", err)
	}
}
