package sdnq

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/golden"
	"github.com/tensorpress/tensorpress/internal/tiletest"
	"github.com/tensorpress/tensorpress/safetensors"
)

// TestSearchHasTheSameBitsOnEveryMachine: what is found on one processor is found on any
// other, also where one fuses multiplications and additions.
func TestSearchHasTheSameBitsOnEveryMachine(t *testing.T) {
	r := rand.New(rand.NewPCG(21, 12))
	shape := []int{12, 192}
	w, moments := tiletest.Exact(r, shape[0]*shape[1]), tiletest.ExactMoments(r, shape[1])
	uint8s := dtype.Lookup("uint8")
	for _, c := range []struct {
		dtype string
		o     Options
		want  string
	}{
		{"uint4", Options{GroupSize: 32}, "a11086290ed87a62"},
		{"uint4", Options{GroupSize: 32, ScaleStore: uint8s, ZeroPointStore: uint8s}, "039e0fb6a239de7b"},
		{"uint4", Options{GroupSize: 32, Moments: moments}, "2662f647686bce75"},
		{"uint4", Options{GroupSize: 48, ScaleDtype: safetensors.BF16}, "9bbfd7b19a7bfd01"},
		{"uint2", Options{GroupSize: -1}, "3c8c97fe2e3cf86f"},
		{"int3", Options{GroupSize: 16}, "cdd680c0e1ce5bcf"},
		{"int8", Options{GroupSize: -2}, "1e1f66e0ca93b866"},
		{"float6_e3m2fn", Options{GroupSize: 64}, "cd193b04aa718a2d"},
		{"float8_e4m3fn", Options{GroupSize: -1, Moments: moments}, "fc634e57224ba99b"},
		{"uint4", Options{GroupSize: 64, Rank: 3, Refits: 1, ModelDtype: safetensors.BF16}, "a4bd64150692bd9b"},
	} {
		c.o.Dtype, c.o.Search = golden.Dtype(t, c.dtype), true
		if c.o.ScaleDtype == 0 {
			c.o.ScaleDtype = safetensors.F32
		}
		q, err := Quantize(w, shape, c.o)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.New()
		for _, data := range q.Data {
			sum.Write(data)
		}
		if got := fmt.Sprintf("%x", sum.Sum(nil)[:8]); got != c.want {
			t.Errorf("%s, groups of %d: %s, want %s", c.dtype, c.o.GroupSize, got, c.want)
		}
	}
}
