package quant

import (
	"sync"

	"github.com/tensorpress/tensorpress/safetensors"
)

// known is what passes have found out about a whole weight.
type known struct {
	ranges []Range    // of all groups, where these are larger than tiles
	books  []*Lloyd   // of all groups, likewise
	stored [2]*stored // of scales and of zero points, where they are quantized themselves
	rank   *lowRank

	once [2]sync.Once
	all  [2][]float32
}

// floats are all scales (which is 0) or zero points (1) of a weight whose
// groups are larger than tiles: there are few.
func (k *known) floats(s *Scheme, which int) []float32 {
	k.once[which].Do(func() {
		scratch := new(Scratch)
		if s.Codebook {
			scratch.scales = k.levels(s)
		} else {
			s.collect(k.ranges, scratch)
		}
		k.all[which] = scratch.scales
		if which == 1 {
			k.all[which] = scratch.zeros
		}
	})
	return append([]float32(nil), k.all[which]...)
}

// levels of all groups, as they are stored.
func (k *known) levels(s *Scheme) []float32 {
	levels := make([]float32, len(k.books)*s.Levels)
	for i, book := range k.books {
		unit, j := i/s.Inner, i%s.Inner
		for l, v := range book.Levels() {
			levels[unit*s.perUnit()+l*s.Inner+j] = s.round(v)
		}
	}
	return levels
}

// schemeEncoder runs the passes of a scheme.
type schemeEncoder struct {
	*Scheme
	known
	tile  int
	whole bool // units fit tiles
}

// NewEncoder prepares to encode in tiles of at most limit values.
func (s *Scheme) NewEncoder(limit int) Encoder {
	e := &schemeEncoder{Scheme: s}
	for i, f := range []sideData{s.scale, s.zero} {
		if f.store != nil {
			e.stored[i] = &stored{store: f.store}
		}
	}
	if s.Rank > 0 {
		l, _ := NewLowRankSteps(s.geometry.rows, s.geometry.rest, s.Rank, s.rankSteps) // NewScheme has seen the shape
		e.rank = &lowRank{LowRank: l}
	}
	align := s.align()
	unit := lcm(align, s.Group*s.unitsTogether())
	if rows := lcm(unit, s.rowsTogether()); rows <= limit {
		unit = rows
	}
	e.tile = s.TileValues(s.wanted(limit), limit, unit)
	if e.whole = e.tile > 0; !e.whole {
		e.tile = max(TileSize/align, 1) * align
	}
	return e
}

// wanted is how large tiles should be: where pieces of columns are written, as
// large as may be.
func (s *Scheme) wanted(limit int) int {
	if s.Transposed {
		return limit
	}
	return min(TileSize, limit)
}

// rowsTogether is how many values are best worked off together: kernels take eight rows
// to find their factors, and what is left over takes as long.
func (s *Scheme) rowsTogether() int {
	if s.Rank == 0 {
		return 1
	}
	return 8 * s.geometry.rest
}

// unitsTogether is how many units fill blocks of scales that are stored packed.
func (s *Scheme) unitsTogether() int {
	n := 1
	for _, f := range []sideData{s.scale, s.zero} {
		if f.store != nil {
			n = lcm(n, lcm(s.perUnit(), f.store.scheme.Block)/s.perUnit())
		}
	}
	return n
}

func (e *schemeEncoder) Tile() int { return e.tile }

func (e *schemeEncoder) Passes() []Pass {
	var passes []Pass
	if e.rank != nil {
		for i := range e.rank.Passes() {
			passes = append(passes, &ranking{e, i})
		}
	}
	if !e.whole {
		passes = append(passes, &measure{encoder: e})
		if e.Codebook {
			for step := range e.steps {
				passes = append(passes, &fitting{encoder: e, step: step})
			}
		}
	}
	if e.stored[0] != nil || e.stored[1] != nil {
		passes = append(passes, &collecting{encoder: e})
	}
	return passes
}

// Held is the memory of the search for a low-rank part, in bytes.
func (e *schemeEncoder) Held() int64 {
	if e.rank == nil {
		return 0
	}
	return e.rank.Memory()
}

// Shelve is that of the search, before its first pass.
func (e *schemeEncoder) Shelve(open func() (Shelf, error)) (bool, error) {
	if e.rank == nil {
		return false, nil
	}
	return e.rank.Shelve(open)
}

func (e *schemeEncoder) Encode(dst [][]byte, start int, values []float32, s *Scratch) error {
	return e.Scheme.Encode(dst, Tile{Start: start, Values: values, Ranges: e.ranges, known: &e.known}, s)
}

