package codec

import (
	"bytes"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// TestSmoothing: factors are m^(3/8) in BF16, and none where all would be the same.
func TestSmoothing(t *testing.T) {
	for m, want := range map[float32]float32{1: 1, 1 << 16: 64, 2: 1.296875, 0.001: 0.0751953125, 0: 1} {
		if got := smoothing([]float32{m, 1 << 8}); got[0] != want || got[1] != 8 {
			t.Errorf("%v is smoothed by %v, want %v", m, got, want)
		}
	}
	if got := smoothing([]float32{2, 2.001, 2}); got != nil {
		t.Errorf("all are about the same and smoothed by %v", got)
	}
}

// outlying is a weight some of whose columns are large, and the mean squares of inputs
// some of which are.
func outlying(rows, columns int) (w, moments []float32) {
	r := rand.New(rand.NewPCG(7, 21))
	w, moments = make([]float32, rows*columns), make([]float32, columns)
	u, v := make([]float64, rows), make([]float64, columns)
	for i := range u {
		u[i] = r.NormFloat64()
	}
	for j := range v {
		v[j], moments[j] = r.NormFloat64(), float32(math.Exp(2*r.NormFloat64()))
	}
	for i := range w {
		w[i] = float32(0.02*r.NormFloat64() + 0.05*u[i/columns]*v[i%columns])
	}
	return w, moments
}

// TestSVDQuantIsStoredAsItIsRead: the low-rank part makes the error a fraction of that of
// the codes alone; a weight that is smoothed restores to itself as well, weighed by its
// inputs better than one that is not, and its factors divide its inputs.
func TestSVDQuantIsStoredAsItIsRead(t *testing.T) {
	shape := []int{96, 256}
	w, moments := outlying(shape[0], shape[1])
	make := func(f *Format, moments []float32, s Settings) (Codec, [][]byte, []float32) {
		t.Helper()
		s.Dtype, s.DequantizeFP32, s.SVDSteps = f.Name, true, 8
		if f == SDNQ() {
			s.Dtype = "int4"
		}
		c, _, err := f.Make(Source{Name: "a", Shape: shape, Dtype: safetensors.F32, Moments: moments}, s)
		if err != nil {
			t.Fatal(err)
		}
		stored, err := EncodeAll(c, w)
		if err != nil {
			t.Fatal(err)
		}
		if small, err := encodeIn(16<<10, c, w); err != nil || !slices.EqualFunc(stored, small, bytes.Equal) {
			t.Errorf("%+v: smaller tiles give other bytes, %v", s, err)
		}
		values, err := DecodeAll(c, stored, safetensors.F32)
		if err != nil {
			t.Fatal(err)
		}
		return c, stored, values
	}
	weighed := func(got []float32) (sum float64) {
		for i, v := range w {
			d := float64(v) - float64(got[i])
			sum += d * d * float64(moments[i%len(moments)])
		}
		return sum
	}
	_, _, codes := make(SDNQ(), nil, Settings{GroupSize: 64})
	_, _, plain := make(svdquantW4A4, nil, Settings{SVDRank: 4})
	_, _, refitted := make(svdquantW4A4, nil, Settings{SVDRank: 4, SVDRefit: 2, Search: true})
	if relMSE(plain, w) > 0.3*relMSE(codes, w) || relMSE(refitted, w) > 0.9*relMSE(plain, w) {
		t.Errorf("errors of codes %g, with a low-rank part %g, searched and refitted %g", relMSE(codes, w), relMSE(plain, w), relMSE(refitted, w))
	}
	c, stored, smooth := make(svdquantW4A4, moments, Settings{SVDRank: 4})
	if is, was := weighed(smooth), weighed(plain); is > 0.9*was {
		t.Errorf("the weighed error of what is smoothed is %.3f of what is not", is/was)
	}
	for i, by := range c.(*svdquant).smooth {
		if got := math.Float32frombits(uint32(stored[4][2*i])<<16 | uint32(stored[4][2*i+1])<<24); got != by {
			t.Fatalf("factor %d is %v, want %v", i, got, by)
		}
	}
	l := &Stored{Tensors: map[tile.Role]tile.Tensor{}}
	for _, one := range c.Tensors() {
		l.Tensors[one.Role] = one
	}
	again, err := svdquantW4A4.OpenAs(l)
	if err != nil {
		t.Fatal(err)
	}
	if values, err := DecodeAll(again, stored, safetensors.F32); err != nil || !slices.Equal(values, smooth) {
		t.Errorf("opened, it restores to other values: %v", err)
	}
}

// TestSVDQuantSettings: what a layer cannot have is refused in words.
func TestSVDQuantSettings(t *testing.T) {
	for want, s := range map[string]Settings{
		"svdquant_w4a4 has a low-rank part of rank 1 or more, not -1": {SVDRank: -1},
		"svd-steps -1: want 0 or more":                                {SVDSteps: -1},
		"`SVDRefit` 65: want 0 to 64":                                 {SVDRefit: 65},
		"groups of 64 do not divide 96 columns":                       {},
		"svdquant_w4a4 has no group size":                             {GroupSize: 32},
	} {
		s.Dtype, s.DequantizeFP32 = "svdquant_w4a4", true
		if _, _, err := svdquantW4A4.Make(Source{Shape: []int{64, 96}, Dtype: safetensors.F32}, s); err == nil || err.Error() != want {
			t.Errorf("%+v: %v, want %s", s, err, want)
		}
	}
}
