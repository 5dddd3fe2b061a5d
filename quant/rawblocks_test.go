package quant

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

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
		o := BlockOptions{ExactReference: i%2 == 0, AllowNonfinite: i%3 == 0}
		m, err := NewMXFP8(shape, o)
		if err != nil {
			t.Fatal(err)
		}
		n, err := NewNVFP4(shape, o)
		if err != nil {
			t.Fatal(err)
		}
		for _, source := range sources {
			w, raw := roundedTo(awkwardWeight(r, shape[0]*shape[1], 16, i%4 == 0), source)
			for _, s := range []RawSheet{m, n} {
				compareRaw(t, s.(sheet), source, w, raw, nil)
				if found, err := s.MeasureRaw(RawPatch(wholeArea(s.(sheet)), raw, source, nil), new(Scratch)); err == nil && s == RawSheet(n) {
					compareRaw(t, n, source, w, raw, found)
				}
			}
		}
	}
}

func compareRaw(t *testing.T, s sheet, source safetensors.Dtype, w []float32, raw []byte, ranges []Range) {
	t.Helper()
	whole := wholeArea(s)
	encode := func(p Patch) ([][]byte, error) {
		data := room(s)
		return data, s.Encode(data, p, new(Scratch))
	}
	want, wantErr := encode(Patch{Area: whole, Values: append([]float32(nil), w...), Ranges: ranges})
	same := func(how string, got [][]byte, err error) {
		t.Helper()
		if fmt.Sprint(err) != fmt.Sprint(wantErr) {
			t.Fatalf("%T %v of %v %s: error %v, want %v", s, s.Shape(), source, how, err, wantErr)
		}
		for i := range got {
			if err == nil && !bytes.Equal(got[i], want[i]) {
				t.Fatalf("%T %v of %v %s: tensor %d differs", s, s.Shape(), source, how, i)
			}
		}
	}
	got, err := encode(RawPatch(whole, raw, source, ranges))
	same("at once", got, err)
	if ranges == nil && s.Cut().GroupRows > 1 {
		return
	}
	for _, rows := range []int{1, 7, 32, 50, 128} {
		got, err := encodePieces(s, raw, source, ranges, rows)
		same(fmt.Sprintf("by %d rows", rows), got, err)
	}
}

// encodePieces fills memory that holds something else before.
func encodePieces(s sheet, raw []byte, source safetensors.Dtype, ranges []Range, rows int) ([][]byte, error) {
	whole, data, scratch := wholeArea(s), room(s), new(Scratch)
	for _, d := range data {
		for i := range d {
			d[i] = 0xA5
		}
	}
	for piece := range whole.Split(rows, whole.Cols) {
		n := piece.Values() * source.Bits() / 8
		if err := s.Encode(data, RawPiece(whole, piece, raw[:n], source, ranges), scratch); err != nil {
			return data, err
		}
		raw = raw[n:]
	}
	return data, nil
}
