package sdnq

import (
	"math"

	"github.com/tensorpress/tensorpress/internal/lowrank"
	"github.com/tensorpress/tensorpress/internal/search"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// newRest returns how what a low-rank part leaves is quantized while the part is fitted
// again: without that part, a rotation or double quantization. It is nil where nothing
// is fitted again: also for groups that are more than a row, of which a tile does not
// hold all.
func (s *Scheme) newRest(o Options) (*Scheme, error) {
	if s.Rank == 0 || o.Refits <= 0 || s.geometry.rest%s.Group != 0 || s.chances != nil {
		return nil, nil
	}
	o.Rank, o.Refits, o.Hadamard, o.ModelDtype, o.ScaleStore, o.ZeroPointStore = 0, 0, 0, 0, nil, nil
	o.GroupSize, o.Matmul, o.AllowNonfinite = s.GroupSize, false, true
	o.Search = o.Search && s.Group <= search.Most // in one piece
	return NewScheme(s.shape, o)
}

// refitting is a pass that fits a low-rank part to what the quantization of the rest
// leaves.
type refitting struct {
	*schemeEncoder
	sums *lowrank.Refit
}

// Tile has a fixed number of rows, since sums depend on which are added first.
func (p *refitting) Tile() (rows, cols int) {
	rest := p.geometry.rest
	unit := tile.LCM(p.align(), rest)
	return 1, max(tile.TileSize/unit, 1) * unit
}

func (p *refitting) Read(v tile.Values, s *tile.Scratch) (any, error) {
	scratch := buffersOf(s)
	if _, err := p.prepared(v, &p.passResults, scratch); err != nil {
		return nil, err
	}
	return p.rank.found.NewRefit().Part(scratch.up, scratch.left, s), nil
}

func (p *refitting) Join(a tile.Area, found any) error {
	f := p.rank.found
	if p.sums == nil {
		p.sums = f.NewRefit()
	}
	p.sums.Add(found.([]float64))
	if a.Col+a.Cols < p.Values {
		return nil
	}
	if f = p.sums.Factors(f, nil); f != nil {
		p.rank.found = f
	}
	return nil
}

// refit sets up to the rows of the factor that fit best what the quantization of the
// rest leaves of prepared rows, left to that, and w to the rest that is then to be
// quantized.
func (s *Scheme) refit(w []float32, f *lowrank.Factors, scratch *buffers) {
	left := tile.Sized(&scratch.left, len(w))
	scratch.left = left
	copy(left, w)
	s.subtract(w, f, scratch)
	rest := tile.Sized(&scratch.restored, len(w))
	scratch.restored = rest
	s.rest.through(rest, w, sub(&scratch.fitted))
	for i, v := range rest {
		left[i] -= v
	}
	copy(w, left)
	s.subtract(w, f, scratch)
	for i, v := range rest {
		w[i] += v
	}
}

// through sets restored to what becomes of rows of values when they are quantized.
func (s *Scheme) through(restored, w []float32, scratch *tile.Scratch) {
	own := buffersOf(scratch)
	a := tile.Line(0, len(w))
	for len(own.parts) < len(s.parts) {
		own.parts = append(own.parts, nil)
	}
	for i := range s.parts {
		own.parts[i] = tile.Sized(&own.parts[i], tile.SpanBytes(s.Written(i, a)))
	}
	e := s.newEncoder(math.MaxInt)
	values := tile.ValuesOf(a, append(own.row[:0], w...))
	if err := e.encode(own.parts, values, &e.passResults, own); err != nil { // NaN from overflow
		copy(restored, w)
		return
	}
	s.Decode(restored, own.parts, a, safetensors.F32, scratch)
}
