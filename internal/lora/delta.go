package lora

import (
	"encoding/binary"
	"math"
	"sync"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/safetensors"
)

// delta is a change of a weight, seen as a matrix with all dimensions after the first in
// one, in single precision. Every value is the same, to the bit, whatever area it is
// asked for in.
type delta interface {
	// fill sets dst to an area, row by row.
	fill(dst []float32, a tile.Area, s *scratch) error
}

// scratch are buffers of one goroutine.
type scratch struct{ delta, second, panel []float32 }

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// product is up·down: sums of fused multiply-adds in ascending order of the rank.
type product struct {
	rank, cols int
	up         []float32 // [rows, rank]
	// panels are down, [rank, cols], of which some columns of all rows lie together, so
	// that they stay in the nearest cache.
	panels []float32
}

// panelColumns is how many columns lie together.
const panelColumns = 32

func newProduct(up, down []float32, rank int) *product {
	p := &product{rank: rank, cols: len(down) / rank, up: up, panels: make([]float32, 0, len(down))}
	for j := 0; j < p.cols; j += panelColumns {
		for r := range rank {
			p.panels = append(p.panels, down[r*p.cols+j:r*p.cols+min(j+panelColumns, p.cols)]...)
		}
	}
	return p
}

func (p *product) fill(dst []float32, a tile.Area, s *scratch) error {
	p.eachPanel(dst, a, s, kernel.ProductFused)
	return nil
}

// add adds an area to x.
func (p *product) add(x []float32, a tile.Area, s *scratch) {
	p.eachPanel(x, a, s, kernel.AddProduct)
}

// eachPanel calls f for the rows of an area in each panel.
func (p *product) eachPanel(dst []float32, a tile.Area, s *scratch, f func(dst kernel.Rows, up, down []float32)) {
	up := p.up[a.Row*p.rank : (a.Row+a.Rows)*p.rank]
	end := a.Col + a.Cols
	for j := a.Col / panelColumns * panelColumns; j < end; j += panelColumns {
		n := min(panelColumns, p.cols-j)
		panel := p.panels[j*p.rank : (j+n)*p.rank]
		from, to := max(j, a.Col), min(j+n, end)
		if to-from < n {
			panel = s.columns(panel, p.rank, n, from-j, to-j)
		}
		rows := kernel.Rows{X: dst[from-a.Col:], Stride: a.Cols, Count: a.Rows, Values: to - from}
		f(rows, up, panel)
	}
}

// columns are some columns of a panel.
func (s *scratch) columns(panel []float32, rank, n, from, to int) []float32 {
	part := tile.Sized(&s.panel, rank*(to-from))
	for r := range rank {
		copy(part[r*(to-from):], panel[r*n+from:r*n+to])
	}
	return part
}

// hadamard is the product of two deltas, value by value, times a scale.
type hadamard struct {
	first, second *product
	scale         float32
}

func (h *hadamard) fill(dst []float32, a tile.Area, s *scratch) error {
	second := tile.Sized(&s.second, len(dst))
	if err := h.first.fill(dst, a, s); err != nil {
		return err
	}
	if err := h.second.fill(second, a, s); err != nil {
		return err
	}
	for i, v := range second {
		dst[i] = float32(dst[i]*v) * h.scale
	}
	return nil
}

// kronecker is the Kronecker product of a and b, times a scale.
type kronecker struct {
	a, b         []float32
	aCols        int
	bRows, bCols int
	scale        float32
}

func (k *kronecker) fill(dst []float32, a tile.Area, _ *scratch) error {
	for i := range a.Rows {
		row := a.Row + i
		left := k.a[row/k.bRows*k.aCols:]
		right := k.b[row%k.bRows*k.bCols:][:k.bCols]
		to := dst[i*a.Cols : (i+1)*a.Cols]
		for col := a.Col; len(to) > 0; {
			at := col % k.bCols
			n := min(k.bCols-at, len(to))
			u := left[col/k.bCols]
			for c, v := range right[at : at+n] {
				to[c] = float32(u*v) * k.scale
			}
			to, col = to[n:], col+n
		}
	}
	return nil
}

