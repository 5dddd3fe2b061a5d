package quant

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/safetensors"
)

// pieces are of a weight in BF16 that is 1 but for one value.
func pieces(values, at int, bits uint16) Pieces {
	raw := make([]byte, 2*values)
	for i := range values {
		binary.LittleEndian.PutUint16(raw[2*i:], 0x3F80)
	}
	binary.LittleEndian.PutUint16(raw[2*at:], bits)
	return func(from, n int) ([]byte, error) { return raw[2*from : 2*(from+n)], nil }
}

func lowRankPass(t *testing.T, rows, columns int) RawPass {
	t.Helper()
	o := Options{Dtype: dtype.Lookup("uint4"), Rank: 32, SourceDtype: safetensors.BF16, ModelDtype: safetensors.BF16}
	s, err := NewScheme([]int{rows, columns}, o)
	if err != nil {
		t.Fatal(err)
	}
	p, ok := s.NewEncoder(1 << 20).Passes()[0].(RawPass)
	if !ok || !p.TakesRaw(safetensors.BF16) {
		t.Fatal("BF16 is not read as it is stored")
	}
	return p
}

// TestPiecesNameTheValue: a NaN anywhere in a tile must be reported with its
// place in the tensor.
func TestPiecesNameTheValue(t *testing.T) {
	const columns, rows = 1024, 300
	for _, at := range []int{0, 131071, 131072, 200_001, 256*columns - 1} {
		p := lowRankPass(t, rows, columns)
		_, err := p.ReadRaw(0, 256*columns, pieces(256*columns, at, 0x7FC0), safetensors.BF16, new(Scratch))
		var n *NonfiniteError
		if !errors.As(err, &n) || n.Index != at {
			t.Errorf("NaN at %d: %v", at, err)
		}
	}
}

// TestPiecesFail: what reading fails with ends the pass, in the survey of a tile
// as in its product.
func TestPiecesFail(t *testing.T) {
	const columns, rows = 1024, 256
	whole, broken := pieces(rows*columns, 0, 0x3F80), errors.New("cut off")
	for calls := range 4 {
		p, left := lowRankPass(t, rows, columns), calls
		_, err := p.ReadRaw(0, rows*columns, func(from, n int) ([]byte, error) {
			if left--; left < 0 {
				return nil, broken
			}
			return whole(from, n)
		}, safetensors.BF16, new(Scratch))
		if !errors.Is(err, broken) {
			t.Errorf("after %d pieces: %v", calls, err)
		}
	}
}
