// Package tile has the geometry of weights that are worked on in tiles, their values as they
// lie in a file, and the protocol of encoders.
package tile

import (
	"errors"
	"io"

	"github.com/tensorpress/tensorpress/internal/floats"
)

// Encoder turns one weight into its stored tensors. The caller runs the survey if there
// is one, then each pass in order over the whole weight, then encodes the tiles. An
// encoder that modifies another one embeds it, so that no method gets lost.
type Encoder interface {
	// Needs returns the same at every call, except that Held shrinks once Spill was
	// called.
	Needs() Needs
	// Encode fills dst, one slice for each tensor, with the bytes that the codec's
	// Written names for the area of v, whose dtype is any float dtype. The error is a
	// *[NonfiniteError], or one of a pass.
	Encode(dst [][]byte, v Values, s *Scratch) error
}

// Needs is what an encoder requires of the code that reads the weight.
type Needs struct {
	// Rows and Cols are the shape of tiles; those at the edges are smaller.
	Rows, Cols int
	// UnitRows and UnitCols are the shape of the least areas that can be encoded: others
	// consist of them, but at the edges.
	UnitRows, UnitCols int
	// PieceRows, if not 0, is how many rows of a tile should be passed to Encode at a
	// time, in order and each time with the output of the whole tile, so that the
	// values just read are still in the nearer caches.
	PieceRows int
	Passes    []Pass
	// Survey looks at the weight, or at a sample of it, before everything else; nil if
	// there is nothing to look at.
	Survey func(read Reader) error
	// Held is how many bytes the encoder holds in memory from the first pass on.
	Held int64
	// Spill makes the encoder keep a part of those bytes in a file, which it opens if
	// that helps; nil if it cannot help. Call it before the first pass or not at all.
	Spill func(open func() (Spill, error)) error
}

// Pass is a reading of the whole weight that finds what depends on more than one tile.
type Pass interface {
	// Tile returns the shape of the pass's tiles.
	Tile() (rows, cols int)
	// Read looks at one tile. It may be called concurrently for several tiles.
	Read(v Values, s *Scratch) (found any, err error)
	// Join takes what Read found, tile by tile in order.
	Join(a Area, found any) error
}

// Reader fills dst with values of the flattened weight, from index start on.
type Reader func(start int, dst []float32) error

// TileSize is how many values a tile usually has: enough to make the cost of its system
// calls negligible, and few enough for a core's cache.
const TileSize = 128 << 10

const (
	// wideValue bounds the bytes that a tile takes for each value where values are
	// widened: the bytes read, the float32 value, the code, and the output waiting to
	// be written.
	wideValue = 32
	// rawValue is the same bound where values are encoded directly from the bytes read.
	rawValue = 8
	// mostRaw caps the number of values of a tile that is encoded directly: large
	// enough for a band of 128 rows to be read in long runs.
	mostRaw = 12 << 20
)

// WideTile returns how many values a tile may have, given the memory for it in bytes,
// where they are widened: a multiple of 4096, so that every dtype fills whole blocks.
func WideTile(memory int) int { return max(memory/wideValue/4096, 1) * 4096 }

// RawTile is [WideTile] where values are not widened.
func RawTile(memory int) int {
	return max(min(WideTile(memory)*(wideValue/rawValue), mostRaw), WideTile(memory))
}

var errGaveUp = errors.New("the work on a weight was given up")