// whole is a tensor of the file, times a scale.
type whole struct {
	file  *File
	from  checkpoint.Tensor
	cols  int
	scale float32
}

func (w *whole) fill(dst []float32, a tile.Area, _ *scratch) error {
	rows, width := a.Rows, a.Cols
	if a.Cols == w.cols { // whole rows are consecutive
		rows, width = 1, len(dst)
	}
	for i := range rows {
		to := dst[i*width : (i+1)*width]
		if err := w.file.section(w.from, to, (a.Row+i)*w.cols+a.Col); err != nil {
			return err
		}
		if w.scale != 1 {
			kernel.ScaleBy(to, w.scale)
		}
	}
	return nil
}

// reader makes the delta of a module.
type reader struct {
	*File
	*module
	factor float64 // that the delta is multiplied by, beside its own scale
}

// scaled is the factor with the module's scale for a rank.
func (r *reader) scaled(rank int) float32 { return float32(r.factor * r.scale(r.module, rank)) }

// part reads a part of the module.
func (r *reader) part(p part) ([]float32, error) { return r.values(r.parts[p]) }

// two reads two parts.
func (r *reader) two(p, q part) (a, b []float32, err error) {
	if a, err = r.part(p); err == nil {
		b, err = r.part(q)
	}
	return a, b, err
}

func (r *reader) lora() (delta, error) {
	a, b, err := r.two(down, up)
	if err != nil {
		return nil, err
	}
	rank := r.parts[down].Shape[0]
	kernel.ScaleBy(b, r.scaled(rank))
	if t, ok := r.parts[mid]; ok {
		places, err := r.part(mid)
		if err != nil {
			return nil, err
		}
		a = tucker(places, t.Shape, a)
		rank = t.Shape[0]
	}
	if r.transposed(r.module) {
		a, b = transposed(b, rank), transposed(a, len(a)/rank)
	}
	return newProduct(b, a, rank), nil
}

func (r *reader) embedding() (delta, error) {
	a, b, err := r.two(embeddingA, embeddingB)
	if err != nil {
		return nil, err
	}
	rank := r.parts[embeddingA].Shape[0]
	kernel.ScaleBy(b, r.scaled(rank))
	return newProduct(transposed(a, len(a)/rank), transposed(b, rank), rank), nil
}

func (r *reader) hadamard() (delta, error) {
	one, err := r.factors(hada1A, hada1B, hada1T)
	if err != nil {
		return nil, err
	}
	two, err := r.factors(hada2A, hada2B, hada2T)
	if err != nil {
		return nil, err
	}
	return &hadamard{one, two, r.scaled(r.parts[hada1B].Shape[0])}, nil
}

// factors are two matrices whose product is taken, the first of which is turned where a
// third tensor stands between them.
func (r *reader) factors(a, b, t part) (*product, error) {
	left, right, err := r.two(a, b)
	if err != nil {
		return nil, err
	}
	middle, ok := r.parts[t]
	if !ok {
		return newProduct(left, right, r.parts[b].Shape[0]), nil
	}
	places, err := r.part(t)
	if err != nil {
		return nil, err
	}
	rows := r.parts[a].Shape[1]
	return newProduct(transposed(left, rows), tucker(places, middle.Shape, right), middle.Shape[0]), nil
}

func (r *reader) kronecker() (delta, error) {
	k := &kronecker{}
	var err error
	rank := 0
	if k.a, rank, err = r.kronFactor(kron1, kron1A, kron1B, -1, 0); err != nil {
		return nil, err
	}
	if k.b, rank, err = r.kronFactor(kron2, kron2A, kron2B, kron2T, rank); err != nil {
		return nil, err
	}
	_, k.aCols = r.kronShape(kron1, kron1A, kron1B, -1)
	k.bRows, k.bCols = r.kronShape(kron2, kron2A, kron2B, kron2T)
	if rank == 0 {
		rank = r.configRank(r.module)
	}
	k.scale = float32(r.factor)
	if rank > 0 {
		k.scale = r.scaled(rank)
	}
	return k, nil
}

