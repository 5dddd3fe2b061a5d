package codec

import (
	"bytes"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/tensorpress/tensorpress/safetensors"
)

// TestMomentsWeighEveryFormat: in a format that says that it weighs errors, what counts
// more is restored better; how the weight is cut changes nothing, nor do moments that
// are all the same, or any in a format that does not weigh.
func TestMomentsWeighEveryFormat(t *testing.T) {
	for _, f := range Formats() {
		if f.ReadOnly != "" || !slices.Contains(f.Takes, "search") {
			continue
		}
		t.Run(f.Name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(4, 16))
			shape := []int{256, 1024}
			w, moments := make([]float32, shape[0]*shape[1]), make([]float32, shape[1])
			for i := range w {
				w[i] = float32(r.NormFloat64() * 0.02)
			}
			for i := range moments {
				moments[i] = 0.25 + 1.5*float32(i/256%2) // of whole blocks of rotations
				if f.Name != "convrot_w4a4" && f.Name != "int8_tensorwise" {
					moments[i] = float32(math.Exp(1.5 * r.NormFloat64()))
				}
			}
			s := Default()
			s.Dtype, s.Search, s.ConvRot = f.Name, true, f.Name == "int8_tensorwise"
			if f == SDNQ() {
				s.Dtype = "uint4"
			}
			encoded := func(moments []float32, memory int) (Codec, [][]byte) {
				c, _, err := f.Make(Source{Name: "a", Shape: shape, Dtype: safetensors.F32, Moments: moments}, s)
				if err != nil {
					t.Fatal(err)
				}
				b, err := encodeIn(memory, c, w)
				if err != nil {
					t.Fatal(err)
				}
				return c, b
			}
			same := func(a, b [][]byte) bool { return slices.EqualFunc(a, b, bytes.Equal) }
			left := func(c Codec, b [][]byte) (sum float64) {
				x, err := DecodeAll(c, b, safetensors.F32)
				if err != nil {
					t.Fatal(err)
				}
				for i, v := range w {
					d := float64(v) - float64(x[i])
					sum += d * d * float64(moments[i%len(moments)])
				}
				return sum
			}
			c, plain := encoded(nil, tileBytes)
			_, weighed := encoded(moments, tileBytes)
			if !f.Weighs {
				if !same(plain, weighed) {
					t.Error("moments change what does not say that it weighs them")
				}
				return
			}
			if was, is := left(c, plain), left(c, weighed); is > 1.001*was || f.Name != "convrot_w4a4" && f.Name != "int8_tensorwise" && is > 0.995*was {
				t.Errorf("the weighed error is %.4f of the plain search's", is/was)
			}
			if _, again := encoded(moments, 64<<10); !same(weighed, again) {
				t.Error("smaller tiles give other bytes")
			}
			if _, ones := encoded(slices.Repeat([]float32{1}, shape[1]), tileBytes); !same(plain, ones) {
				t.Error("moments that are all the same change something")
			}
		})
	}
}
