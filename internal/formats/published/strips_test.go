package published

import (
	"math/rand/v2"
	"slices"
	"testing"

	widen "github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// TestStrips: an area of strips decodes to the BF16 that single precision rounds to, with
// columns in any groups, and in single precision as by columns.
func TestStrips(t *testing.T) {
	const rows, cols = 48, 160
	const w, s, z, g = tile.Weight, tile.Scale, tile.Zeros, tile.GroupOfColumn
	i32, f16 := safetensors.I32, safetensors.F16
	r := rand.New(rand.NewPCG(3, 4))
	for name, make := range map[string]func() (*Integers, error){
		"gptq": func() (*Integers, error) {
			return NewGPTQ(of(tensor(w, i32, cols/8, rows), tensor(s, f16, 5, rows), tensor(z, i32, 5, rows/8)), GPTQ{Bits: 4, Group: 32, ZeroLess: true})
		},
		"gptq, one group": func() (*Integers, error) {
			return NewGPTQ(of(tensor(w, i32, cols/8, rows), tensor(s, safetensors.F32, 1, rows), tensor(z, i32, 1, rows/8)), GPTQ{Bits: 4, Group: -1})
		},
		"gptq in an order": func() (*Integers, error) {
			return NewGPTQ(of(tensor(w, i32, cols/8, rows), tensor(s, f16, 5, rows), tensor(z, i32, 5, rows/8), tensor(g, i32, cols)), GPTQ{Bits: 4, Group: 32})
		},
		"awq": func() (*Integers, error) {
			return NewAWQ(of(tensor(w, i32, cols, rows/8), tensor(s, safetensors.BF16, 5, rows), tensor(z, i32, 5, rows/8)), AWQ{Group: 32})
		},
	} {
		one, err := make()
		if err != nil {
			t.Fatal(err)
		}
		strips, gather := one.InStrips()
		if strips == nil {
			t.Skip("this processor decodes by rows")
		}
		testStrips(t, name, r, one, strips, gather)
	}
}

func testStrips(t *testing.T, name string, r *rand.Rand, one *Integers, inStrips Weight, gather func(dst, src []byte, column int)) {
	var stored, shared [][]byte
	for _, x := range one.Tensors() {
		data := random(r, x)
		if x.Role == tile.GroupOfColumn {
			for c := range x.Shape[0] {
				copy(data[4*c:], []byte{byte(r.IntN(5)), 0, 0, 0})
			}
		}
		stored = append(stored, data)
	}
	for _, i := range one.Shared() {
		shared = append(shared, stored[i])
	}
	held, err := inStrips.(Sharing).WithShared(shared)
	if err != nil {
		t.Fatal(name, err)
	}
	cut := held.Cut().ForDecoding()
	runs := one.codesNeeded(tile.Area{Rows: cut.Rows, Cols: cut.Cols})[0]
	gathered, part := make([]byte, len(stored[0])), 8*int(runs.Size)
	gather(gathered, stored[0][:part], 0)
	gather(gathered, stored[0][part:], 8)
	for range 60 {
		a := cut.Cover(tile.Area{Row: r.IntN(cut.Rows), Col: r.IntN(cut.Cols), Rows: 1, Cols: 1})
		a.Rows = min(a.Rows+cut.UnitRows*r.IntN(6), cut.Rows-a.Row)
		a.Cols = min(a.Cols+cut.UnitCols*r.IntN(20), cut.Cols-a.Col)
		var codes []byte
		for row := 0; row < a.Rows; row += cut.UnitRows {
			codes = append(codes, gathered[(a.Row+row)*cut.Cols/2+a.Col*4:][:4*a.Cols]...)
		}
		src := [][]byte{codes, nil, nil, nil}
		for _, span := range one.scalesNeeded(a) {
			src[1] = append(src[1], span.Take(stored[1])...)
		}
		want, got := restored(one, stored, a), make([]float32, a.Values())
		held.Decode(got, src, a, new(tile.Scratch))
		if !slices.Equal(inBF16(got), inBF16(want)) {
			t.Fatalf("%s: %+v in single precision is something else", name, a)
		}
		narrow := make([]byte, 2*a.Values())
		if !held.(Direct).DecodeBF16(narrow, src, a, new(tile.Scratch)) {
			t.Fatalf("%s: %+v is not decoded at once", name, a)
		}
		if !slices.Equal(narrow, inBF16(want)) {
			t.Fatalf("%s: %+v in BF16 is something else", name, a)
		}
		if len(src[1]) > 2 && one.tensors[1].Dtype == safetensors.F16 {
			src[1][1] |= 0x7C // not finite
			if held.(Direct).DecodeBF16(narrow, src, a, new(tile.Scratch)) {
				t.Fatalf("%s: %+v is decoded at once with a scale that is not finite", name, a)
			}
		}
	}
}

// inBF16 are values rounded to BF16.
func inBF16(x []float32) []byte {
	dst := make([]byte, 2*len(x))
	widen.Narrow(dst, x, safetensors.BF16)
	return dst
}