// kronFactor reads one of the two matrices, whole or as a product, of which it returns the
// rank, else the rank that it was given.
func (r *reader) kronFactor(p, a, b, t part, rank int) ([]float32, int, error) {
	if _, ok := r.parts[p]; ok {
		values, err := r.part(p)
		return values, rank, err
	}
	f, err := r.factors(a, b, t)
	if err != nil {
		return nil, 0, err
	}
	rows := len(f.up) / f.rank
	values := make([]float32, rows*f.cols)
	return values, r.parts[b].Shape[0], f.fill(values, tile.Area{Rows: rows, Cols: f.cols}, new(scratch))
}

func (r *reader) whole() (delta, error) {
	if t, ok := r.parts[set]; ok {
		return &whole{r.File, t, t.Numel() / rowsOf(t.Shape), 1}, nil
	}
	t := r.parts[diff]
	return &whole{r.File, t, t.Numel() / rowsOf(t.Shape), float32(r.factor)}, nil
}

// tucker puts the places of a convolution into the second factor: t is [i, j, places],
// b is [j, columns]; the result is [i, columns, places].
func tucker(t []float32, shape []int, b []float32) []float32 {
	n, rank := shape[0], shape[1]
	places, cols := len(t)/(n*rank), len(b)/rank
	x := make([]float32, n*cols*places)
	for i := range n {
		for j := range rank {
			from := t[(i*rank+j)*places:][:places]
			for c, v := range b[j*cols : (j+1)*cols] {
				to := x[(i*cols+c)*places:][:places]
				for k, u := range from {
					to[k] += float32(u * v)
				}
			}
		}
	}
	return x
}

// transposed turns a matrix of that many columns.
func transposed(x []float32, cols int) []float32 {
	rows := len(x) / cols
	y := make([]float32, len(x))
	for i := range rows {
		for j := range cols {
			y[j*rows+i] = x[i*cols+j]
		}
	}
	return y
}

// widen reads values of a file.
func widen(dst []float32, raw []byte, d safetensors.Dtype) {
	switch d {
	case safetensors.F64:
		for i := range dst {
			dst[i] = float32(math.Float64frombits(binary.LittleEndian.Uint64(raw[8*i:])))
		}
	case safetensors.I64:
		for i := range dst {
			dst[i] = float32(int64(binary.LittleEndian.Uint64(raw[8*i:])))
		}
	case safetensors.I32:
		for i := range dst {
			dst[i] = float32(int32(binary.LittleEndian.Uint32(raw[4*i:])))
		}
	case safetensors.F8_E4M3, safetensors.F8_E5M2:
		f := map[safetensors.Dtype]*kernel.Small{safetensors.F8_E4M3: kernel.E4M3, safetensors.F8_E5M2: kernel.E5M2}[d]
		codes := make([]uint16, len(raw))
		for i, code := range raw {
			codes[i] = uint16(code)
		}
		kernel.DecodeSmall(dst, codes, f)
	default:
		floats.Widen(dst, raw, d)
	}
}

// shape is that of a module's change, as a matrix. The error says which of its tensors
// do not go together.
func (f *File) shape(m *module) (rows, cols int, err error) {
	r := &reader{File: f, module: m}
	fail := func(p, q part) error {
		return usage.SourceErrorf("%s: tensors %s, %v, and %s, %v, do not go together", f.Path, m.parts[p].Name, m.parts[p].Shape, m.parts[q].Name, m.parts[q].Shape)
	}
	for _, t := range m.parts {
		if err := f.checkDtype(t); err != nil {
			return 0, 0, err
		}
		if t.Numel() == 0 {
			return 0, 0, usage.SourceErrorf("%s: tensor %s is empty", f.Path, t.Name)
		}
	}
	pair := func(a, b, t part) (int, int, error) {
		rows, cols, ok := r.pairShape(a, b, t)
		if !ok {
			return 0, 0, fail(a, b)
		}
		return rows, cols, nil
	}
	switch k := m.kind(); k.tell[0] {
	case down:
		rows, cols, err = r.loraShape(fail)
		if err == nil && f.transposed(m) {
			rows, cols = cols, rows
		}
		return rows, cols, err
	case embeddingA:
		cols, rows, err = pair(embeddingB, embeddingA, -1)
		return rows, cols, err
	case hada1A:
		if rows, cols, err = pair(hada1A, hada1B, hada1T); err != nil {
			return 0, 0, err
		}
		if rows2, cols2, err := pair(hada2A, hada2B, hada2T); err != nil || rows != rows2 || cols != cols2 {
			return 0, 0, fail(hada1A, hada2A)
		}
		return rows, cols, nil
	case kron1:
		for _, p := range [][4]part{{kron1, kron1A, kron1B, -1}, {kron2, kron2A, kron2B, kron2T}} {
			if _, ok := m.parts[p[0]]; !ok {
				if _, _, err := pair(p[1], p[2], p[3]); err != nil {
					return 0, 0, err
				}
			}
		}
		a, b := r.kronShape(kron1, kron1A, kron1B, -1)
		c, d := r.kronShape(kron2, kron2A, kron2B, kron2T)
		return a * c, b * d, nil
	default:
		t := m.parts[k.tell[0]]
		rows = rowsOf(t.Shape)
		return rows, t.Numel() / rows, nil
	}
}

