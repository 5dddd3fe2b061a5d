package pack

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
)

// TestBytesEqualPack: the fast way to the same words must not shuffle weights.
func TestBytesEqualPack(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for bits := 1; bits <= 8; bits++ {
		t.Run(fmt.Sprint(bits), func(t *testing.T) {
			for n := 0; n <= 400; n += Values(bits) {
				wide, codes := make([]uint16, n), make([]byte, n)
				for i := range codes {
					codes[i] = byte(r.IntN(1 << bits))
					wide[i] = uint16(codes[i])
				}
				got, want := make([]byte, Size(n, bits)+8), packed(wide, bits)
				if Bytes(got, codes, bits); !bytes.Equal(got[:len(want)], want) {
					t.Fatalf("%d codes: %x, want %x", n, got, want)
				}
				if !bytes.Equal(got[len(want):], make([]byte, 8)) {
					t.Fatalf("%d codes: wrote behind them", n)
				}
				again := make([]byte, n+8)
				if SplitBytes(again[:n], want, bits); !bytes.Equal(again[:n], codes) {
					t.Fatalf("%d codes: split into %x, want %x", n, again[:n], codes)
				}
				if !bytes.Equal(again[n:], make([]byte, 8)) {
					t.Fatalf("%d codes: split wrote behind them", n)
				}
			}
		})
	}
}
