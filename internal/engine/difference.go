package engine

import (
	"bytes"
	"encoding/binary"
	"math"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/stream"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Stored is a weight as one of two checkpoints has it: a plain tensor, or a layer.
type Stored struct {
	Source *checkpoint.Checkpoint
	Layer  *layout.Layer // nil for a plain tensor
	Tensor checkpoint.Tensor
}

// Shape returns the shape of the weight's values.
func (s *Stored) Shape() []int {
	if s.Layer != nil {
		return s.Layer.Shape()
	}
	return s.Tensor.Shape
}

// Values returns how many values the weight has.
func (s *Stored) Values() int64 {
	n := int64(1)
	for _, d := range s.Shape() {
		n *= int64(d)
	}
	return n
}

// Tensors returns all that is stored of the weight.
func (s *Stored) Tensors() []checkpoint.Tensor {
	if s.Layer != nil {
		return s.Layer.Tensors
	}
	return []checkpoint.Tensor{s.Tensor}
}

// widened reports whether the values are compared as float32, which holds them exactly.
func (s *Stored) widened() bool { return s.Layer != nil || codec.Numbers(s.Tensor.Dtype) }

// Comparable reports whether two weights of one shape have values that can be compared.
func Comparable(a, b *Stored) bool {
	if a.widened() && b.widened() {
		return true
	}
	return a.Layer == nil && b.Layer == nil && isNumber(a.Tensor.Dtype) && isNumber(b.Tensor.Dtype)
}

// SameBytes yields tasks that compare the bytes of two tensors of the same size until a
// difference is found, which they report by calling differs, perhaps several times and
// from several goroutines. over says that this was called.
func SameBytes(a, b *checkpoint.Checkpoint, s, t checkpoint.Tensor, over func() bool, differs func(), yield func(stream.Task) bool) bool {
	const size = 256 << 10
	for off := int64(0); off < s.Size; off += size {
		n := int(min(size, s.Size-off))
		if !yield(stream.Task{Bytes: int64(n), Do: func(w *stream.Worker) error {
			w.Done(int64(n))
			if over() {
				return nil
			}
			x, y := w.Bytes(RawBuffer, n), w.Bytes(RawBuffer+1, n)
			if err := a.ReadSection(s, x, off); err != nil {
				return err
			}
			if err := b.ReadSection(t, y, off); err != nil {
				return err
			}
			if !bytes.Equal(x, y) {
				differs()
			}
			return nil
		}}) {
			return false
		}
	}
	return true
}

// Difference compares the values of two weights of one shape, whatever they are stored
// as. Layers are decoded exactly, as float32.
type Difference struct {
	a, b  *Stored
	use   Resources
	Found []Sums // by tile; Differs says that a value is another one
}

// NewDifference prepares the comparison of weights that are [Comparable].
func NewDifference(a, b *Stored, r Resources) *Difference {
	return &Difference{a: a, b: b, use: r}
}

// Tasks yields a task for every tile.
func (d *Difference) Tasks(yield func(stream.Task) bool) bool {
	switch {
	case !d.a.widened() || !d.b.widened():
		return d.numbers(yield)
	case d.b.Layer != nil:
		return d.layer(d.b, d.a, 1, yield)
	case d.a.Layer != nil:
		return d.layer(d.a, d.b, 0, yield)
	}
	return d.lines(func(w *stream.Worker, line tile.Area) (s Sums, err error) {
		columns := line.Col + line.Cols
		x, err := d.plain(d.a).Read(w, 0, columns, line)
		if err != nil {
			return s, err
		}
		y, err := d.plain(d.b).Read(w, 1, columns, line)
		if err != nil {
			return s, err
		}
		return measureDifference(x, y), nil
	}, yield)
}

// layer goes by the tiles of one of two weights, a layer; buffer is 1 where it is b.
func (d *Difference) layer(by, other *Stored, buffer int, yield func(stream.Task) bool) bool {
	tiled := d.stored(by)
	var values Values = d.plain(other)
	if other.Layer != nil {
		values = d.stored(other)
	}
	cut, rows, cols := tiled.Shape()
	d.Found = make([]Sums, cut.Count(rows, cols))
	return tiled.tiles(yield, func(w *stream.Worker, i int, a tile.Area) error {
		one, err := tiled.Read(w, buffer, cut.Cols, a)
		if err != nil {
			return err
		}
		two, err := values.Read(w, 1-buffer, cut.Cols, a)
		if err != nil {
			return err
		}
		if buffer == 1 {
			one, two = two, one
		}
		d.Found[i] = measureDifference(one, two)
		w.Done(int64(a.Values()))
		return nil
	})
}

func (d *Difference) stored(s *Stored) *storedValues {
	v := NewStoredValues(s.Source, s.Layer, MaxTile(d.use)/2, d.use)
	return &v
}

func (d *Difference) plain(s *Stored) *PlainValues {
	return &PlainValues{Source: s.Source, Tensor: s.Tensor}
}

// lines goes by runs of values.
func (d *Difference) lines(do func(w *stream.Worker, line tile.Area) (Sums, error), yield func(stream.Task) bool) bool {
	n := d.a.Tensor.Numel()
	d.Found = make([]Sums, tile.CeilDiv(n, tile.TileSize))
	for i := range d.Found {
		line := tile.Line(i*tile.TileSize, min((i+1)*tile.TileSize, n))
		if !yield(stream.Task{Bytes: int64(line.Values()), Do: func(w *stream.Worker) (err error) {
			d.Found[i], err = do(w, line)
			w.Done(int64(line.Values()))
			return err
		}}) {
			return false
		}
	}
	return true
}

// measureDifference sums up the errors of b, and says whether a value is another one: NaN
// is the same as NaN, and an infinity as itself.
func measureDifference(a, b []float32) Sums {
	s := Sums{Nonfinite: -1}
	s.Measure(a, b)
	if FiniteOrNil(s.Errors) != nil {
		s.Differs = s.Errors > 0
		return s
	}
	same := Sums{Nonfinite: -1}
	for i, x := range a {
		if y := b[i]; x != y && (x == x || y == y) {
			s.Differs = true
			return s
		}
		if square := float64(float64(x) * float64(x)); FiniteOrNil(square) != nil {
			same.Squares += square
		}
	}
	return same
}

// numbers compares plain tensors of which one does not fit float32, as float64.
func (d *Difference) numbers(yield func(stream.Task) bool) bool {
	return d.lines(func(w *stream.Worker, line tile.Area) (Sums, error) {
		s := Sums{Nonfinite: -1}
		x, err := readNumbers(w, RawBuffer, d.a, line)
		if err != nil {
			return s, err
		}
		y, err := readNumbers(w, RawBuffer+1, d.b, line)
		if err != nil {
			return s, err
		}
		for i := range line.Cols {
			a, b := x(i), y(i)
			if a == b || a != a && b != b {
				s.Squares += float64(a * a)
				continue
			}
			s.Differs = true
			s.Squares += float64(a * a)
			s.Errors += float64((a - b) * (a - b))
			s.MaxAbs = math.Max(s.MaxAbs, math.Abs(a-b))
		}
		return s, nil
	}, yield)
}

// readNumbers reads a run of values; the function that it returns gives one of them.
func readNumbers(w *stream.Worker, buffer int, s *Stored, line tile.Area) (func(i int) float64, error) {
	width := s.Tensor.Dtype.Bits() / 8
	raw := w.Bytes(buffer, line.Cols*width)
	if err := s.Source.ReadSection(s.Tensor, raw, int64(line.Col)*int64(width)); err != nil {
		return nil, err
	}
	number := numbers[s.Tensor.Dtype]
	if number == nil {
		number = func(raw []byte) float64 {
			var x [1]float32
			codec.Widen(x[:], raw, s.Tensor.Dtype)
			return float64(x[0])
		}
	}
	return func(i int) float64 { return number(raw[i*width:][:width]) }, nil
}

func isNumber(d safetensors.Dtype) bool { return codec.Numbers(d) || numbers[d] != nil }

// numbers are values of dtypes that are no float of 32 bits or less, as float64: integers
// above 2^53 are rounded.
var numbers = map[safetensors.Dtype]func(raw []byte) float64{
	safetensors.BOOL: func(raw []byte) float64 { return float64(raw[0]) },
	safetensors.U8:   func(raw []byte) float64 { return float64(raw[0]) },
	safetensors.I8:   func(raw []byte) float64 { return float64(int8(raw[0])) },
	safetensors.U16:  func(raw []byte) float64 { return float64(binary.LittleEndian.Uint16(raw)) },
	safetensors.I16:  func(raw []byte) float64 { return float64(int16(binary.LittleEndian.Uint16(raw))) },
	safetensors.U32:  func(raw []byte) float64 { return float64(binary.LittleEndian.Uint32(raw)) },
	safetensors.I32:  func(raw []byte) float64 { return float64(int32(binary.LittleEndian.Uint32(raw))) },
	safetensors.U64:  func(raw []byte) float64 { return float64(binary.LittleEndian.Uint64(raw)) },
	safetensors.I64:  func(raw []byte) float64 { return float64(int64(binary.LittleEndian.Uint64(raw))) },
	safetensors.F64:  func(raw []byte) float64 { return math.Float64frombits(binary.LittleEndian.Uint64(raw)) },
}
