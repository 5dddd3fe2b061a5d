package tile

import (
	"errors"
	"io"
)

// Encoder is one weight on its way into its stored tensors: it looks at the weight
// if it wants to, its passes, in order, each read all of it, and then its tiles
// are encoded. What changes an encoder embeds it.
type Encoder interface {
	// Needs are the same at every call, but for Held after Shelve.
	Needs() Needs
	// Encode fills the bytes that Written names of the area, one slice for a tensor,
	// from values of any dtype. The error is a *[NonfiniteError], or of a pass.
	Encode(dst [][]byte, v Values, s *Scratch) error
}

// Needs are what an encoder asks of whoever reads the weight.
type Needs struct {
	// Rows and Cols are the shape of tiles; those at the edges are smaller.
	Rows, Cols int
	// PieceRows, if not 0, is how many rows of a tile are better given to Encode at a
	// time, in order and with the room for all of the tile: what was read is in the
	// nearer caches still.
	PieceRows int
	Passes    []Pass
	// Survey looks at the weight, or at a sample of it, before all else; nil for an
	// encoder that does not.
	Survey func(read Reader) error
	// Held is how many bytes are in memory from the first pass on.
	Held int64
	// Spill keeps some of them in a file, which it opens if it does; nil where that
	// would bring nothing. It is called before the first pass or not at all.
	Spill func(open func() (Spill, error)) error
}

// Pass is a reading of the whole weight for what spans its tiles.
type Pass interface {
	// Tile is the shape of its tiles.
	Tile() (rows, cols int)
	// Read looks at one tile. Tiles may be read at the same time.
	Read(v Values, s *Scratch) (found any, err error)
	// Join takes what Read found, in the order of the tiles.
	Join(a Area, found any) error
}

// Reader reads values of the flattened weight, from index start on.
type Reader func(start int, dst []float32) error

// TileSize is how many values a tile has as a rule: enough for its system calls
// not to count, and few enough for a core's cache.
const TileSize = 128 << 10

const (
	// wideValue bounds what a tile takes for each value, in bytes, where values are
	// widened: those as they lie in the file, floats, codes, and what waits to be
	// written.
	wideValue = 32
	// rawValue is that where they are encoded as they lie in the file.
	rawValue = 8
	// mostRaw is enough values for bands that lie in files in long runs.
	mostRaw = 12 << 20
)

// WideTile is how many values a tile may have in so many bytes of memory: whole
// blocks of any dtype.
func WideTile(memory int) int { return max(memory/wideValue/4096, 1) * 4096 }

// RawTile is wideTile where values are not widened.
func RawTile(memory int) int {
	return max(min(WideTile(memory)*(wideValue/rawValue), mostRaw), WideTile(memory))
}

var errGaveUp = errors.New("the work on a weight was given up")

// Drive works off the passes of an encoder on one goroutine, and then calls tile
// for its tiles, until the scratch is cancelled. A weight is read for every pass, and
// for its tiles; values last until the next read.
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

// Ranged encodes areas by themselves or, where what shares a scale does not
// fit one, from ranges that a pass has measured.
type Ranged struct {
	Wants  Needs
	cut    Cut
	Ranges []Range // of all groups, nil where they are not measured
	// Fill fills what an area does, from those ranges or, without, its own.
	Fill func(dst [][]byte, v Values, ranges []Range, s *Scratch) error
	// Range returns the range of every group that overlaps an area, or a
	// *[NonfiniteError]. It is not called where groups lie whole in units.
	Range func(v Values, s *Scratch) ([]Range, error)
}

// NewRanged is one in tiles of at most limit values.
func NewRanged(c Cut, limit int, encode func([][]byte, Values, []Range, *Scratch) error, measure func(Values, *Scratch) ([]Range, error)) *Ranged {
	e := &Ranged{cut: c, Fill: encode, Range: measure}
	measured := false
	e.Wants.Rows, e.Wants.Cols, measured = c.Tile(min(TileSize, limit), limit)
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

// ranging is the pass that takes the range of every group.
type ranging struct{ e *Ranged }

// Tile is the encoder's or, where all values are one group, any rows of them: no
// more than stay in the nearer caches.
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

// Closed reports whether work is cancelled.
func Closed(cancelled <-chan struct{}) bool {
	select {
	case <-cancelled:
		return true
	default:
		return false
	}
}

// Spill holds what a search for a low-rank part does not need at the moment: a file
// of its own, which it closes at its end.
type Spill interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
}
