package sdnq

import (
	"sync"

	"github.com/tensorpress/tensorpress/internal/codebook"
	"github.com/tensorpress/tensorpress/internal/group"
	"github.com/tensorpress/tensorpress/internal/lowrank"
	"github.com/tensorpress/tensorpress/internal/rotation"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// passResults is what the passes have found out about a whole weight.
type passResults struct {
	ranges []tile.Range         // of all groups, where these are larger than tiles
	books  []*codebook.Lloyd    // of all groups, likewise
	stored [2]*doubleQuantState // of scales and of zero points, where they are quantized themselves
	rank   *rankSearch
	search *group.Fused // the scheme's, with a search for scales; nil without one
	large  *largeSearch // of groups larger than tiles; nil without one

	once [2]sync.Once
	all  [2][]float32
}

// floats are all scales (which is 0) or zero points (1) of a weight whose
// groups are larger than tiles: there are few.
func (k *passResults) floats(s *Scheme, which int) []float32 {
	k.once[which].Do(func() {
		scratch := new(buffers)
		if s.Codebook {
			scratch.Scales = k.levels(s)
		} else {
			s.collect(k.ranges, scratch)
			k.large.replace(scratch)
		}
		k.all[which] = scratch.Scales
		if which == 1 {
			k.all[which] = scratch.Zeros
		}
	})
	return append([]float32(nil), k.all[which]...)
}

// levels of all groups, as they are stored.
func (k *passResults) levels(s *Scheme) []float32 {
	levels := make([]float32, len(k.books)*s.Levels)
	for i, book := range k.books {
		unit, j := i/s.Inner, i%s.Inner
		for l, v := range book.Levels() {
			levels[unit*s.PerUnit()+l*s.Inner+j] = s.round(v)
		}
	}
	return levels
}

// schemeEncoder runs the passes of a scheme.
type schemeEncoder struct {
	*Scheme
	passResults
	tile   int
	least  int  // values that an area consists of
	whole  bool // units fit tiles
	passes []tile.Pass
}

// NewEncoder prepares to encode values of a dtype in tiles that take at most that
// many bytes of memory.
func (s *Scheme) NewEncoder(from safetensors.Dtype, memory int) tile.Encoder {
	e := s.newEncoder(tile.WideTile(memory))
	if e.raw(from) {
		e = s.newEncoder(tile.RawTile(memory))
	}
	e.list()
	return e
}

// newEncoder is NewEncoder in tiles of at most limit values.
func (s *Scheme) newEncoder(limit int) *schemeEncoder {
	e := &schemeEncoder{Scheme: s}
	for i, f := range []sideData{s.scale, s.zero} {
		if f.store != nil {
			e.stored[i] = &doubleQuantState{doubleQuant: f.store}
		}
	}
	if s.Rank > 0 {
		l, _ := lowrank.New(s.geometry.rows, s.geometry.rest, s.Rank, s.rankSteps) // NewScheme has seen the shape
		e.rank = &rankSearch{Search: l}
	}
	align := s.align()
	unit := tile.LCM(align, s.Group*s.unitsPerBlock())
	if rows := tile.LCM(unit, s.kernelRows()); rows <= limit {
		unit = rows
	}
	if s.searched && s.Gains() {
		limit = e.searching(limit, unit)
	}
	e.tile = s.TileValues(s.wanted(limit), limit, unit)
	if e.whole = e.tile > 0; !e.whole {
		e.tile, unit = max(tile.TileSize/align, 1)*align, align
	}
	e.least = min(unit, s.Values)
	return e
}

// wanted is how large tiles should be: where pieces of columns are written, as
// large as may be.
func (s *Scheme) wanted(limit int) int {
	if s.Transposed {
		return limit
	}
	return min(tile.TileSize, limit)
}

// kernelRows returns how many values should be processed together: kernels find the
// low-rank factors of eight rows at a time, and fewer rows take as long.
func (s *Scheme) kernelRows() int {
	if s.Rank == 0 {
		return 1
	}
	return 8 * s.geometry.rest
}

// unitsPerBlock returns how many units fill whole blocks of double-quantized scales,
// whose codes are packed.
func (s *Scheme) unitsPerBlock() int {
	n := 1
	for _, f := range []sideData{s.scale, s.zero} {
		if f.store != nil {
			n = tile.LCM(n, tile.LCM(s.PerUnit(), f.store.scheme.Block)/s.PerUnit())
		}
	}
	return n
}

// list makes the passes.
func (e *schemeEncoder) list() {
	if e.rank != nil {
		for i := range e.rank.Passes() {
			e.passes = append(e.passes, &ranking{e, i})
		}
		if e.rest != nil {
			for range e.refits {
				e.passes = append(e.passes, &refitting{schemeEncoder: e})
			}
		}
	}
	if !e.whole {
		e.passes = append(e.passes, &measure{e})
		if e.Codebook {
			for range e.steps {
				e.passes = append(e.passes, &fitting{e})
			}
		}
	}
	if e.stored != [2]*doubleQuantState{} {
		e.passes = append(e.passes, &collecting{e})
	}
	if e.large != nil {
		e.passes = append(e.passes, &sampling{e}, &weighing{e})
	}
}

func (e *schemeEncoder) Needs() tile.Needs {
	n := tile.Needs{Rows: 1, Cols: e.tile, UnitRows: 1, UnitCols: e.least, Passes: e.passes}
	if e.rank != nil {
		n.Held = e.rank.Memory()
		n.Spill = func(open func() (tile.Spill, error)) error {
			_, err := e.rank.Spill(open)
			return err
		}
	}
	return n
}

// Tile is that of the passes that read what tiles are encoded from.
func (e *schemeEncoder) Tile() (rows, cols int) { return 1, e.tile }

func (e *schemeEncoder) Encode(dst [][]byte, v tile.Values, s *tile.Scratch) error {
	switch {
	case !e.raw(v.Dtype):
		return e.encode(dst, v, &e.passResults, buffersOf(s))
	case e.Hadamard > 0:
		return e.encodeFused(dst, v, &e.passResults, &rotation.Hadamard{Size: e.Hadamard}, buffersOf(s))
	}
	return e.encodeFused(dst, v, &e.passResults, nil, buffersOf(s))
}

// raw reports whether nothing must be done to values of that dtype before they are
// scaled, but rotating them in whole groups.
func (e *schemeEncoder) raw(d safetensors.Dtype) bool {
	return e.fused != nil && (e.Inner == 1 || e.whole) && e.Rank == 0 && (e.Hadamard == 0 || e.alone() && e.Inner == 1) && e.asRounded(d)
}

// asStored reports whether roundAndRotate would leave every value of that dtype
// unchanged.
func (s *Scheme) asStored(d safetensors.Dtype) bool { return s.Hadamard == 0 && s.asRounded(d) }

// asRounded reports whether values of that dtype need no rounding first.
func (s *Scheme) asRounded(d safetensors.Dtype) bool {
	return s.rounded != safetensors.BF16 && s.rounded != safetensors.F16 || d == s.rounded
}

// alone reports whether each tile is encoded from its own values.
func (e *schemeEncoder) alone() bool { return e.whole && e.stored == [2]*doubleQuantState{} }

// measure is the pass that takes the range of every group.
type measure struct{ *schemeEncoder }

func (m *measure) Read(v tile.Values, s *tile.Scratch) (any, error) {
	if m.raw(v.Dtype) {
		return m.fused.RangesOf(v, s)
	}
	w, err := m.prepared(v, &m.passResults, buffersOf(s))
	if err != nil {
		return nil, err
	}
	ranges := m.Measure(v.Col, w, s)
	if !m.AllowNonfinite && !tile.AllFinite(ranges) {
		return nil, tile.CheckFinite(v.Col, w)
	}
	return ranges, nil
}

func (m *measure) Join(a tile.Area, found any) error {
	m.ranges = m.JoinRanges(m.ranges, a.Col, found.([]tile.Range))
	return nil
}

// fitting is a step of the codebooks of groups larger than tiles. Sums depend
// on the order of values, so the tiles are fed one after the other.
type fitting struct{ *schemeEncoder }

func (f *fitting) Read(v tile.Values, s *tile.Scratch) (any, error) {
	w, err := f.prepared(v, &f.passResults, buffersOf(s))
	return append([]float32(nil), w...), err
}

func (f *fitting) Join(a tile.Area, found any) error {
	values := found.([]float32)
	if f.books == nil {
		for _, r := range f.ranges {
			f.books = append(f.books, codebook.NewLloyd(f.Levels, r))
		}
	}
	f.Units(a.Col, len(values), func(unit, from, to int) {
		for j := range f.Inner {
			for i := from + j; i < to; i += f.Inner {
				f.books[unit*f.Inner+j].Feed(values[i : i+1])
			}
		}
	})
	if a.Col+a.Cols == f.Values {
		for _, book := range f.books {
			book.Step()
		}
	}
	return nil
}

// collecting is the pass over all scales and zero points, for their own range
// or codebook.
type collecting struct{ *schemeEncoder }

func (c *collecting) Read(v tile.Values, scratch *tile.Scratch) (any, error) {
	s := buffersOf(scratch)
	err := c.collectFrom(v, s)
	return [2][]float32{append([]float32(nil), s.Scales...), append([]float32(nil), s.Zeros...)}, err
}

// collectFrom collects the scales and zero points of a run of values, as encoding it does;
// the codes are of no use.
func (c *collecting) collectFrom(v tile.Values, s *buffers) error {
	if !c.raw(v.Dtype) {
		w, err := c.prepared(v, &c.passResults, s)
		if err != nil {
			return err
		}
		if c.fused == nil || c.Inner > 1 && c.ranges != nil {
			return c.quantize(s.Uint16s(len(w)), w, v.Col, &c.passResults, s)
		}
		v = tile.ValuesOf(v.Area, w)
	}
	return c.fused.Encode(tile.Sized(&s.bytes, v.Len()), v, c.ranges, &s.Companions, s.Scratch)
}

func (c *collecting) Join(a tile.Area, found any) error {
	for i, x := range found.([2][]float32) {
		if c.stored[i] == nil {
			continue
		}
		c.stored[i].add(x)
		if a.Col+a.Cols == c.Values {
			c.stored[i].finish(c.exact)
		}
	}
	return nil
}
