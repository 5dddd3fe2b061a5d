package safetensors_test

import (
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/tensorpress/tensorpress/safetensors"
)

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
