package floats

import (
	"bytes"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/tensorpress/tensorpress/safetensors"
)

// dtypes are those that floats are read and written in.
var dtypes = []safetensors.Dtype{safetensors.BF16, safetensors.F16, safetensors.F32}

// TestOneValueAndMany: values that are put, got, rounded and widened one by one and all
// at once are the same bits, whichever a format calls.
func TestOneValueAndMany(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 9))
	x := []float32{0, float32(math.Copysign(0, -1)), float32(math.Inf(1)), float32(math.Inf(-1)), 65504, 65520, 0x1p-24, 0x1p-25, 0x1p-140}
	for range 5000 {
		if v := math.Float32frombits(r.Uint32()); v == v {
			x = append(x, v)
		}
	}
	for _, d := range dtypes {
		width := d.Bits() / 8
		one, all := make([]byte, len(x)*width), make([]byte, len(x)*width)
		for i, v := range x {
			PutFloat(one, i, v, d)
		}
		if PutFloats(all, x, d); !bytes.Equal(one, all) {
			t.Errorf("%v: PutFloats writes other bytes than PutFloat", d)
		}
		rounded := append([]float32(nil), x...)
		RoundAll(rounded, d)
		wide := Widen(make([]float32, len(x)), one, d)
		for i, v := range x {
			for what, got := range map[string]float32{"GetFloat": GetFloat(one, i, d), "RoundAll": rounded[i], "Widen": wide[i]} {
				if want := RoundTo(v, d); math.Float32bits(got) != math.Float32bits(want) {
					t.Errorf("%v: %s makes %v of %v, RoundTo %v", d, what, got, v, want)
				}
			}
		}
	}
}

// TestRoundingIsToTheNearest: no other value of the dtype is nearer, and ties go to
// even bits.
func TestRoundingIsToTheNearest(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	for _, d := range dtypes {
		for range 5000 {
			v := float32(r.NormFloat64())
			got := RoundTo(v, d)
			step := []byte{0, 0, 0, 0}
			PutFloat(step, 0, got, d)
			for _, by := range []byte{1, 255} { // the neighbours, but where the low byte carries
				near := append([]byte(nil), step...)
				if near[0] += by; near[0]^step[0] > 127 {
					continue
				}
				off, other := math.Abs(float64(v)-float64(got)), math.Abs(float64(v)-float64(GetFloat(near, 0, d)))
				if other < off || other == off && step[0]&1 == 1 {
					t.Fatalf("%v: %v becomes %v, and not %v", d, v, got, GetFloat(near, 0, d))
				}
			}
		}
	}
}

// TestFinite: NaN and infinity alone are not.
func TestFinite(t *testing.T) {
	for x, want := range map[float32]bool{
		0: true, math.MaxFloat32: true, -math.MaxFloat32: true, math.SmallestNonzeroFloat32: true,
		float32(math.Inf(1)): false, float32(math.Inf(-1)): false, float32(math.NaN()): false,
	} {
		if Finite(x) != want {
			t.Errorf("Finite(%v) is %v", x, !want)
		}
	}
	if Abs(-2) != 2 || Abs(2) != 2 || math.Signbit(float64(Abs(float32(math.Copysign(0, -1))))) {
		t.Error("Abs keeps a sign")
	}
}
