package safetensors_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/tensorpress/tensorpress/safetensors"
)

// goldens returns the files that the reference implementation wrote.
func goldens(t testing.TB) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("testdata", "*.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	if len(paths) == 0 {
		t.Fatal("no golden files in testdata")
	}
	return paths
}

// memory is an io.WriterAt that grows.
type memory struct{ b []byte }

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	if end := int(off) + len(p); end > len(m.b) {
		m.b = append(m.b, make([]byte, end-len(m.b))...)
	}
	return copy(m.b[off:], p), nil
}

// rebuild writes the tensors of f anew, in an order that is not the file's.
func rebuild(t *testing.T, f *safetensors.File) []byte {
	t.Helper()
	tensors := slices.Clone(f.Header().Tensors)
	slices.Reverse(tensors)
	h, err := safetensors.NewHeader(tensors, f.Header().Metadata)
	if err != nil {
		t.Fatal(err)
	}
	out := &memory{}
	w, err := safetensors.NewWriter(out, h)
	if err != nil {
		t.Fatal(err)
	}
	for _, tensor := range tensors {
		body := make([]byte, tensor.Size)
		if err := f.ReadSection(tensor, body, 0); err != nil {
			t.Fatal(err)
		}
		half := len(body) / 2
		for _, at := range []int{half, 0} {
			if err := w.WriteSection(tensor, body[at:], int64(at)); err != nil {
				t.Fatal(err)
			}
			body = body[:at]
		}
	}
	if err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	if int64(len(out.b)) != h.FileSize() {
		t.Errorf("wrote %d bytes, want %d", len(out.b), h.FileSize())
	}
	return out.b
}

func TestGoldensAreRebuiltToTheByte(t *testing.T) {
	for _, path := range goldens(t) {
		t.Run(filepath.Base(path), func(t *testing.T) {
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			f, err := safetensors.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if got := rebuild(t, f); !bytes.Equal(got, want) {
				t.Errorf("got  %q\nwant %q", got, want)
			}
		})
	}
}

func TestGoldensNameEveryDtype(t *testing.T) {
	f, err := safetensors.Open(filepath.Join("testdata", "every_dtype.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var got []safetensors.Dtype
	for _, tensor := range f.Header().Tensors {
		got = append(got, tensor.Dtype)
	}
	// The reference offers no way to write the 6-bit floats.
	var want []safetensors.Dtype
	for d := safetensors.U64; d > 0; d-- {
		if d.Bits() != 6 {
			want = append(want, d)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
