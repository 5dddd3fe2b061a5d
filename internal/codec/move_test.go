package codec

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/tensorpress/tensorpress/internal/formats/sdnq"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// TestAreasMoveTheSameBytes: a moved file would depend on memory, and a tensor
// of one long row would take as much as it has.
func TestAreasMoveTheSameBytes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 9))
	for _, s := range []Settings{
		{Dtype: "int8", GroupSize: -1}, {Dtype: "int8", GroupSize: -2}, {Dtype: "int8", GroupSize: -1, QuantizedMatmul: true},
		{Dtype: "int8", GroupSize: -1, Hadamard: true, HadamardGroupSize: 16},
		{Dtype: "uint4", GroupSize: 32}, {Dtype: "uint4", GroupSize: 48}, {Dtype: "float8_e4m3fn", GroupSize: -1},
		{Dtype: "int8", GroupSize: -1, ModelDtype: "bf16"},
		{Dtype: "int8", GroupSize: -1, ScaleDtype: "uint6"}, {Dtype: "uint4", GroupSize: 32, ScaleDtype: "uint3", CodebookScale: true},
	} {
		s.DequantizeFP32 = s.ModelDtype == ""
		for _, shape := range [][]int{{160, 96}, {1, 4800}, {3, 960}} {
			from, _, err := newSDNQ(Source{Name: "a", Shape: shape, Dtype: safetensors.F32}, s)
			if s.ScaleDtype != "" && err != nil {
				continue // its scales do not pack
			}
			if err != nil {
				t.Fatal(err)
			}
			m, err := ToNative(from, Native{Rows: true})
			if err != nil {
				t.Fatal(err)
			}
			stored := randomParts(r, from)
			want := movedIn(m, stored, 1<<30, 1<<30)
			for _, limit := range []int{1, 50, 300, 2000, 1 << 20} {
				if got := movedIn(m, stored, limit/2, limit); !equalParts(got, want) {
					t.Errorf("%v %v: areas of %d values move other bytes", s, shape, limit)
				}
			}
			rows, cols := m.Area(1, 96)
			if rows*cols > 200 && !s.QuantizedMatmul {
				t.Errorf("%v %v: areas of %d×%d, want about 96 values", s, shape, rows, cols)
			}
		}
	}
}

func randomParts(r *rand.Rand, c Codec) [][]byte {
	var parts [][]byte
	for _, t := range c.Tensors() {
		n, _ := safetensors.ByteSize(t.Dtype, t.Shape)
		part := make([]byte, n)
		for i := range part {
			part[i] = byte(r.Uint32())
		}
		parts = append(parts, part)
	}
	return parts
}

// movedIn moves a whole layer in areas of that size.
func movedIn(m *Move, stored [][]byte, want, limit int) [][]byte {
	var out [][]byte
	for _, t := range m.To.Tensors() {
		n, _ := safetensors.ByteSize(t.Dtype, t.Shape)
		out = append(out, make([]byte, n))
	}
	for _, a := range m.Areas(m.Area(want, limit)) {
		var src, dst [][]byte
		for i := range stored {
			part := []byte{}
			eachRun(m.Needed(i, a), func(from, to int64) { part = append(part, stored[i][from:to]...) })
			src = append(src, part)
		}
		for i := range out {
			dst = append(dst, make([]byte, tile.SpanBytes(m.Written(i, a))))
		}
		m.Bytes(dst, src, a, &tile.Scratch{})
		for i := range out {
			left := dst[i]
			eachRun(m.Written(i, a), func(from, to int64) { left = left[copy(out[i][from:to], left):] })
		}
	}
	return out
}

func eachRun(spans []tile.Span, f func(from, to int64)) {
	for _, s := range spans {
		for i := range s.Count {
			from := s.Offset + int64(i)*s.Stride
			f(from, from+s.Size)
		}
	}
}

func equalParts(a, b [][]byte) bool {
	for i := range a {
		if !bytes.Equal(a[i], b[i]) {
			return false
		}
	}
	return len(a) == len(b)
}

// TestWhatCannotMove: a layer that looks moved and decodes to noise is worse
// than an error.
func TestWhatCannotMove(t *testing.T) {
	for _, s := range []Settings{
		{Dtype: "int8", GroupSize: 32}, {Dtype: "uint8", GroupSize: -1}, {Dtype: "int4", GroupSize: -1},
		{Dtype: "int8", GroupSize: -1, Hadamard: true, HadamardGroupSize: 32},
		{Dtype: "int8", GroupSize: -2, Hadamard: true, HadamardGroupSize: 16},
		{Dtype: "uint4", GroupSize: 32, Hadamard: true, HadamardGroupSize: 16},
		{Dtype: "uint4", GroupSize: 32, Codebook: true, CodebookSteps: 1},
		{Dtype: "uint4", GroupSize: -2}, {Dtype: "int8", GroupSize: -1, SVDRank: 4},
		{Dtype: "float8_e4m3fn", GroupSize: 32}, {Dtype: "float8_e5m2", GroupSize: -1}, {Dtype: "float8_e4m3fnuz", GroupSize: -2},
		{Dtype: "float8_e4m3fn", GroupSize: -1}, // convert_to_quant's alone, see Native
		{Dtype: "int8", GroupSize: -1, Kind: sdnq.Conv},
	} {
		s.DequantizeFP32 = true
		shape := []int{64, 128}
		if s.Kind == sdnq.Conv {
			shape = []int{64, 128, 3, 3}
		}
		c, _, err := newSDNQ(Source{Name: "a", Shape: shape, Dtype: safetensors.F32}, s)
		if err != nil {
			t.Fatal(fmt.Sprint(s), err)
		}
		if m, err := ToNative(c, Native{}); err == nil {
			t.Errorf("%v moves to %s", s, m.Format.Name)
		}
	}
}

// TestMovesKeepOtherKeys: what a layer's JSON says beside the format's keys goes with it
// to ComfyUI's formats and to its own names, but nothing of a config for many layers.
func TestMovesKeepOtherKeys(t *testing.T) {
	src := Source{Name: "a", Shape: []int{64, 64}, Dtype: safetensors.BF16}
	c, own, err := newSDNQ(src, sdnqSettings("int8", -1))
	if err != nil {
		t.Fatal(err)
	}
	others := pyjson.Object{{Key: "full_precision_matrix_mult", Value: true}, {Key: "by", Value: "x"}}
	said := append(slices.Clip(own), others...)
	native, err := ToNative(c, Native{})
	if err != nil {
		t.Fatal(err)
	}
	renamed, err := Renamed(src, own, c)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []*Move{native, renamed} {
		before := m.Metadata
		m.Keep(append(pyjson.Object{{Key: "quant_method", Value: "sdnq"}}, others...))
		if got, want := pyjson.Dump(m.Metadata), pyjson.Dump(before); got != want {
			t.Errorf("of a config: %s, want %s", got, want)
		}
		m.Keep(said)
		if got, want := pyjson.Dump(m.Metadata), pyjson.Dump(append(slices.Clip(before), others...)); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