// TakesRaw: nothing must be done to values before they are scaled, but rotating
// them in whole groups.
func (e *schemeEncoder) TakesRaw(d safetensors.Dtype) bool {
	return e.fused != nil && (e.Inner == 1 || e.whole) && readable(d) && e.Rank == 0 && (e.Hadamard == 0 || e.alone() && e.Inner == 1) && e.asRounded(d)
}

// asStored reports whether turnOver would change no value of that dtype.
func (s *Scheme) asStored(d safetensors.Dtype) bool { return s.Hadamard == 0 && s.asRounded(d) }

// asRounded reports whether values of that dtype need no rounding first.
func (s *Scheme) asRounded(d safetensors.Dtype) bool {
	return s.rounded != safetensors.BF16 && s.rounded != safetensors.F16 || d == s.rounded
}

// alone reports whether each tile is encoded from its own values.
func (e *schemeEncoder) alone() bool { return e.whole && e.stored == [2]*stored{} }

func (e *schemeEncoder) EncodeRaw(dst [][]byte, start int, raw []byte, d safetensors.Dtype, s *Scratch) error {
	src := plain{data: raw, dtype: d}
	if e.Hadamard > 0 {
		src.turn = &turning{n: e.Hadamard}
	}
	return e.encodePlain(dst, Tile{Start: start, Ranges: e.ranges, known: &e.known, plain: src}, s)
}

// measure is the pass that takes the range of every group.
type measure struct {
	encoder *schemeEncoder
	start   int // of the next tile to join
}

func (m *measure) Tile() int { return m.encoder.tile }

func (m *measure) Read(start int, values []float32, s *Scratch) (any, error) {
	e := m.encoder
	if err := e.prepare(start, values, &e.known, s); err != nil {
		return nil, err
	}
	ranges := e.Measure(start, values, s)
	if !e.AllowNonfinite && !Finite(ranges) {
		return nil, CheckFinite(start, values)
	}
	return ranges, nil
}

func (m *measure) TakesRaw(d safetensors.Dtype) bool { return m.encoder.TakesRaw(d) }

func (m *measure) ReadRaw(start, n int, read Pieces, d safetensors.Dtype, s *Scratch) (any, error) {
	raw, err := read(0, n)
	if err != nil {
		return nil, err
	}
	return m.encoder.fused.measureTile(start, plain{data: raw, dtype: d}, s)
}

func (m *measure) Join(found any) error {
	m.encoder.ranges = m.encoder.join(m.encoder.ranges, m.start, found.([]Range))
	m.start += m.encoder.tile
	return nil
}

// fitting is a step of the codebooks of groups larger than tiles. Sums depend
// on the order of values, so the tiles are fed one after the other.
type fitting struct {
	encoder *schemeEncoder
	step    int
	start   int // of the next tile to join
}

func (f *fitting) Tile() int { return f.encoder.tile }

func (f *fitting) Read(start int, values []float32, s *Scratch) (any, error) {
	err := f.encoder.prepare(start, values, &f.encoder.known, s)
	return append([]float32(nil), values...), err
}

func (f *fitting) Join(found any) error {
	e, values := f.encoder, found.([]float32)
	if e.books == nil {
		for _, r := range e.ranges {
			e.books = append(e.books, NewLloyd(e.Levels, r))
		}
	}
	e.units(f.start, len(values), func(unit, from, to int) {
		for j := range e.Inner {
			for i := from + j; i < to; i += e.Inner {
				e.books[unit*e.Inner+j].Feed(values[i : i+1])
			}
		}
	})
	f.start += len(values)
	if f.start == e.Values {
		for _, book := range e.books {
			book.Step()
		}
	}
	return nil
}

// collecting is the pass over all scales and zero points, for their own range
// or codebook.
type collecting struct {
	encoder *schemeEncoder
	start   int
}

func (c *collecting) Tile() int { return c.encoder.tile }

func (c *collecting) Read(start int, values []float32, s *Scratch) (any, error) {
	e := c.encoder
	if err := e.prepare(start, values, &e.known, s); err != nil {
		return nil, err
	}
	err := e.quantize(s.uint16s(len(values)), Tile{Start: start, Values: values, Ranges: e.ranges, known: &e.known}, s)
	return [2][]float32{append([]float32(nil), s.scales...), append([]float32(nil), s.zeros...)}, err
}

func (c *collecting) Join(found any) error {
	e := c.encoder
	c.start += e.tile
	for i, x := range found.([2][]float32) {
		if e.stored[i] == nil {
			continue
		}
		e.stored[i].add(x)
		if c.start >= e.Values {
			e.stored[i].finish(e.exact)
		}
	}
	return nil
}
