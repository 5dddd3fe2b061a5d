package tile

import (
	"errors"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/safetensors"
)

// awkward are few different values, so that equal ones, zeros of either sign and those
// that are not finite meet.
func awkward(r *rand.Rand, n int, nonfinite bool) []float32 {
	some := []float32{0, float32(math.Copysign(0, -1)), 1, -1, 2.5, 0x1p-140, -0x1p127}
	if nonfinite {
		some = append(some, float32(math.NaN()), math.Float32frombits(0xFFC00123), float32(math.Inf(1)), float32(math.Inf(-1)))
	}
	x := make([]float32, n)
	for i := range x {
		x[i] = some[r.IntN(len(some))]
	}
	return x
}

func sameRange(a, b Range) bool {
	return math.Float32bits(a.Lo) == math.Float32bits(b.Lo) && math.Float32bits(a.Hi) == math.Float32bits(b.Hi)
}

// TestJoinedRangesAreThatOfTheWhole: a group that lies in several tiles has the range,
// to the bit, that it would have in one.
func TestJoinedRangesAreThatOfTheWhole(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 8))
	for range 3000 {
		x := awkward(r, 2+r.IntN(12), r.IntN(2) == 0)
		at := 1 + r.IntN(len(x)-1)
		if got, want := RangeOf(x[:at]).Join(RangeOf(x[at:])), RangeOf(x); !sameRange(got, want) {
			t.Fatalf("%v at %d: %v, want %v", x, at, got, want)
		}
	}
}

// TestAbsMax: it is the greatest magnitude, and 0 for zeros of either sign.
func TestAbsMax(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 2))
	for range 500 {
		x, want := awkward(r, 1+r.IntN(5), false), float32(0)
		for _, v := range x {
			want = max(want, float32(math.Abs(float64(v))))
		}
		if got := RangeOf(x).AbsMax(); math.Float32bits(got) != math.Float32bits(want) {
			t.Fatalf("%v: %v, want %v", x, got, want)
		}
	}
}

// TestMeasuredAreasJoin: what is measured in the tiles of a weight is what is measured
// in all of it, whatever their shape.
func TestMeasuredAreasJoin(t *testing.T) {
	cuts(t, func(r *rand.Rand, c Cut) {
		if r.IntN(2) == 0 {
			c.GroupRows = 1 // then the values of a group come in their order, and bits are the same
		}
		w := awkward(r, c.Rows*c.Cols, false)
		all := c.Unmeasured()
		for _, a := range c.Areas(1+r.IntN(c.Rows), 1+r.IntN(c.Cols)) {
			values := make([]float32, a.Values())
			for i := range values {
				values[i] = w[a.Index(i, c.Cols)]
			}
			c.Join(all, a, c.Measure(a, values))
		}
		for i, want := range c.Measure(Area{0, 0, c.Rows, c.Cols}, w) {
			if got := all[i]; got != want || c.GroupRows == 1 && !sameRange(got, want) {
				t.Fatalf("%+v: group %d has %v, want %v", c, i, got, want)
			}
		}
	})
}

// TestCheckAreaNamesThePlace: an error says which value of the weight is not finite,
// not which of the tile.
func TestCheckAreaNamesThePlace(t *testing.T) {
	cuts(t, func(r *rand.Rand, c Cut) {
		a := part(r, c)
		values := make([]float32, a.Values())
		if err := CheckArea(a, values, c.Cols); err != nil {
			t.Fatal(err)
		}
		at := r.IntN(len(values))
		values[at], values[len(values)-1] = float32(math.NaN()), float32(math.Inf(1))
		if at == len(values)-1 {
			return
		}
		err, ok := errors.AsType[*NonfiniteError](CheckArea(a, values, c.Cols))
		if !ok || err.Index != a.Index(at, c.Cols) || err.Value == err.Value {
			t.Errorf("%+v of %d columns, value %d: %v", a, c.Cols, at, err)
		}
		if ranges := []Range{{0, 1}, RangeOf(values)}; AllFinite(ranges) || !AllFinite(ranges[:1]) {
			t.Error("AllFinite takes a NaN, or does not take numbers")
		}
	})
}

// TestValuesInParts: parts, bands and widened values are those of the whole, in every
// dtype that is read.
func TestValuesInParts(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 6))
	s := new(Scratch)
	for _, d := range []safetensors.Dtype{safetensors.BF16, safetensors.F16, safetensors.F32} {
		const rows, cols = 7, 5000
		raw := make([]byte, rows*cols*d.Bits()/8)
		for i := range raw {
			raw[i] = byte(r.IntN(60)) // finite in each
		}
		v := Values{Area{3, 0, rows, cols}, d, raw}
		whole := append([]float32(nil), v.Floats(s)...)
		if len(whole) != rows*cols || v.Len() != len(whole) {
			t.Fatalf("%v: %d values", d, v.Len())
		}
		row := v.Row
		for band := range v.Bands {
			if band.Row != row || band.Cols != cols || band.Len() != band.Rows*cols {
				t.Fatalf("%v: a band %+v after row %d", d, band.Area, row)
			}
			check(t, band.Floats(s), whole[(row-v.Row)*cols:])
			row += band.Rows
		}
		if row != v.Row+rows {
			t.Errorf("%v: bands end at row %d", d, row)
		}
		from := r.IntN(rows * cols / 2)
		p := v.Part(from, from+cols)
		if p.Area != Line(v.Row*cols+from, v.Row*cols+from+cols) {
			t.Errorf("%v: the part lies at %+v", d, p.Area)
		}
		check(t, p.Floats(s), whole[from:])
		data, form := p.Raw(s)
		if n := len(data) / form.Bytes(); n != p.Len() || form != kernel.RawF32 && d != safetensors.BF16 {
			t.Errorf("%v: kernels get %d values", d, n)
		}
	}
	check(t, ValuesOf(Line(0, 3), []float32{1, 2, 3}).Floats(s), []float32{1, 2, 3})
}

func check(t *testing.T, got, want []float32) {
	t.Helper()
	for i, v := range got {
		if math.Float32bits(v) != math.Float32bits(want[i]) {
			t.Fatalf("value %d is %v, want %v", i, v, want[i])
		}
	}
}
