package safetensors_test

import (
	"errors"
	"math"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/safetensors"
)

func TestDtypesKeepTheReferenceOrder(t *testing.T) {
	const names = "BOOL F4 F6_E2M3 F6_E3M2 U8 I8 F8_E5M2 F8_E4M3 F8_E8M0 F8_E4M3FNUZ F8_E5M2FNUZ " +
		"I16 U16 F16 BF16 I32 U32 F32 C64 F64 I64 U64"
	bits := []int{8, 4, 6, 6, 8, 8, 8, 8, 8, 8, 8, 16, 16, 16, 16, 32, 32, 32, 64, 64, 64, 64}
	for i, name := range strings.Fields(names) {
		d, err := safetensors.ParseDtype(name)
		if err != nil || d != safetensors.Dtype(i+1) || d.String() != name || d.Bits() != bits[i] {
			t.Errorf("ParseDtype(%q) = %d, %v: %s of %d bits, want %d of %d", name, d, err, d, d.Bits(), i+1, bits[i])
		}
	}
	if safetensors.U64 != 22 {
		t.Errorf("there are %d dtypes, want 22", safetensors.U64)
	}
}

func TestDtypesThatAreNone(t *testing.T) {
	for _, d := range []safetensors.Dtype{0, safetensors.U64 + 1, 255} {
		if d.Bits() != 0 || d.String() != "invalid dtype" {
			t.Errorf("Dtype(%d) is %s of %d bits", uint8(d), d, d.Bits())
		}
		if _, err := safetensors.ByteSize(d, nil); !errors.Is(err, safetensors.ErrInvalid) {
			t.Errorf("ByteSize(%d) = %v, want ErrInvalid", uint8(d), err)
		}
	}
	for _, name := range []string{"", "f32", "F32 ", "float32", "invalid dtype"} {
		if _, err := safetensors.ParseDtype(name); !errors.Is(err, safetensors.ErrInvalid) {
			t.Errorf("ParseDtype(%q) = %v, want ErrInvalid", name, err)
		}
	}
}

// exactBits is bits × the dimensions that are not 0.
func exactBits(d safetensors.Dtype, shape []int) *big.Int {
	n := big.NewInt(int64(d.Bits()))
	for _, dim := range shape {
		if dim != 0 {
			n.Mul(n, big.NewInt(int64(dim)))
		}
	}
	return n
}

func TestByteSizeIsExactForEveryDtype(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for d := safetensors.BOOL; d <= safetensors.U64; d++ {
		for range 2000 {
			shape := make([]int, random.IntN(6))
			empty := false
			for i := range shape {
				shape[i] = int(random.Int64() >> random.IntN(64))
				empty = empty || shape[i] == 0
			}
			bits := exactBits(d, shape)
			fits := bits.IsInt64() && (empty || bits.Int64()%8 == 0)
			want := int64(0)
			if fits && !empty {
				want = bits.Int64() / 8
			}
			got, err := safetensors.ByteSize(d, shape)
			if (err == nil) != fits || got != want {
				t.Fatalf("ByteSize(%s, %v) = %d, %v, want %d, %v", d, shape, got, err, want, fits)
			}
		}
	}
}

func TestByteSizeRefuses(t *testing.T) {
	tests := []struct {
		d     safetensors.Dtype
		shape []int
		want  string
	}{
		{safetensors.U8, []int{2, -1}, "shape [2 -1] has a negative dimension"},
		{safetensors.U8, []int{math.MaxInt}, "overflows"},
		{safetensors.F4, []int{3}, "shape [3] of F4 takes 12 bits"},
		{safetensors.F6_E2M3, []int{2}, "takes 12 bits"},
	}
	for _, tt := range tests {
		_, err := safetensors.ByteSize(tt.d, tt.shape)
		if !errors.Is(err, safetensors.ErrInvalid) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("ByteSize(%s, %v): got %v, want %q", tt.d, tt.shape, err, tt.want)
		}
	}
}

func TestNumel(t *testing.T) {
	for want, shape := range map[int][]int{1: nil, 0: {3, 0, 2}, 6: {2, 3}} {
		if got := (safetensors.Tensor{Shape: shape}).Numel(); got != want {
			t.Errorf("Numel of %v = %d, want %d", shape, got, want)
		}
	}
}