// Drive runs the passes of an encoder on one goroutine and then calls tile for each of
// its tiles, until the scratch is cancelled. The weight is read once for every pass and
// once more for the tiles; the values that read returns need to stay valid only until
// its next call.
func Drive(e Encoder, c Cut, read func(a Area) (Values, error), tile func(v Values) error, s *Scratch) error {
	needs := e.Needs()
	each := func(rows, cols int, do func(v Values) error) error {
		for _, a := range c.Areas(rows, cols) {
			if Closed(s.Cancelled) {
				return errGaveUp
			}
			v, err := read(a)
			if err == nil {
				err = do(v)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	for _, p := range needs.Passes {
		rows, cols := p.Tile()
		if err := each(rows, cols, func(v Values) error {
			found, err := p.Read(v, s)
			if err == nil {
				err = p.Join(v.Area, found)
			}
			return err
		}); err != nil {
			return err
		}
	}
	return each(needs.Rows, needs.Cols, tile)
}

// EncodeAll encodes a weight in memory, of as many rows and columns as the cut has, and
// puts what written names of each area into the tensors. The error is a
// *[NonfiniteError], or one of the survey or of a pass.
func EncodeAll(e Encoder, c Cut, written func(i int, a Area) []Span, w Values, tensors [][]byte, s *Scratch) error {
	if survey := e.Needs().Survey; survey != nil {
		err := survey(func(start int, dst []float32) error {
			floats.Widen(dst, w.Bytes[start<<w.Shift():], w.Dtype)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return Drive(e, c, func(a Area) (Values, error) { return w.Of(a), nil }, func(v Values) error {
		dst := make([][]byte, len(tensors))
		for i := range dst {
			dst[i] = make([]byte, SpanBytes(written(i, v.Area)))
		}
		if err := e.Encode(dst, v, s); err != nil {
			return err
		}
		for i, part := range dst {
			for _, span := range written(i, v.Area) {
				span.Put(tensors[i], part)
				part = part[span.Bytes():]
			}
		}
		return nil
	}, s)
}

// Ranged is an encoder that encodes each area independently or, where values that share
// a scale do not fit into one area, from ranges that a pass has measured.
type Ranged struct {
	Wants  Needs
	cut    Cut
	Ranges []Range // of all groups; nil where no pass measures them
	// Fill encodes an area, as Encode does, from the measured ranges or, if these are
	// nil, from those of its own values.
	Fill func(dst [][]byte, v Values, ranges []Range, s *Scratch) error
	// Range returns the range of every group that overlaps an area, or a
	// *[NonfiniteError]. It is not called if every group lies within a unit.
	Range func(v Values, s *Scratch) ([]Range, error)
}

// NewRanged returns an encoder for tiles of at most limit values.
func NewRanged(c Cut, limit int, encode func([][]byte, Values, []Range, *Scratch) error, measure func(Values, *Scratch) ([]Range, error)) *Ranged {
	e := &Ranged{cut: c, Fill: encode, Range: measure}
	measured := false
	e.Wants.Rows, e.Wants.Cols, measured = c.Tile(min(TileSize, limit), limit)
	e.Wants.UnitRows, e.Wants.UnitCols = c.least(measured)
	if measured {
		e.Ranges = c.Unmeasured()
		e.Wants.Passes = []Pass{ranging{e}}
	}
	return e
}

func (e *Ranged) Needs() Needs { return e.Wants }

func (e *Ranged) Encode(dst [][]byte, v Values, s *Scratch) error {
	return e.Fill(dst, v, e.Ranges, s)
}

// ranging is the pass that measures the range of every group.
type ranging struct{ e *Ranged }

// Tile returns the encoder's tile. If the whole weight is one group there is no
// boundary to respect, and any number of rows will do: as many as stay in the nearer
// caches.
func (r ranging) Tile() (rows, cols int) {
	n := r.e.Wants
	if c := r.e.cut; c.GroupRows >= c.Rows && c.GroupCols >= c.Cols {
		return c.ForDecoding().DecodeTile(min(TileSize, n.Rows*n.Cols))
	}
	return n.Rows, n.Cols
}

func (r ranging) Read(v Values, s *Scratch) (any, error) { return r.e.Range(v, s) }

func (r ranging) Join(a Area, found any) error {
	r.e.cut.Join(r.e.Ranges, a, found.([]Range))
	return nil
}

// Closed reports whether the channel is closed, that is, whether the work is cancelled.
func Closed(cancelled <-chan struct{}) bool {
	select {
	case <-cancelled:
		return true
	default:
		return false
	}
}

// Spill is a file in which the search for a low-rank part keeps what it does not need
// at the moment. The search closes it.
type Spill interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
}
