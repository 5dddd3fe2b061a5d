package codec

import (
	"slices"
	"testing"

	"github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// TestStack: rows of layers that are stored in different ways must restore to the values
// that they have there, in areas of any size.
func TestStack(t *testing.T) {
	t.Parallel()
	shape := []int{256, 256}
	type layer struct {
		Codec
		stored [][]byte
		values []float32
	}
	var layers []layer
	for _, s := range append(sdnqCases(), nativeCases(t)...) {
		f, err := Resolve(s.Dtype, false)
		if err != nil {
			t.Fatal(err)
		}
		c, _, err := f.Scaled(s.Scale).Make(Source{Name: "a", Shape: shape, Dtype: safetensors.BF16}, s)
		if err != nil || testing.Short() && len(layers) > 0 && Scheme(c) != nil && Scheme(c).Rank == 0 && Scheme(c).Hadamard == 0 && len(layers)%3 > 0 {
			continue
		}
		if slices.ContainsFunc(c.Tensors(), func(one tile.Tensor) bool { return one.Role == tile.InputScale }) {
			continue // which readers do not open
		}
		stored := encoded(t, c, bell(shape), 1<<20)
		layers = append(layers, layer{c, stored, restored(t, c, stored, 1<<20, safetensors.BF16)})
	}
	plain := Cast(shape, safetensors.F32)
	values := bell(shape)
	bytes := make([]byte, 4*len(values))
	floats.Narrow(bytes, values, safetensors.F32)
	layers = append(layers, layer{plain, [][]byte{bytes}, values})
	for i, a := range layers {
		b := layers[(i*7+3)%len(layers)]
		rows := []Rows{{a.Codec, 96, 256}, {b.Codec, 0, 256}, {a.Codec, 3, 96}}
		stacked := Stack([]int{509, 256}, rows)
		stored := slices.Concat(a.stored, b.stored, a.stored)
		want := slices.Concat(a.values[96*256:], b.values, a.values[3*256:96*256])
		for _, size := range []int{1 << 20, 5000, 100} {
			if got := restored(t, stacked, stored, size, safetensors.BF16); !slices.Equal(got, want) {
				t.Errorf("%T on %T: other values in areas of %d", a.Codec, b.Codec, size)
			}
		}
		once, take := SharedTensors(stacked)
		if len(once) == 0 {
			continue
		}
		var shared [][]byte
		for _, i := range once {
			shared = append(shared, stored[i])
		}
		c, err := take(shared)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range once {
			if n := tile.SpanBytes(c.Needed(i, tile.Area{Rows: 509, Cols: 256})); n > 0 {
				t.Errorf("%T on %T: %d bytes of what it has are needed", a.Codec, b.Codec, n)
			}
		}
		if got := restored(t, c, stored, 5000, safetensors.BF16); !slices.Equal(got, want) {
			t.Errorf("%T on %T: other values with what all areas share", a.Codec, b.Codec)
		}
	}
}

// TestJoin: matrices that are stored as layers of their own must restore to the values
// that they have there, one after the other, or a row of each in turn.
func TestJoin(t *testing.T) {
	t.Parallel()
	const rows, columns = 40, 256
	joined := 0
	for _, s := range append(sdnqCases(), nativeCases(t)...) {
		f, err := Resolve(s.Dtype, false)
		if err != nil {
			t.Fatal(err)
		}
		c, _, err := f.Scaled(s.Scale).Make(Source{Name: "a", Shape: []int{rows, columns}, Dtype: safetensors.BF16}, s)
		if err != nil || slices.ContainsFunc(c.Tensors(), func(one tile.Tensor) bool { return one.Role == tile.InputScale }) {
			continue
		}
		if joined++; testing.Short() && joined%4 > 0 {
			continue
		}
		var each []Codec
		var values [][]float32
		stored := make([][]byte, len(c.Tensors()))
		for i := range 4 {
			x := bell([]int{rows, columns})
			for k := range x {
				x[k] *= float32(1 + i)
			}
			own := encoded(t, c, x, 1<<20)
			for k := range stored {
				stored[k] = append(stored[k], own[k]...)
			}
			each, values = append(each, c), append(values, restored(t, c, own, 1<<20, safetensors.BF16))
		}
		for alternate, shape := range map[int][]int{0: {4, rows, columns}, 2: {2, 2 * rows, columns}, 4: {1, 4 * rows, columns}} {
			bank, err := Join(each, alternate)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(bank.Shape(), shape) {
				t.Errorf("%s by %d has shape %v, want %v", s.Dtype, alternate, bank.Shape(), shape)
			}
			var want []float32
			for i := 0; i < 4; i += max(alternate, 1) {
				for row := range rows {
					for _, x := range values[i : i+max(alternate, 1)] {
						if alternate > 0 {
							want = append(want, x[row*columns:(row+1)*columns]...)
						}
					}
				}
				if alternate == 0 {
					want = append(want, values[i]...)
				}
			}
			for _, size := range []int{1 << 20, 700} {
				if got := restored(t, bank, stored, size, safetensors.BF16); !slices.Equal(got, want) {
					t.Errorf("%s %T by %d: other values in areas of %d", s.Dtype, c, alternate, size)
				}
			}
		}
	}
	if joined == 0 {
		t.Error("nothing is joined")
	}
}
