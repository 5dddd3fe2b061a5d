package group

import (
	"bytes"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/rotation"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// bytes127 is the least scaling that there is: code = value / (amax / 127).
type bytes127 struct{}

func (bytes127) StepOf(steps kernel.Steps, i int, r tile.Range) bool {
	return steps.Set(i, 0, r.AbsMax()/127) && r.Finite()
}

func (s bytes127) StepAll(steps kernel.Steps, _, hi []float32) bool {
	all := true
	for i, a := range hi {
		all = steps.Set(i, 0, a/127) && all
	}
	return all
}

func (bytes127) Slowly(codes []byte, _ []float32, _ tile.Range, _ *tile.Scratch) { clear(codes) }

func (bytes127) Collect(side *Companions, steps kernel.Steps, _ []float32) {
	side.Scales = append(side.Scales, steps.Scales...)
}

func fused(g *Grid) *Fused {
	return &Fused{Grid: g, Ints: &kernel.Ints{Lo: -127, Hi: 127}, Groups: bytes127{}}
}

// weight has groups of zeros, and values of very different sizes.
func weight(r *rand.Rand, g *Grid) []float32 {
	w := make([]float32, g.Values)
	for i := range w {
		w[i] = float32(r.NormFloat64())
	}
	for at := 0; at < len(w); at += g.Group {
		by := []float32{0, 1, 0x1p-120, 0x1p90}[r.IntN(4)]
		for i := at; i < at+g.Group; i++ {
			w[i] *= by
		}
	}
	return w
}

func values(from int, w []float32) tile.Values {
	return tile.ValuesOf(tile.Line(from, from+len(w)), w)
}

// grids calls f with random grids of whole units.
func grids(t *testing.T, f func(r *rand.Rand, g *Grid)) {
	t.Helper()
	r := rand.New(rand.NewPCG(11, 5))
	for range 300 {
		g := &Grid{Group: 1 + r.IntN(70), Inner: 1, Levels: 1, Bits: 8, Block: 1, ScaleBytes: 4}
		g.Values = g.Group * (1 + r.IntN(20))
		f(r, g)
		if t.Failed() {
			return
		}
	}
}

// cut yields the ends of parts of n values, of multiples of unit.
func cut(r *rand.Rand, n, unit int) (ends []int) {
	for at := 0; at < n; {
		at = min(at+unit*(1+r.IntN(1+n/unit/3)), n)
		ends = append(ends, at)
	}
	return ends
}

// TestPartsEncodeAsTheWhole: a weight has the same codes and scales, whatever the tiles:
// of whole groups, or of any values once the groups are measured.
func TestPartsEncodeAsTheWhole(t *testing.T) {
	grids(t, func(r *rand.Rand, g *Grid) {
		w, f, s := weight(r, g), fused(g), new(tile.Scratch)
		want, scales := make([]byte, g.Values), new(Companions)
		if err := f.Encode(want, values(0, w), nil, scales, s); err != nil {
			t.Fatal(err)
		}
		if len(scales.Scales) != g.Groups() {
			t.Fatalf("%+v: %d scales", g, len(scales.Scales))
		}
		var ranges []tile.Range
		from := 0
		for _, to := range cut(r, g.Values, 1) {
			found, err := f.RangesOf(values(from, w[from:to]), s)
			if err != nil {
				t.Fatal(err)
			}
			ranges = g.JoinRanges(ranges, from, found)
			from = to
		}
		if len(ranges) != g.Groups() {
			t.Fatalf("%+v: %d ranges", g, len(ranges))
		}
		for unit, measured := range map[int][]tile.Range{g.Group: nil, 1: ranges} {
			got, all, from := make([]byte, g.Values), []float32(nil), 0
			for _, to := range cut(r, g.Values, unit) {
				some := measured
				side := new(Companions)
				if some != nil { // from the unit on in which the part begins
					some = measured[from/g.Group:]
				}
				if err := f.Encode(got[from:to], values(from, w[from:to]), shifted(some, from/g.Group), side, s); err != nil {
					t.Fatal(err)
				}
				all, from = append(all, side.Scales...), to
			}
			if !bytes.Equal(got, want) || !slices.Equal(all, scales.Scales) {
				t.Errorf("%+v in parts of %d: other codes or scales", g, unit)
			}
		}
	})
}

// shifted are ranges as Encode counts them: from the first of the weight on.
func shifted(ranges []tile.Range, before int) []tile.Range {
	if ranges == nil {
		return nil
	}
	return append(make([]tile.Range, before), ranges...)
}

// TestPartsDecodeAsTheWhole: any run of values is restored from the scales of the groups
// that it overlaps as it is from all, with zero points too.
func TestPartsDecodeAsTheWhole(t *testing.T) {
	grids(t, func(r *rand.Rand, g *Grid) {
		codes, scales, zeros := make([]byte, g.Values), make([]float32, g.Groups()), make([]float32, g.Groups())
		for i := range codes {
			codes[i] = byte(r.IntN(256))
		}
		for i := range scales {
			scales[i], zeros[i] = r.Float32(), r.Float32()
		}
		for _, with := range [][]float32{nil, zeros} {
			want, got := make([]float32, g.Values), make([]float32, g.Values)
			g.DecodeBytes(want, codes, 0, scales, with, Int8Values)
			for i, v := range want {
				exact := float64(int8(codes[i])) * float64(scales[i/g.Group])
				if with != nil {
					exact += float64(with[i/g.Group])
				}
				if math.Abs(float64(v)-exact) > 1e-5*(1+math.Abs(exact)) {
					t.Fatalf("%+v: value %d is %v, want %v", g, i, v, exact)
				}
			}
			from := 0
			for _, to := range cut(r, g.Values, 1) {
				first, last := g.GroupsIn(from, to)
				var some []float32
				if with != nil {
					some = with[first:last]
				}
				g.DecodeBytes(got[from:to], codes[from:to], from, scales[first:last], some, Int8Values)
				from = to
			}
			if !slices.Equal(got, want) {
				t.Errorf("%+v: parts are restored as other values", g)
			}
		}
	})
}

// TestDecodeAreaTakesTheScalesOfItsBlocks: an area in any place of a weight whose
// blocks share scales is restored as it is in the whole.
func TestDecodeAreaTakesTheScalesOfItsBlocks(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 6))
	for range 300 {
		c := tile.Cut{Rows: 1 + r.IntN(20), Cols: 1 + r.IntN(20), UnitRows: 1, UnitCols: 1, GroupRows: 1 + r.IntN(6), GroupCols: 1 + r.IntN(6)}
		row, col := r.IntN(c.Rows), r.IntN(c.Cols)
		a := tile.Area{Row: row, Col: col, Rows: 1 + r.IntN(c.Rows-row), Cols: 1 + r.IntN(c.Cols-col)}
		codes, got, want := make([]byte, a.Values()), make([]float32, a.Values()), make([]float32, a.Values())
		for i := range codes {
			codes[i] = byte(r.IntN(256))
		}
		var scales []float32
		c.Groups(a, func(group int, p tile.Area) {
			scale := float32(group + 1)
			scales = append(scales, scale)
			for i := range p.Rows {
				for j := range p.Cols {
					at := a.At(p, i) + j
					want[at] = float32(int8(codes[at])) * scale
				}
			}
		})
		if DecodeArea(c, got, codes, a, scales, Int8Values); !slices.Equal(got, want) {
			t.Fatalf("%+v of %+v: %v, want %v", a, c, got, want)
		}
	}
}

