package comfy

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/internal/tiletest"
	"github.com/tensorpress/tensorpress/safetensors"
)

// TestRawBlocksEqualWidened: blocks encoded from a checkpoint's own bytes must
// not differ from those of widened values, for zero, tiny, huge and non-finite
// blocks, and columns that end within one, at once or some rows at a time.
func TestRawBlocksEqualWidened(t *testing.T) {
	r := rand.New(rand.NewPCG(41, 42))
	shapes := 300
	if testing.Short() {
		shapes = 100
	}
	for i := range shapes {
		shape := []int{1 + r.IntN(40), 1 + r.IntN(200)}
		if i%10 == 0 { // more than a band, of rows that hold whole blocks
			shape = []int{100 + r.IntN(60), 128 * (1 + r.IntN(3))}
		}
		o := BlockOptions{ExactReference: i%2 == 0, AllowNonfinite: i%3 == 0, RoundBF16: i%5 == 0}
		m, err := NewMXFP8(shape, o)
		if err != nil {
			t.Fatal(err)
		}
		n, err := NewNVFP4(shape, o)
		if err != nil {
			t.Fatal(err)
		}
		for _, source := range tiletest.Sources {
			w, raw := tiletest.RoundedTo(tiletest.AwkwardWeight(r, shape[0]*shape[1], 16, i%4 == 0), source)
			v := tile.Values{Area: wholeArea(m), Dtype: source, Bytes: raw}
			compareStepwise(t, m, v, nil, m.stepwise(w))
			compareStepwise(t, n, v, nil, n.stepwise(w, tile.RangeOf(w)))
			if found, err := n.measure(v, new(tile.Scratch)); err == nil {
				compareStepwise(t, n, v, found, n.stepwise(w, tile.RangeOf(w)))
			}
		}
	}
}

// storedStepwise is what a definition gives: tensors, or an error.
type storedStepwise struct {
	data [][]byte
	err  error
}

// compareStepwise encodes all of a weight into memory that holds something else before.
func compareStepwise(t *testing.T, s sheet, v tile.Values, ranges []tile.Range, want storedStepwise) {
	t.Helper()
	e := encoderOf(s)
	got := room(s)
	same(t, s, v, got, e.Fill(got, v, ranges, new(tile.Scratch)), want)
	if ranges == nil && s.Cut().GroupRows > 1 || v.Rows > bandRows {
		return
	}
	for _, rows := range []int{1, 7, 32, 50} {
		got, err := room(s), error(nil)
		for from := 0; from < v.Rows && err == nil; from += rows {
			err = e.Fill(got, v.Band(from, min(from+rows, v.Rows)), ranges, new(tile.Scratch))
		}
		same(t, s, v, got, err, want)
	}
}

func same(t *testing.T, s sheet, v tile.Values, got [][]byte, err error, want storedStepwise) {
	t.Helper()
	if fmt.Sprint(err) != fmt.Sprint(want.err) {
		t.Fatalf("%T %v of %v: error %v, want %v", s, s.Shape(), v.Dtype, err, want.err)
	}
	for i := range got {
		if err == nil && !bytes.Equal(got[i], want.data[i]) {
			t.Fatalf("%T %v of %v: tensor %d differs", s, s.Shape(), v.Dtype, i)
		}
	}
}

// stepwise is the definition: block after block is rounded, scaled and cast.
func (m *MXFP8) stepwise(w []float32) storedStepwise {
	return m.swizzled.stepwise(m, w, m.o, m.normalize, func(dst []byte, row []float32) {
		codes := make([]uint16, len(row))
		kernel.EncodeSmall(codes, row, kernel.E4M3)
		for j, code := range codes {
			dst[j] = byte(code)
		}
	})
}

func (n *NVFP4) stepwise(w []float32, r tile.Range) storedStepwise {
	tensor := r.AbsMax() / 2688
	if r.Lo != r.Lo {
		tensor = r.Lo
	}
	normalize := func(block []float32) byte { return normalizeFP4(block, tensor) }
	if tensor == 0 {
		normalize = func(block []float32) byte { clear(block); return 0 }
	}
	all := n.swizzled.stepwise(n, w, n.o, normalize, func(dst []byte, row []float32) {
		codes := make([]uint16, 2*len(dst))
		kernel.EncodeSmall(codes[:len(row)], row, kernel.E2M1)
		if tensor == 0 {
			clear(codes) // no zeros with a sign
		}
		for j := range dst {
			dst[j] = byte(codes[2*j]<<4 | codes[2*j+1])
		}
	})
	if tensor == 0 {
		tensor = 1
	}
	binary.LittleEndian.PutUint32(all.data[2], math.Float32bits(tensor))
	return all
}

func (w *swizzled) stepwise(s sheet, x []float32, o BlockOptions, normalize func(block []float32) byte, cast func(dst []byte, row []float32)) storedStepwise {
	data := room(s)
	if !o.AllowNonfinite {
		if err := tile.CheckArea(wholeArea(s), x, w.shape[1]); err != nil {
			return storedStepwise{data, err}
		}
	}
	x = slices.Clone(x)
	if o.RoundBF16 {
		floats.RoundAll(x, safetensors.BF16)
	}
	stride, wide := w.stride(w.cols), w.cols*w.bits/8
	scales := make([]byte, roundUp(w.rows, bandRows)*stride)
	clear(data[0])
	for i := range w.shape[0] {
		row := x[i*w.shape[1] : (i+1)*w.shape[1]]
		for c := 0; c*w.block < len(row); c++ {
			scales[i*stride+c] = normalize(row[c*w.block : min((c+1)*w.block, len(row))])
		}
		cast(data[0][i*wide:(i+1)*wide], row)
	}
	putScales(data[1], scales, 0, stride)
	return storedStepwise{data, nil}
}
