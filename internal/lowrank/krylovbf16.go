package lowrank

import (
	"math"
	"slices"

	"github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/tile"
)

// A krylov space takes BF16 as it is stored. Its values have 8 significant
// bits; where x and y have 16, products are exact, and kernels may fuse
// multiplication and addition, which is twice as fast.

// tileFacts is what has to be known of a BF16 tile before it is multiplied.
type tileFacts struct {
	known    bool
	exponent int  // of its greatest magnitude
	finite   bool // if not, it has none
	wide     bool // finite, but products of some values could underflow, or overflow
}

// Bounds within which products of x, y and a tile are exact: x and y are zero
// or at least floor, and values at least 2^-valueRange of the greatest.
const (
	floor                   = 0x1p-40
	valueRange              = 60
	leastExponent, greatest = -27, 100
)

// factsOf looks at values in BF16.
func factsOf(v tile.Values) tileFacts {
	amax, least := [1]float32{}, uint16(math.MaxUint16)
	var most float32
	for from := 0; from < v.Len(); from += tile.TileSize { // twice through what is in the nearer caches
		part := v.Part(from, min(from+tile.TileSize, v.Len()))
		kernel.AbsMax(amax[:], part.Bytes, kernel.RawBF16, part.Len())
		most, least = max(most, amax[0]), min(least, kernel.LeastBF16(part.Bytes)) // of NaN NaN
	}
	if !floats.Finite(most) {
		return tileFacts{known: true}
	}
	_, top := math.Frexp(float64(most))
	tiny := math.Float32frombits(uint32(least+1) << 16) // its bits less 1, or all ones if there is none
	wide := tiny != 0 && float64(tiny) < math.Ldexp(1, top-valueRange)
	return tileFacts{true, top, true, wide || top < leastExponent || top > greatest}
}

// brought returns a copy of a tile with magnitudes below 1; what is then below
// 2^-60 is zero.
func (f tileFacts) brought(rows []byte, s *buffers) []byte {
	x, brought := tile.Sized(&s.values, len(rows)/2), tile.Sized(&s.bytes, len(rows))
	kernel.WidenBF16(x, rows)
	for i, v := range x {
		x[i] = float32(math.Ldexp(float64(v), -f.exponent))
		if math.Abs(float64(x[i])) < 0x1p-60 {
			x[i] = 0
		}
	}
	kernel.NarrowBF16(brought, x)
	return brought
}

// sixteenBits rounds to so many significant bits; what is below floor is zero.
func sixteenBits(v float32) float32 {
	bits := math.Float32bits(v)
	v = math.Float32frombits((bits + 0x7F + bits>>8&1) &^ 0xFF)
	if floats.Abs(v) < floor { // not a comparison with both bounds: no processor foretells signs
		return 0
	}
	return v
}

// productBF16 is product of a tile as it is stored. It goes through rows that stay in
// the second cache between the two products.
func (k *krylov) productBF16(rows []byte, f tileFacts, scratch *tile.Scratch) func(sum []float64) {
	s := tile.PartOf[buffers](scratch)
	scale, lift := math.Ldexp(1, f.exponent), math.Ldexp(1/small, -f.exponent)
	switch {
	case !f.finite:
		scale = math.NaN()
	case f.wide:
		scale, lift = scale*scale, 1/small
	}
	const near = 256 << 10
	some := 2 * k.columns * max(near/(2*k.columns)/16*16, 32)
	sums := tile.Sized(&s.rows, len(k.strips)*k.stripSize())
	clear(sums)
	for w := range slices.Chunk(rows, some) {
		if f.wide {
			w = f.brought(w, s)
		}
		for g, x := range k.strips {
			k.addProduct(sums[g*k.stripSize():][:k.stripSize()], w, x, lift, s)
		}
	}
	return func(sum []float64) { k.addStrips(sum, sums, scale) }
}

// addProduct adds wᵀ·w·x for 16 columns of x.
func (k *krylov) addProduct(sums []float32, w []byte, x []float32, lift float64, s *buffers) {
	n := len(w) / (2 * k.columns) * kernel.StripColumns
	seen, y := tile.Sized(&s.seen, n), tile.Sized(&s.y, n)
	kernel.ProjectBF16(seen, w, x, k.columns)
	for i, v := range seen {
		y[i] = sixteenBits(float32(v * lift))
	}
	kernel.CollectBF16(sums, w, y, k.columns)
}

// stripSize is how many sums there are for 16 columns of x.
func (k *krylov) stripSize() int {
	const n = kernel.StripColumns
	return tile.CeilDiv(k.columns, n) * n * n
}

// addStrips adds sums for 16 columns of x after the other to those of a pass.
func (k *krylov) addStrips(sum []float64, sums []float32, scale float64) {
	const n = kernel.StripColumns
	if k.width == n {
		kernel.AddWide(sum, sums, scale)
		return
	}
	for g := range k.strips {
		part := sums[g*k.stripSize():][:k.stripSize()]
		used := min(n, k.width-g*n) * n
		for at := g * n * n; len(part) > 0; at, part = at+k.width*n, part[n*n:] {
			kernel.AddWide(sum[at:], part[:used], scale)
		}
	}
}

// takeBF16 prepares for tiles in BF16, before the first.
func (k *krylov) takeBF16() {
	const n = kernel.StripColumns
	k.narrow, k.precision, k.strips = true, sixteenPrecision, make([][]float32, tile.CeilDiv(k.width, n))
	for g := range k.strips {
		k.strips[g] = singles.zeros(k.columns * n)
	}
	k.roundLast()
}

// roundLast rounds the last block and copies it into strips of 16 columns.
func (k *krylov) roundLast() {
	const n = kernel.StripColumns
	x := k.x.last()
	for i, v := range x {
		x[i] = sixteenBits(v)
	}
	for g, strip := range k.strips {
		used := min(n, k.width-g*n)
		for j := range k.columns {
			copy(strip[j*n:(j+1)*n], x[j*k.width+g*n:][:used])
		}
	}
}
