package rotation

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/internal/golden"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/safetensors"
)

// TestHadamardSizes: the loader reads the size from the config, but a writer
// with another choice would not give the reference's bytes.
func TestHadamardSizes(t *testing.T) {
	rows := 0
	for _, l := range golden.Lines(t, "rotation.tsv") {
		if l[0] == "size" {
			columns, _ := strconv.Atoi(l[1])
			want, _ := strconv.Atoi(l[2])
			if got := HadamardSize(columns, want); strconv.Itoa(got) != l[3] {
				t.Errorf("%d columns, %d wanted: %d, want %s", columns, want, got, l[3])
			}
			rows++
		}
	}
	if rows < 100 || HadamardSize(0, 4) != 0 || HadamardSize(64, 0) != 0 {
		t.Errorf("%d golden rows", rows)
	}
}

// order is one in which a library may add the products of a row: fused or not,
// and in blocks of rows whose sums are added.
type order struct {
	fused bool
	block int
}

func (o order) rotate(x []float32, n int) []float32 {
	y := make([]float32, len(x))
	entry := 1 / float32(math.Sqrt(float64(n)))
	signs := make([]float32, n*n)
	for k := range n {
		unit := signs[k*n : k*n+n]
		unit[k] = 1
		kernel.RotateOnce(unit, n, 1) // ±1, exact
	}
	sum := make([]float32, n)
	for at := 0; at < len(x); at += n {
		for first := 0; first < n; first += o.block {
			clear(sum)
			for k := first; k < min(first+o.block, n); k++ {
				for j := range sum {
					h := signs[k*n+j] * entry
					if o.fused {
						sum[j] = kernel.FMA(x[at+k], h, sum[j])
					} else {
						sum[j] += float32(x[at+k] * h)
					}
				}
			}
			for j, v := range sum {
				if first == 0 {
					y[at+j] = v
				} else {
					y[at+j] += v
				}
			}
		}
	}
	for i := range y {
		y[i] += 0
	}
	return y
}

// TestRotationEqualsReference: the definition is the order of sums on Intel
// processors with AVX-512. The golden file was made on one by AMD, where the
// library takes other orders for 8 and 256, and at 4 does not fuse: there the
// reference must be one of these, to the bit, and the chain must lie next to it.
func TestRotationEqualsReference(t *testing.T) {
	chained, others := 0, map[order]int{}
	golden.RotationRows(t, "f32", func(name string, in golden.Input, n int, rest []string) {
		got := append([]float32(nil), in.W...)
		Rotate(got, n)
		if golden.HashFloats(got) == rest[0] {
			chained++
			return
		}
		if n != 8 && n != 256 && (n != 4 || name != "edge.f32") {
			t.Errorf("%s, %d: not the chain", name, n)
			return
		}
		for _, o := range []order{{false, n}, {true, 128}} {
			if y := o.rotate(in.W, n); golden.HashFloats(y) == rest[0] {
				others[o]++
				compareRotations(t, fmt.Sprint(name, " ", n), in.W, got, y, n, 0x1p-24)
				return
			}
		}
		t.Errorf("%s, %d: not the reference's bytes in any known order", name, n)
	})
	t.Logf("chain: %d, other orders: %v", chained, others)
	if chained < 60 {
		t.Errorf("only %d rows follow the chain", chained)
	}
}

// compareRotations bounds the difference by that many roundings of the sum of
// magnitudes, n+1 at most, the bound for any order of sums.
func compareRotations(t *testing.T, name string, x, a, b []float32, n int, rounding float64) {
	t.Helper()
	for at := 0; at < len(x); at += n {
		sum := 0.0
		for _, v := range x[at : at+n] {
			sum += math.Abs(float64(v))
		}
		if sum > math.MaxFloat32 {
			continue // some orders overflow
		}
		bound := sum/math.Sqrt(float64(n))*rounding*float64(2*n+2) + 0x1p-149*float64(2*n)
		for i := at; i < at+n; i++ {
			if d := math.Abs(float64(a[i]) - float64(b[i])); !(d <= bound) {
				t.Fatalf("%s: value %d is %g, want %g", name, i, a[i], b[i])
			}
		}
	}
}

// TestRotateToIsNearReference: a restored weight in half precision may differ
// by the last bit where the library adds in another order, and only there.
func TestRotateToIsNearReference(t *testing.T) {
	for _, d := range []safetensors.Dtype{safetensors.BF16, safetensors.F16} {
		differ, all := 0, 0
		golden.RotationRows(t, fmt.Sprint(d), func(name string, in golden.Input, n int, rest []string) {
			raw, err := hex.DecodeString(rest[0])
			if err != nil {
				t.Fatal(err)
			}
			want := golden.Widen(raw, d)
			w := in.W[:len(want)]
			if strings.HasPrefix(name, "edge") {
				w = in.W[len(in.W)-len(want):]
			}
			got := append([]float32(nil), w...)
			RotateTo(got, n, d)
			bits := 8.
			if d == safetensors.F16 {
				bits = 11
			}
			for i, v := range got {
				all++
				if math.Float32bits(v) == math.Float32bits(want[i]) {
					continue
				}
				differ++
				if math.Abs(float64(v)-float64(want[i])) > math.Ldexp(math.Abs(float64(v)), 1-int(bits))+0x1p-24 {
					t.Errorf("%s, %d: value %d is %x, want %x", name, n, i, v, want[i])
				}
			}
		})
		t.Logf("%s: %d of %d differ", d, differ, all)
		if differ*1000 > all {
			t.Errorf("%s: %d of %d differ", d, differ, all)
		}
	}
}

// TestRotateToF32: it must be Rotate.
func TestRotateToF32(t *testing.T) {
	in := golden.Inputs(t)["normal.f32"]
	a, b := append([]float32(nil), in.W...), append([]float32(nil), in.W...)
	Rotate(a, 128)
	RotateTo(b, 128, safetensors.F32)
	if !bytes.Equal(golden.BytesOf(a), golden.BytesOf(b)) {
		t.Error("F32 is rotated otherwise")
	}
}
