package quant

// Encoder is one weight on its way into its stored tensors. Its passes, in
// order, each read the whole weight; then its tiles are encoded.
type Encoder interface {
	// Tile is the number of values that tiles should have; the last may have
	// fewer.
	Tile() int
	Passes() []Pass
	// Encode fills the bytes that Written names. The error is a
	// *[NonfiniteError].
	Encode(dst [][]byte, start int, values []float32, s *Scratch) error
}

// Pass is a reading of the whole weight for what spans its tiles.
type Pass interface {
	// Tile is as that of an encoder.
	Tile() int
	// Read looks at one tile, whose values it may change. Tiles may be read at
	// the same time.
	Read(start int, values []float32, s *Scratch) (found any, err error)
	// Join takes what Read found, in the order of the tiles.
	Join(found any) error
}

// Encode runs an encoder over a weight in memory, whose values it changes.
func Encode(e Encoder, dst [][]byte, w []float32) error {
	s := new(Scratch)
	for _, p := range e.Passes() {
		copied := make([]float32, min(p.Tile(), len(w)))
		for start := 0; start < len(w); start += p.Tile() {
			n := copy(copied, w[start:])
			found, err := p.Read(start, copied[:n], s)
			if err == nil {
				err = p.Join(found)
			}
			if err != nil {
				return err
			}
		}
	}
	return e.Encode(dst, 0, w, s)
}

// TileSize is how many values a tile has as a rule: enough for its system calls
// not to count, and few enough for a core's cache.
const TileSize = 128 << 10
