package safetensors_test

import (
	"bytes"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/tensorpress/tensorpress/safetensors"
)

// A file need not lie on disk: whatever reads at an offset will do, and tells of each
// tensor and reads as much of it as is asked for.
func ExampleNewFile() {
	b, err := os.ReadFile("testdata/names_by_dtype.safetensors")
	if err != nil {
		log.Fatal(err)
	}
	f, err := safetensors.NewFile(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		log.Fatal(err)
	}
	for _, t := range f.Header().Tensors {
		first := make([]byte, t.Dtype.Bits()/8)
		if err := f.ReadSection(t, first, 0); err != nil {
			log.Fatal(err)
		}
		fmt.Println(t.Name, t.Dtype, t.Shape, first)
	}
	// Output:
	// a F8_E5M2 [1] [3]
	// b I8 [1] [2]
	// c U8 [1] [1]
	// d BOOL [1] [0]
}

// A file is laid out first; its bodies may then come in any order and in parts.
func Example() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "x.safetensors")

	h, err := safetensors.NewHeader([]safetensors.Tensor{{Name: "a", Dtype: safetensors.F16, Shape: []int{2, 2}}}, nil)
	if err != nil {
		log.Fatal(err)
	}
	out, err := os.Create(path)
	if err != nil {
		log.Fatal(err)
	}
	defer out.Close()
	w, err := safetensors.NewWriter(out, h)
	if err != nil {
		log.Fatal(err)
	}
	if err := w.WriteSection(h.Tensors[0], []byte{1, 2, 3, 4, 5, 6, 7, 8}, 0); err != nil {
		log.Fatal(err)
	}
	if err := w.Finish(); err != nil {
		log.Fatal(err)
	}

	f, err := safetensors.Open(path)
	if err != nil {
		log.Fatal(err)
	}
	defer f.Close()
	row := make([]byte, 4)
	if err := f.ReadSection(f.Header().Tensors[0], row, 4); err != nil { // the second row alone
		log.Fatal(err)
	}
	fmt.Println(f.Header().Tensors[0].Shape, row)
	// Output: [2 2] [5 6 7 8]
}
