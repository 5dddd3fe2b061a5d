package tile

// Span names bytes of a stored tensor: Count runs of Size bytes, the first at Offset,
// each Stride bytes after the one before.
type Span struct {
	Offset, Size int64
	Count        int
	Stride       int64
}

// Bytes returns the number of bytes in all runs.
func (s Span) Bytes() int { return int(s.Size) * s.Count }

// One returns the span of a single run.
func One(offset, size int64) Span { return Span{offset, size, 1, 0} }

// Put copies consecutive bytes to the span's runs in a tensor.
func (s Span) Put(tensor, pieces []byte) {
	off := s.Offset
	for range s.Count {
		copy(tensor[off:], pieces[:s.Size])
		pieces, off = pieces[s.Size:], off+s.Stride
	}
}

// Take returns the span's runs of a tensor, one after another.
func (s Span) Take(tensor []byte) []byte {
	var pieces []byte
	off := s.Offset
	for range s.Count {
		pieces = append(pieces, tensor[off:off+s.Size]...)
		off += s.Stride
	}
	return pieces
}
