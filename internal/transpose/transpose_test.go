package transpose

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestTranspose: what SDNQ multiplies in its stored form lies by columns.
func TestTranspose(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, c := range [][2]int{{1, 1}, {1, 9}, {9, 1}, {7, 7}, {8, 8}, {8, 17}, {17, 8}, {64, 64}, {65, 63}, {136, 31}, {200, 129}} {
		rows, columns := c[0], c[1]
		x := make([]byte, rows*columns)
		wide := make([]uint16, len(x))
		for i := range x {
			x[i], wide[i] = byte(r.Uint32()), uint16(r.Uint32())
		}
		want, wantWide := make([]byte, len(x)), make([]uint16, len(x))
		for i := range rows {
			for j := range columns {
				want[j*rows+i], wantWide[j*rows+i] = x[i*columns+j], wide[i*columns+j]
			}
		}
		if got := BytesInto(new([]byte), x, columns); !bytes.Equal(got, want) {
			t.Errorf("%d by %d bytes: got %v, want %v", rows, columns, got, want)
		}
		if got := Into(new([]uint16), wide, columns); !slices.Equal(got, wantWide) {
			t.Errorf("%d by %d: got %v, want %v", rows, columns, got, wantWide)
		}
	}
}