// TestInterleavedGroupsAreSorted: groups that lie interleaved are encoded as they are
// when each lies by itself.
func TestInterleavedGroupsAreSorted(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 4))
	for range 200 {
		inner, long := 1+r.IntN(9), 1+r.IntN(30)
		g := &Grid{Group: inner * long, Inner: inner, Levels: 1, Bits: 8, Block: 1, ScaleBytes: 4}
		g.Values = g.Group * (1 + r.IntN(5))
		w, sorted := weight(r, g), make([]float32, g.Values)
		place := func(i int) int { // of value i among the sorted ones
			unit, in := i/g.Group*g.Group, i%g.Group
			return unit + in%inner*long + in/inner
		}
		for i, v := range w {
			sorted[place(i)] = v
		}
		f, apart := fused(g), fused(&Grid{Group: long})
		f.Deinterleaved = apart
		got, want, s := make([]byte, g.Values), make([]byte, g.Values), new(tile.Scratch)
		side, scales := new(Companions), new(Companions)
		if err := errors.Join(f.Encode(got, values(0, w), nil, side, s), apart.Encode(want, values(0, sorted), nil, scales, s)); err != nil {
			t.Fatal(err)
		}
		for i, c := range got {
			if c != want[place(i)] {
				t.Fatalf("%+v: value %d has code %d, want %d", g, i, c, want[place(i)])
			}
		}
		if !slices.Equal(side.Scales, scales.Scales) {
			t.Errorf("%+v: other scales", g)
		}
		if found := g.Measure(0, w, s); len(found) != g.Groups() || found[0] != tile.RangeOf(sorted[:long]) {
			t.Errorf("%+v: measured %v", g, found)
		}
	}
}

