package tensorpress_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/files"
)

// A checkpoint becomes one whose weights are eight-bit integers, and is held
// against what it was made from.
func Example() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	ctx, dest := context.Background(), filepath.Join(dir, "small.safetensors")

	r, err := tensorpress.Quantize(ctx, files.Dir("testdata/minilm.safetensors"), files.Dir(dest), tensorpress.Options{})
	if err != nil {
		log.Fatal(err)
	}
	v, err := tensorpress.Verify(ctx, files.Dir(dest), tensorpress.VerifyOptions{Source: files.Dir("testdata/minilm.safetensors"), For: "comfyui"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(r.Layout, len(v.Problems), *v.Total.RelMSE < 1e-3)
	// Output: comfy 0 true
}

// A plan reads no weights and tells what would become of each.
func ExamplePlan() {
	r, err := tensorpress.Plan(context.Background(), files.Dir("testdata/minilm.safetensors"), nil, tensorpress.Options{Keep: []string{`\.value\.`}})
	if err != nil {
		log.Fatal(err)
	}
	actions := map[string]int{}
	for _, l := range r.Layers {
		actions[string(l.Action)]++
	}
	fmt.Println(actions)
	// Output: map[keep:8 quantize:5]
}

// What is said of all layers, and of some.
func ExampleOptions() {
	o := tensorpress.Options{
		Layer: tensorpress.Settings{Dtype: "uint4", GroupSize: new(64), Hadamard: new(true)},
		Rules: []tensorpress.Rule{
			{Pattern: `\.query\.`, Layer: tensorpress.Settings{Dtype: "int8"}},
			{Pattern: `\.intermediate\.`, Keep: true},
		},
		Threads: 2,
	}
	r, err := tensorpress.Plan(context.Background(), files.Dir("testdata/minilm.safetensors"), nil, o)
	if err != nil {
		log.Fatal(err)
	}
	dtypes := map[string]int{}
	for _, l := range r.Layers {
		dtypes[l.Dtype]++
	}
	fmt.Println(dtypes)
	// Output: map[F32:8 int8:1 uint4:4]
}

// Errors are of a kind: the caller's, the source's, or the system's.
func ExampleQuantize_errors() {
	_, err := tensorpress.Quantize(context.Background(), files.Dir("README.md"), files.Dir("out.safetensors"), tensorpress.Options{})
	switch {
	case errors.Is(err, tensorpress.ErrUsage):
		fmt.Println("the call is wrong")
	case errors.Is(err, tensorpress.ErrSource):
		fmt.Println("the source is wrong")
	case err != nil:
		fmt.Println("the system failed")
	}
	// Output: the source is wrong
}
