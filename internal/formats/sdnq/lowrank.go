package sdnq

import (
	"sync"

	"github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/lowrank"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/internal/transpose"
	"github.com/tensorpress/tensorpress/safetensors"
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
	at := func(start, end int) tile.Span {
		row := int64(s.Rank) * width
		return tile.One(int64(start/g.rest)*row, int64(end/g.rest-start/g.rest)*row)
	}
	if s.Matmul {
		up, down = []int{s.Rank, g.rows}, []int{g.rest, s.Rank}
		at = func(start, end int) tile.Span {
			first, last := int64(start/g.rest), int64(end/g.rest)
			return tile.Span{Offset: first * width, Size: (last - first) * width, Count: s.Rank, Stride: int64(g.rows) * width}
		}
	}
	once := oncePart(tile.SVDDown, d, s.Rank*g.rest)
	once.Shape = down
	s.factors = len(s.parts)
	s.parts = append(s.parts, part{tile.Tensor{Role: tile.SVDUp, Dtype: d, Shape: up}, at, at}, once)
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

func (r *ranking) Read(v tile.Values, s *tile.Scratch) (any, error) {
	e := r.encoder
	if !e.asStored(v.Dtype) {
		w := v.Floats(s)
		if err := e.roundAndRotate(v.Col, w); err != nil {
			return nil, err
		}
		v = tile.ValuesOf(v.Area, w)
	}
	_, width := r.Tile()
	tile := v.Col / width
	if r.pass == 0 && !e.rank.Look(tile, v, s) {
		return nil, e.checkFinite(v.Col, v.Floats(s))
	}
	e.rank.Add(r.pass, tile, v, s, s.Cancelled)
	return nil, nil
}

func (r *ranking) Join(tile.Area, any) error { return nil }

// rankSearch is a search under way and what it finds.
type rankSearch struct {
	*lowrank.Search
	once    sync.Once
	found   *lowrank.Factors
	failure error
}

// factors of the part, once all passes are over.
func (l *rankSearch) factors(s *Scheme, cancelled <-chan struct{}) (*lowrank.Factors, error) {
	l.once.Do(func() {
		way := lowrank.Storage{Dtype: s.factorDtype, Unrounded: s.unrounded, Smooth: s.smooth}
		l.found, l.failure = l.FactorsIn(way, cancelled)
		l.Release() // the same in the factors
	})
	return l.found, l.failure
}

// subtract takes the low-rank part off prepared rows and keeps their part of
// the factor.
func (s *Scheme) subtract(values []float32, f *lowrank.Factors, scratch *buffers) {
	scratch.up = tile.Sized(&scratch.up, len(values)/s.geometry.rest*s.Rank)
	f.Split(scratch.up, values, scratch.Scratch)
}

// putFactors stores a tile's rows of up and, with the first, all of down.
func (s *Scheme) putFactors(dst [][]byte, start int, f *lowrank.Factors, scratch *buffers) {
	rows := len(scratch.up) / s.Rank
	putMatrix(dst[s.factors], scratch.up, rows, s.Rank, s.Matmul, s.factorDtype)
	if start == 0 {
		putMatrix(dst[s.factors+1], f.Stored(), s.Rank, s.geometry.rest, s.Matmul, s.factorDtype)
	}
}

// putMatrix stores a matrix of that many rows, or its columns one after
// another.
func putMatrix(dst []byte, x []float32, rows, columns int, transposed bool, d safetensors.Dtype) {
	for i := range rows {
		for j := range columns {
			at := i*columns + j
			if transposed {
				at = j*rows + i
			}
			floats.PutFloat(dst, at, x[i*columns+j], d)
		}
	}
}

func getMatrix(dst []float32, src []byte, rows, columns int, transposed bool, d safetensors.Dtype, scratch *buffers) {
	if !transposed {
		floats.Widen(dst, src, d)
		return
	}
	transpose.All(dst, floats.Widen(scratch.Floats(len(dst)), src, d), columns, rows)
}

// newDown makes the factor of a layer that all tiles take from its bytes.
func (s *Scheme) newDown(src []byte, scratch *buffers) *lowrank.Panels {
	x := tile.Sized(&scratch.down, s.Rank*s.geometry.rest)
	getMatrix(x, src, s.Rank, s.geometry.rest, s.Matmul, s.factorDtype, scratch)
	p := lowrank.NewPanels(x, s.Rank, s.geometry.rest)
	return &p
}

// addLowRank adds up·down to restored rows. SDNQ rounds linear weights to the
// dtype of the factors first and leaves the sum to one call; of convolutions
// it rounds the product alone. The sums are a chain here.
func (s *Scheme) addLowRank(dst []float32, src []byte, down *lowrank.Panels, scratch *buffers) {
	g, d := s.geometry, s.factorDtype
	rows := len(dst) / g.rest
	up := tile.Sized(&scratch.up, rows*s.Rank)
	getMatrix(up, src, rows, s.Rank, s.Matmul, d, scratch)
	conv := len(s.shape) > 2 && !s.flat
	if !conv {
		floats.RoundAll(dst, d)
	}
	multiply := kernel.Product
	if d != safetensors.F32 {
		multiply = down.Multiplier(up)
	}
	down.Some(rows, func(from, n int) {
		product := tile.Sized(&scratch.row, n*g.rest)
		down.Product(product, up[from*s.Rank:(from+n)*s.Rank], multiply)
		if conv {
			floats.RoundAll(product, d)
		}
		kernel.Add(dst[from*g.rest:(from+n)*g.rest], product)
	})
	if !conv {
		floats.RoundAll(dst, d)
	}
}