// TestRotatedGroupsAreThoseOfRotatedValues: rotating on the way gives the codes of
// values that were rotated before, in parts as in the whole.
func TestRotatedGroupsAreThoseOfRotatedValues(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	for _, size := range []int{4, 16, 64} {
		g := &Grid{Values: 64 * 3 * 4, Group: 3 * 16, Inner: 1, Levels: 1, Bits: 8, Block: 1, ScaleBytes: 4}
		w, f, s := weight(r, g), fused(g), new(tile.Scratch)
		turned := slices.Clone(w)
		rotation.Rotate(turned, size)
		want, got, scales := make([]byte, g.Values), make([]byte, g.Values), new(Companions)
		if err := f.Encode(want, values(0, turned), nil, scales, s); err != nil {
			t.Fatal(err)
		}
		unit, from, all := tile.LCM(size, g.Group), 0, []float32(nil)
		for _, to := range cut(r, g.Values, unit) {
			side := new(Companions)
			if err := f.EncodeRotated(got[from:to], values(from, w[from:to]), rotation.Hadamard{Size: size}, side, s); err != nil {
				t.Fatal(err)
			}
			all, from = append(all, side.Scales...), to
		}
		if !bytes.Equal(got, want) || !slices.Equal(all, scales.Scales) {
			t.Errorf("rotated by %d: other codes or scales", size)
		}
	}
}

// TestFirstNonfiniteIsNamed: by its place in the weight, and not where it is allowed.
func TestFirstNonfiniteIsNamed(t *testing.T) {
	grids(t, func(r *rand.Rand, g *Grid) {
		w, s, from := weight(r, g), new(tile.Scratch), 1000*g.Group
		at := r.IntN(g.Values)
		w[at], w[g.Values-1] = float32(math.NaN()), float32(math.Inf(1))
		codes, f := make([]byte, g.Values), fused(g)
		_, measuring := f.RangesOf(values(from, w), s)
		for what, err := range map[string]error{
			"encoding": f.Encode(codes, values(from, w), nil, new(Companions), s), "measuring": measuring,
		} {
			if bad, ok := errors.AsType[*tile.NonfiniteError](err); !ok || bad.Index != from+at {
				t.Errorf("%+v: %s value %d: %v", g, what, at, err)
			}
		}
		if f.AllowNonfinite = true; f.Encode(codes, values(from, w), nil, new(Companions), s) != nil {
			t.Errorf("%+v: refused though allowed", g)
		}
	})
}

// TestPlacesOfScales: the tiles of a weight write every scale once, and read those that
// they overlap.
func TestPlacesOfScales(t *testing.T) {
	grids(t, func(r *rand.Rand, g *Grid) {
		g.Inner, g.Levels = 1+r.IntN(3), 1+r.IntN(2)
		next := int64(0)
		from := 0
		for _, to := range cut(r, g.Values, 1) {
			written, needed := g.ScalesWritten(from, to), g.ScalesNeeded(from, to)
			if written.Offset != next {
				t.Fatalf("%+v: the scales of [%d, %d) begin at %d, not %d", g, from, to, written.Offset, next)
			}
			if needed.Offset > written.Offset || needed.Offset+needed.Size < written.Offset+written.Size {
				t.Errorf("%+v: [%d, %d) needs %+v and writes %+v", g, from, to, needed, written)
			}
			next, from = next+written.Size, to
		}
		if want := int64(g.Groups() * g.Levels * g.ScaleBytes); next != want {
			t.Errorf("%+v: %d bytes of scales, want %d", g, next, want)
		}
		if c := g.Cut(); c.Cols != g.Values || c.Rows != 1 || c.GroupCols != g.Group {
			t.Errorf("%+v: cut %+v", g, c)
		}
	})
}

// TestDtypesEncodeAlike: values that BF16 and F16 hold have the codes that they have in
// F32.
func TestDtypesEncodeAlike(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	g := &Grid{Values: 32 * 40, Group: 32, Inner: 1}
	w := make([]float32, g.Values)
	for i := range w {
		w[i] = float32(r.IntN(200)-100) / 64
	}
	f, s := fused(g), new(tile.Scratch)
	want := make([]byte, g.Values)
	if err := f.Encode(want, values(0, w), nil, new(Companions), s); err != nil {
		t.Fatal(err)
	}
	bf16, f16 := make([]byte, 2*g.Values), make([]byte, 2*g.Values)
	kernel.NarrowBF16(bf16, w)
	kernel.NarrowF16(f16, w)
	for d, raw := range map[safetensors.Dtype][]byte{safetensors.BF16: bf16, safetensors.F16: f16} {
		got := make([]byte, g.Values)
		if err := f.Encode(got, tile.Values{Area: tile.Line(0, g.Values), Dtype: d, Bytes: raw}, nil, new(Companions), s); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%v: other codes, %v", d, err)
		}
	}
}
