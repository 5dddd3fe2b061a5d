package kernel

import "testing"

// TestDivisionByInverse is the proof that kernels may divide by way of the
// inverse. What they round at last differs from the quotient of significands a
// and b by less than 1.5·b·2^-25 of its last place; so the result can only be
// wrong where the quotient is that close to the middle of two values, of which
// it stays 2^-24/b·|c| places away, c being a whole number other than zero.
// That leaves |c| < 3: one b, if any, for each middle, and all of these are
// tried.
func TestDivisionByInverse(t *testing.T) {
	stride := uint32(2)
	if testing.Short() {
		stride = 2 * 1009
	}
	tried := 0
	for m := uint32(1<<24 + 1); m < 1<<25; m += stride {
		inverse := m // of m modulo a power of 2: three bits at first
		for range 4 {
			inverse *= 2 - m*inverse
		}
		for _, bits := range []uint{24, 25} { // quotients from 1 on, and below
			for c := int64(-3); c <= 3; c++ {
				b := uint32(-c) * inverse & (1<<bits - 1)
				a := (int64(m)*int64(b) + c) >> bits
				if c == 0 || b < 1<<23 || b >= 1<<24 || a < 1<<23 || a >= 1<<24 {
					continue
				}
				tried++
				x, s := float32(a), float32(b)
				y := 1 / s
				q := x * y
				rest := float32(float64(x) - float64(float64(q)*float64(s)))
				if got := FMA(rest, y, q); got != x/s {
					t.Fatalf("%v / %v is %v, want %v", x, s, got, x/s)
				}
			}
		}
	}
	if tried < 1000 {
		t.Errorf("%d quotients tried", tried)
	}
}