func (r *reader) loraShape(fail func(p, q part) error) (rows, cols int, err error) {
	a, b := r.parts[down], r.parts[up]
	if len(a.Shape) < 2 || len(b.Shape) < 2 {
		return 0, 0, fail(down, up)
	}
	rank, cols := a.Shape[0], a.Numel()/a.Shape[0]
	if t, ok := r.parts[mid]; ok {
		if len(t.Shape) < 3 || t.Shape[1] != rank {
			return 0, 0, fail(down, mid)
		}
		rank, cols = t.Shape[0], cols*(t.Numel()/(t.Shape[0]*t.Shape[1]))
	}
	if b.Numel() != b.Shape[0]*rank {
		return 0, 0, fail(down, up)
	}
	return b.Shape[0], cols, nil
}

// pairShape is that of the product of two parts.
func (r *reader) pairShape(a, b, t part) (rows, cols int, ok bool) {
	left, right := r.parts[a], r.parts[b]
	if len(left.Shape) != 2 || len(right.Shape) < 2 {
		return 0, 0, false
	}
	middle, turned := r.parts[t]
	if !turned {
		return left.Shape[0], right.Numel() / right.Shape[0], left.Shape[1] == right.Shape[0]
	}
	if len(middle.Shape) < 3 || len(right.Shape) != 2 || middle.Shape[0] != left.Shape[0] || middle.Shape[1] != right.Shape[0] {
		return 0, 0, false
	}
	return left.Shape[1], right.Shape[1] * (middle.Numel() / (middle.Shape[0] * middle.Shape[1])), true
}

// kronShape is that of one of the matrices of a Kronecker product.
func (r *reader) kronShape(p, a, b, t part) (rows, cols int) {
	if one, ok := r.parts[p]; ok {
		return rowsOf(one.Shape), one.Numel() / rowsOf(one.Shape)
	}
	rows, cols, _ = r.pairShape(a, b, t)
	return rows, cols
}

// heldBytes is what the factors of a module take in memory while its weight is reached,
// those that are made of others included.
func (f *File) heldBytes(m *module) (n int64) {
	for p, t := range m.parts {
		if p != diff && p != set {
			n += 4 * int64(t.Numel())
		}
	}
	if m.kind() == nil {
		return n
	}
	r := &reader{File: f, module: m}
	if _, ok := m.parts[kron2]; !ok && m.kind().tell[0] == kron1 {
		rows, cols := r.kronShape(kron2, kron2A, kron2B, kron2T)
		n += 4 * int64(rows) * int64(cols)
	}
	for _, p := range []part{mid, hada1T, hada2T} {
		if t, ok := m.parts[p]; ok {
			n += 4 * int64(t.Numel()) // at most as often as the factor is wide
			if b, ok := m.parts[map[part]part{mid: down, hada1T: hada1B, hada2T: hada2B}[p]]; ok {
				n += 4 * int64(b.Numel()) * int64(t.Numel()) / int64(t.Shape[0])
			}
		}
	}
	return n
}
