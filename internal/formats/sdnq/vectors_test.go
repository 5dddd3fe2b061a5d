package sdnq

import (
	"encoding/hex"
	"fmt"
	"math"
	"testing"

	"github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/golden"
	"github.com/tensorpress/tensorpress/internal/pack"
	"github.com/tensorpress/tensorpress/safetensors"
)

// codesOf are the stored codes of a weight, two's complement for whole words.
func codesOf(q *Quantized) []uint16 {
	codes := make([]uint16, q.Scheme.Values)
	pack.Unpack(codes, q.Data[0], q.Scheme.Bits)
	return codes
}

func valueOf(q *Quantized, tensor, i int) float32 {
	return floats.GetFloat(q.Data[tensor], i, q.Scheme.ScaleDtype)
}

// eight are the values of most vectors, about 0.12 -0.07 0.033 -0.25 0 0.199
// -0.101 0.0625.
var eight = golden.Floats(0x3DF5C28F, 0xBD8F5C29, 0x3D072B02, 0xBE800000, 0, 0x3E4BC6A8, 0xBDCED917, 0x3D800000)

// TestVectorsBySDNQ: a weight of eight values, to the bit.
func TestVectorsBySDNQ(t *testing.T) {
	for _, c := range []struct {
		dtype       string
		scale, zero uint32
		codes       []uint16
		bytes, back string
	}{
		{
			"int8", 0x3B010204, 0, []uint16{61, 0x100 - 36, 17, 0x100 - 127, 0, 101, 0x100 - 51, 32}, "3ddc11810065cd20",
			"3DF5EBD8 BD912244 3D091224 BE800000 00000000 3E4B972E BDCD9B36 3D810204",
		},
		{
			"int4", 0x3D124925, 0, []uint16{11, 6, 9, 1, 8, 14, 5, 10}, "6b19e8a5",
			"3DDB6DB8 BD924925 3D124925 BE800000 00000000 3E5B6DB8 BDDB6DB8 3D924925",
		},
		{
			"uint4", 0x3CF536C0, 0xBE800000, []uint16{12, 6, 9, 0, 8, 15, 5, 10}, "6c09f8a5",
			"3DDFA440 BD902DE0 3C9EECC0 BE800000 BC2C9400 3E4BC6A8 BDCD7B90 3D4A11C0",
		},
		{
			"float4_e2m1fn", 0x3D2AAAAB, 0, []uint16{5, 11, 2, 15, 0, 6, 12, 3}, "b5f2603c",
			"3E000000 BD800000 3D2AAAAB BE800000 00000000 3E2AAAAB BDAAAAAB 3D800000",
		},
	} {
		q, err := Quantize(eight, []int{1, 8}, Options{Dtype: golden.Dtype(t, c.dtype), GroupSize: -1, ScaleDtype: safetensors.F32})
		if err != nil {
			t.Fatal(err)
		}
		if got := math.Float32bits(valueOf(q, 1, 0)); got != c.scale {
			t.Errorf("%s: scale %x, want %x", c.dtype, got, c.scale)
		}
		if q.Scheme.Dtype.Unsigned && math.Float32bits(valueOf(q, 2, 0)) != c.zero {
			t.Errorf("%s: zero point %v, want %x", c.dtype, valueOf(q, 2, 0), c.zero)
		}
		if got := codesOf(q); fmt.Sprint(got) != fmt.Sprint(c.codes) || hex.EncodeToString(q.Data[0]) != c.bytes {
			t.Errorf("%s: codes %d in bytes %x, want %d, %s", c.dtype, got, q.Data[0], c.codes, c.bytes)
		}
		back, err := Dequantize(q)
		if err != nil || golden.Patterns(back) != c.back {
			t.Errorf("%s: restored %s, %v, want %s", c.dtype, golden.Patterns(back), err, c.back)
		}
	}
}

// TestUint9KeepsItsMaximum: the eight values twice, since sixteen make a block.
// In sdnq the maximum is lost and changes another value; by default it is not.
func TestUint9KeepsItsMaximum(t *testing.T) {
	want := []uint16{422, 205, 323, 0, 285, 511, 170, 356, 422, 205, 323, 0, 285, 511, 170, 356}
	for _, exact := range []bool{false, true} {
		q, err := Quantize(append(eight[:8:8], eight...), []int{1, 16}, Options{Dtype: golden.Dtype(t, "uint9"), ScaleDtype: safetensors.F32, ExactReference: exact})
		if err != nil {
			t.Fatal(err)
		}
		if got := math.Float32bits(valueOf(q, 1, 0)); got != 0x3A65E354 {
			t.Errorf("scale %x, want 3a65e354", got)
		}
		if exact {
			want[5], want[13] = 0, 1 // lost, with bit 9 of the first in the second
		}
		if got := codesOf(q); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("exact %v: codes %d, want %d", exact, got, want)
		}
	}
}

// TestFloatVectorsBySDNQ: values to stored words and back.
func TestFloatVectorsBySDNQ(t *testing.T) {
	for _, c := range []struct {
		dtype  string
		values []float32
		bytes  []byte
		back   []float32
	}{
		{"float4_e2m1fn", []float32{0, -0.3, 0.64, 0.65, 1.28125, -1.78, 5.125, -6}, []byte{144, 33, 179, 247}, []float32{0, -0.5, 0.5, 1, 1.5, -1.5, 6, -6}},
		{"float6_e3m2fn", []float32{28, -0.05, 1.14, 0}, []byte{31, 33, 12}, []float32{28, -0.0625, 1, 0}},
		{"float8_e4m3fn_sdnq", []float32{1, -0.1, 480, 0.001}, []byte{56, 157, 127, 1}, []float32{1, -0.1015625, 480, 0.001953125}},
		{"float9_e4m4fn", append([]float32{496, -1, 0.5, 0.1}, make([]float32, 12)...), []byte{255, 0, 112, 1, 96, 0, 58, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, append([]float32{496, -1, 0.5, 0.1015625}, make([]float32, 12)...)},
		{"float16_e5m10fn", []float32{1, -131008, 1e-5, 3.14159}, []byte{0, 60, 255, 255, 168, 0, 72, 66}, []float32{1, -131008, 1.0013580e-5, 3.140625}},
	} {
		d := golden.Dtype(t, c.dtype)
		n := newNumbers(d, true)
		codes, dst, back := make([]uint16, len(c.values)), make([]byte, len(c.bytes)), make([]float32, len(c.values))
		n.encode(codes, c.values)
		pack.Pack(dst, codes, d.Bits)
		pack.Unpack(codes, dst, d.Bits)
		n.decode(back, codes)
		if string(dst) != string(c.bytes) || fmt.Sprint(back) != fmt.Sprint(c.back) {
			t.Errorf("%s: %d, restored %v, want %d, %v", c.dtype, dst, back, c.bytes, c.back)
		}
	}
}
