package quant

import (
	"sync"

	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/safetensors"
)

// The factors of a low-rank part: the weight is up·down and what its codes say.
const (
	SVDUp   Role = "svd_up"   // [rows, rank]
	SVDDown Role = "svd_down" // [rank, columns]
)

// addFactors lists the tensors of a low-rank part. SDNQ transposes both where
// it multiplies the weight in its stored form, whether or not it transposes
// the weight.
func (s *Scheme) addFactors() {
	if s.Rank == 0 {
		return
	}
	g, d := s.geometry, s.factorDtype
	width := int64(d.Bits() / 8)
	up, down := []int{g.rows, s.Rank}, []int{s.Rank, g.rest}
	at := func(start, end int) Span {
		row := int64(s.Rank) * width
		return one(int64(start/g.rest)*row, int64(end/g.rest-start/g.rest)*row)
	}
	if s.Matmul {
		up, down = []int{s.Rank, g.rows}, []int{g.rest, s.Rank}
		at = func(start, end int) Span {
			first, last := int64(start/g.rest), int64(end/g.rest)
			return Span{first * width, (last - first) * width, s.Rank, int64(g.rows) * width}
		}
	}
	once := oncePart(SVDDown, d, s.Rank*g.rest)
	once.Shape = down
	s.factors = len(s.parts)
	s.parts = append(s.parts, part{Tensor{SVDUp, d, up}, at, at}, once)
}

// factorDtype of a model: what its weights are loaded in.
func factorDtype(d safetensors.Dtype) safetensors.Dtype {
	if d == safetensors.BF16 || d == safetensors.F16 {
		return d
	}
	return safetensors.F32
}

// ranking is a pass of the search for the low-rank part.
type ranking struct {
	encoder *schemeEncoder
	pass    int
}

func (r *ranking) Tile() (rows, cols int) {
	return 1, r.encoder.rank.TileRows() * r.encoder.geometry.rest
}

func (r *ranking) Read(v Values, s *Scratch) (any, error) {
	e := r.encoder
	if !e.asStored(v.Dtype) {
		w := v.Floats(s)
		if err := e.turnOver(v.Col, w); err != nil {
			return nil, err
		}
		v = ValuesOf(v.Area, w)
	}
	_, width := r.Tile()
	tile := v.Col / width
	if r.pass == 0 && !e.rank.look(tile, v, s) {
		return nil, e.checkFinite(v.Col, v.Floats(s))
	}
	e.rank.Add(r.pass, tile, v, s, s.Cancelled)
	return nil, nil
}

func (r *ranking) Join(Area, any) error { return nil }

// lowRank is a search under way and what it finds.
type lowRank struct {
	*LowRank
	once    sync.Once
	found   *Factors
	failure error
}

// factors of the part, once all passes are over.
func (l *lowRank) factors(d safetensors.Dtype, s *Scratch) (*Factors, error) {
	l.once.Do(func() {
		l.found, l.failure = l.Factors(d, s.Cancelled)
		l.rows = nil // the same in the factors
	})
	return l.found, l.failure
}

// subtract takes the low-rank part off prepared rows and keeps their part of
// the factor.
func (s *Scheme) subtract(values []float32, f *Factors, scratch *Scratch) {
	scratch.up = sized(&scratch.up, len(values)/s.geometry.rest*s.Rank)
	f.Split(scratch.up, values, scratch)
}

// putFactors stores a tile's rows of up and, with the first, all of down.
func (s *Scheme) putFactors(dst [][]byte, start int, f *Factors, scratch *Scratch) {
	rows := len(scratch.up) / s.Rank
	putMatrix(dst[s.factors], scratch.up, rows, s.Rank, s.Matmul, s.factorDtype)
	if start == 0 {
		putMatrix(dst[s.factors+1], f.Down, s.Rank, s.geometry.rest, s.Matmul, s.factorDtype)
	}
}

// putMatrix stores a matrix of that many rows, or its columns one after
// another.
func putMatrix(dst []byte, x []float32, rows, columns int, turned bool, d safetensors.Dtype) {
	for i := range rows {
		for j := range columns {
			at := i*columns + j
			if turned {
				at = j*rows + i
			}
			putFloat(dst, at, x[i*columns+j], d)
		}
	}
}

func getMatrix(dst []float32, src []byte, rows, columns int, turned bool, d safetensors.Dtype, scratch *Scratch) {
	if !turned {
		Widen(dst, src, d)
		return
	}
	transpose(dst, Widen(scratch.floats(len(dst)), src, d), columns, rows)
}

// newDown makes the factor of a layer that all tiles take from its bytes.
func (s *Scheme) newDown(src []byte, scratch *Scratch) *panels {
	x := sized(&scratch.down, s.Rank*s.geometry.rest)
	getMatrix(x, src, s.Rank, s.geometry.rest, s.Matmul, s.factorDtype, scratch)
	p := newPanels(x, s.Rank, s.geometry.rest)
	return &p
}

// addLowRank adds up·down to restored rows. SDNQ rounds linear weights to the
// dtype of the factors first and leaves the sum to one call; of convolutions
// it rounds the product alone. The sums are a chain here.
func (s *Scheme) addLowRank(dst []float32, src []byte, down *panels, scratch *Scratch) {
	g, d := s.geometry, s.factorDtype
	rows := len(dst) / g.rest
	up := sized(&scratch.up, rows*s.Rank)
	getMatrix(up, src, rows, s.Rank, s.Matmul, d, scratch)
	conv := len(s.shape) > 2 && !s.flat
	if !conv {
		roundAll(dst, d)
	}
	multiply := kernel.Product
	if d != safetensors.F32 {
		multiply = down.multiplier(up)
	}
	down.some(rows, func(from, n int) {
		product := sized(&scratch.row, n*g.rest)
		down.product(product, up[from*s.Rank:(from+n)*s.Rank], multiply)
		if conv {
			roundAll(product, d)
		}
		kernel.Add(dst[from*g.rest:(from+n)*g.rest], product)
	})
	if !conv {
		roundAll(dst, d)
	}
}
