package search

import (
	"math"

	"github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Floats searches the scales of groups of float codes among multiples of the plain
// ones. How well a float serves a group depends on where in their binades its values
// fall, so that a scale up to twice as large, with which no value is clipped, may lose
// less.
type Floats struct {
	Rounding *kernel.Rounding
	Ratios   *Ratios
	// Multiplied says that a step's scale is what values are multiplied by.
	Multiplied bool
	// From says that there are zero points, which stay as they are.
	From bool
	// Stored tells what scales and zero points are once they are stored; nil if they
	// are stored as they are.
	Stored Stored
	// Exact restores groups to compare what was found with the plain scales; nil where
	// Rounding alone tells what is lost.
	Exact *Restoring
	// Weights are how much the squared error of a value counts, by its column; nil if
	// all count alike.
	Weights []float32
}

// Restoring is how codes are made of a group and what they are restored as.
type Restoring struct {
	Codes  *kernel.Floats
	Values *kernel.Values
	Dtype  safetensors.Dtype
}

// Ratios are those of the scales that are tried to the plain one.
type Ratios struct{ up, down, squares []float32 }

func ratios(up ...float32) *Ratios {
	r := &Ratios{up: up}
	for _, x := range up {
		r.down, r.squares = append(r.down, 1/x), append(r.squares, x*x)
	}
	return r
}

var (
	// Octave are 32 scales to an octave, of which none clips a value. In float8_e4m3fn a
	// row of some hundred values keeps 0.855 of the plain error, with 16 of them 0.875,
	// with 48 0.85.
	Octave = ratios(
		1.0218972, 1.0442737, 1.0671405, 1.0905077, 1.1143868, 1.1387886, 1.1637249, 1.1892071,
		1.2152474, 1.2418578, 1.269051, 1.2968396, 1.3252367, 1.3542556, 1.3839099, 1.4142135,
		1.4451808, 1.4768262, 1.5091645, 1.5422108, 1.5759809, 1.6104903, 1.6457555, 1.6817929,
		1.7186193, 1.7562522, 1.7947091, 1.8340081, 1.8741677, 1.9152066, 1.9571441,
	)
	// Around are scales on either side, for floats of so few levels that it may pay to
	// clip a value.
	Around = ratios(
		0.80524516, 0.84089643, 0.87812608, 0.91700405, 0.95760328, 1.0442737, 1.0905077, 1.1387886,
		1.1892071, 1.2418578, 1.2968396, 1.3542556, 1.4142135, 1.4768262, 1.5422108, 1.6104903,
		1.6817929,
	)
)

// floatGroups are the values of a batch of groups as kernels take them, and the scales
// that are tried for a block of 16.
type floatGroups struct {
	lines
	shifted             []float32
	stored              []float32 // plain scales, then those that are tried
	by, squares, errors []float32
	best                []uint32
	numbers             [lanes]uint32
	changed             kernel.Steps
	codes               []byte
	restored            []float32
}

// Improve replaces scales of groups of size values by better ones, and leaves those that
// it cannot improve.
func (f *Floats) Improve(steps kernel.Steps, v tile.Values, size int, s *tile.Scratch) {
	b := tile.PartOf[floatGroups](s)
	b.size, b.groups = size, len(steps.Scales)
	data, raw := f.shifted(b, steps, v, s)
	f.weigh(b, v, s)
	f.try(b, steps, s)
	b.best = tile.Sized(&b.best, b.groups)
	if size >= long {
		f.rateLong(b, steps, data, raw)
	} else {
		f.rateShort(b, steps, data, raw)
	}
	f.choose(b, steps, v, s)
}

// shifted returns the values of groups without their zero points, as kernels read them.
func (f *Floats) shifted(b *floatGroups, steps kernel.Steps, v tile.Values, s *tile.Scratch) ([]byte, kernel.Raw) {
	if !f.From {
		return v.Raw(s)
	}
	x := v.Widen(&b.shifted)
	for i, zero := range steps.Zeros {
		kernel.ScaleFrom(x[i*b.size:(i+1)*b.size], 1, -zero)
	}
	return kernel.AsBytes(x), kernel.RawF32
}

// weigh lays the weights of values out.
func (f *Floats) weigh(b *floatGroups, v tile.Values, s *tile.Scratch) {
	b.weights = b.weights[:0]
	if f.Weights == nil {
		return
	}
	l := Lines{Weights: f.Weights}
	all := l.weightsOf(v.Col, v.Len(), s)
	if b.rows = b.size; b.size < long {
		b.weights = b.side(&b.weights, all)
		return
	}
	b.rows = tile.CeilDiv(b.size, lanes)
	b.weights = b.padded(&b.weights, all)
}

// try lists the scales that are tried, as they are stored: tried(j) has number j of all
// groups.
func (f *Floats) try(b *floatGroups, steps kernel.Steps, s *tile.Scratch) {
	if f.Stored == nil {
		return
	}
	n := b.groups
	b.stored, b.moved = tile.Sized(&b.stored, n*(1+len(f.Ratios.up))), tile.Sized(&b.moved, n)
	f.Stored.Scales(b.stored[:n], steps.Scales, s)
	for j, ratio := range f.Ratios.up {
		for i, scale := range steps.Scales {
			b.moved[i] = scale * ratio
		}
		f.Stored.Scales(b.stored[(1+j)*n:(2+j)*n], b.moved, s)
	}
}

// tried is the step's scale j of group i, of which 0 is the plain one.
func (f *Floats) tried(b *floatGroups, steps kernel.Steps, i, j int) float32 {
	plain := steps.Scales[i]
	switch {
	case j == 0:
		return plain
	case f.Stored != nil:
		if scale := b.stored[j*b.groups+i]; divisible(scale) && scale > 0 {
			return scale
		}
		return plain
	case f.Multiplied:
		return plain * f.Ratios.down[j-1]
	}
	return plain * f.Ratios.up[j-1]
}

// offer sets what the scales of some groups are rated with, each in a lane, or of one
// in all lanes. A group whose scale is extreme has inverses of 0, and no errors.
func (f *Floats) offer(b *floatGroups, steps kernel.Steps, first, count int) {
	var inverses kernel.Lanes
	for lane := range inverses {
		i := first + min(lane, count-1)
		if plain := steps.Scales[i]; plain > 0 && divisible(plain) {
			if inverses[lane] = steps.Inverses[i]; f.Multiplied {
				inverses[lane] = plain
			}
		}
	}
	copy(b.by, inverses[:])
	for j, down := range f.Ratios.down {
		by := b.by[(1+j)*lanes:][:lanes]
		for lane, inverse := range inverses {
			by[lane] = inverse * down
		}
	}
	if f.Stored == nil {
		return
	}
	for j := range f.Ratios.down {
		at := (1 + j) * lanes
		for lane, inverse := range inverses {
			if inverse == 0 {
				continue
			}
			i := first + min(lane, count-1)
			scale := f.tried(b, steps, i, 1+j)
			ratio := scale / steps.Scales[i]
			b.by[at+lane], b.squares[at+lane] = 1/scale, ratio*ratio
		}
	}
}

func fill(x []float32, v float32) {
	for i := range x {
		x[i] = v
	}
}

func (f *Floats) sized(b *floatGroups) {
	n := (1 + len(f.Ratios.up)) * lanes
	b.by, b.squares, b.errors = tile.Sized(&b.by, n), tile.Sized(&b.squares, n), tile.Sized(&b.errors, n)
	fill(b.squares[:lanes], 1)
	for j, square := range f.Ratios.squares {
		fill(b.squares[(1+j)*lanes:][:lanes], square)
	}
}

// rateShort finds the best of the scales that are tried, of 16 groups at a time. Lanes
// without a group have those of the last one.
func (f *Floats) rateShort(b *floatGroups, steps kernel.Steps, data []byte, raw kernel.Raw) {
	f.sized(b)
	size := b.size * raw.Bytes()
	b.x = tile.Sized(&b.x, lanes*b.size)
	for first := 0; first < b.groups; first += lanes {
		count := min(lanes, b.groups-first)
		block := data[first*size : (first+count)*size]
		if count < lanes {
			block = append(append(b.codes[:0], block...), make([]byte, (lanes-count)*size)...)
			b.codes = block
		}
		kernel.Magnitudes(b.x, block, raw, b.size)
		f.offer(b, steps, first, count)
		var weights []float32
		if len(b.weights) > 0 {
			weights = b.weights[first*b.size : (first+lanes)*b.size]
		}
		kernel.ScaleErrors(b.errors, b.x, weights, b.by, b.squares, f.Rounding)
		kernel.LeastErrors(&b.numbers, b.errors, Gain)
		copy(b.best[first:], b.numbers[:count])
	}
}

// rateLong finds the best of the scales that are tried, group by group.
func (f *Floats) rateLong(b *floatGroups, steps kernel.Steps, data []byte, raw kernel.Raw) {
	f.sized(b)
	size, rows := b.size*raw.Bytes(), tile.CeilDiv(b.size, lanes)
	b.x = tile.Sized(&b.x, rows*lanes)
	for i := range b.groups {
		group := tile.Values{Area: tile.Line(0, b.size), Dtype: dtypeOf(raw), Bytes: data[i*size : (i+1)*size]}
		clear(b.x[b.size:])
		magnitudes(group.Widen(&b.x))
		b.x = b.x[:rows*lanes]
		f.offer(b, steps, i, 1)
		var weights []float32
		if len(b.weights) > 0 {
			weights = b.weights[i*rows*lanes : (i+1)*rows*lanes]
		}
		kernel.ScaleErrors(b.errors, b.x, weights, b.by, b.squares, f.Rounding)
		for at := 0; at < len(b.errors); at += lanes { // of one group, in all lanes
			b.errors[at] = total((*kernel.Lanes)(b.errors[at:]))
		}
		kernel.LeastErrors(&b.numbers, b.errors, Gain)
		b.best[i] = b.numbers[0]
	}
}

func dtypeOf(raw kernel.Raw) safetensors.Dtype {
	if raw == kernel.RawBF16 {
		return safetensors.BF16
	}
	return safetensors.F32
}

func magnitudes(x []float32) {
	for i, v := range x {
		x[i] = math.Float32frombits(math.Float32bits(v) & (1<<31 - 1))
	}
}

// choose puts the best scales into steps, if they are better when restored.
func (f *Floats) choose(b *floatGroups, steps kernel.Steps, v tile.Values, s *tile.Scratch) {
	if f.Exact == nil {
		for i, j := range b.best {
			if j > 0 {
				steps.Set(i, steps.Zeros[i], f.tried(b, steps, i, int(j)))
			}
		}
		return
	}
	b.changed = b.changed.Sized(b.groups)
	for i, j := range b.best {
		b.changed.Set(i, steps.Zeros[i], f.tried(b, steps, i, int(j)))
	}
	wide := v.Widen(&b.wide)
	plain, changed := make([]float64, b.groups), make([]float64, b.groups)
	f.errors(plain, b, steps, wide, v, s)
	f.errors(changed, b, b.changed, wide, v, s)
	for i, j := range b.best {
		if j > 0 && changed[i] < plain[i] {
			steps.Set(i, steps.Zeros[i], b.changed.Scales[i])
		}
	}
}

// errors are those of groups that are encoded by steps and restored.
func (f *Floats) errors(errors []float64, b *floatGroups, steps kernel.Steps, wide []float32, v tile.Values, s *tile.Scratch) {
	codes, restored := tile.Sized(&b.codes, len(wide)), tile.Sized(&b.restored, len(wide))
	b.codes, b.restored = codes, restored
	data, raw := v.Raw(s)
	kernel.EncodeFloats(codes, data, raw, steps, b.size, f.Exact.Codes)
	scales, zeros := steps.Scales, steps.Zeros
	if f.Stored != nil {
		b.scales, b.zeros = tile.Sized(&b.scales, b.groups), tile.Sized(&b.zeros, b.groups)
		scales, zeros = b.scales, b.zeros
		f.Stored.Scales(scales, steps.Scales, s)
		f.Stored.Zeros(zeros, steps.Zeros, s)
	}
	if !f.From {
		zeros = nil
	}
	kernel.DecodeBytes(restored, codes, scales, zeros, b.size, f.Exact.Values)
	floats.RoundAll(restored, f.Exact.Dtype)
	for i := range errors {
		from, to := i*b.size, (i+1)*b.size
		if f.Weights == nil {
			errors[i] = missed(wide[from:to], restored[from:to])
			continue
		}
		errors[i] = 0
		for k := from; k < to; k++ {
			d := float64(wide[k]) - float64(restored[k])
			errors[i] += float64(float64(d*d) * float64(f.Weights[(v.Col+k)%len(f.Weights)]))
		}
	}
}

// missed is the sum of squared differences, in four sums of which none waits for
// another.
func missed(want, got []float32) float64 {
	var sums [4]float64
	got = got[:len(want)]
	for len(want) >= 4 {
		for i := range sums {
			d := float64(want[i]) - float64(got[i])
			sums[i] += float64(d * d)
		}
		want, got = want[4:], got[4:]
	}
	for i, v := range want {
		d := float64(v) - float64(got[i])
		sums[i] += float64(d * d)
	}
	return sums[0] + sums[1] + sums[2] + sums[3]
}
