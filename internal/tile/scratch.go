package tile

// Scratch holds buffers that are reused from call to call, one Scratch for each
// goroutine. The zero value is ready for use.
type Scratch struct {
	// Cancelled, if not nil, is closed when the work is no longer wanted.
	Cancelled <-chan struct{}

	codes         []uint16
	values        []float32
	widened, half []float32 // for Values.Floats and Values.Raw
	parts         []any     // buffers of other packages, see PartOf
}

// Uint16s returns a buffer of n codes, valid until the next call.
func (s *Scratch) Uint16s(n int) []uint16 { return Sized(&s.codes, n) }

// Floats returns a buffer of n values, valid until the next call.
func (s *Scratch) Floats(n int) []float32 { return Sized(&s.values, n) }

// PartOf returns the scratch's T, making it at the first call. T is a type in which a
// package keeps buffers of its own.
func PartOf[T any](s *Scratch) *T {
	for _, p := range s.parts {
		if t, ok := p.(*T); ok {
			return t
		}
	}
	t := new(T)
	s.parts = append(s.parts, t)
	return t
}

// Sized returns the first n elements of a buffer, which it reallocates if it is too
// small. Their content is arbitrary.
func Sized[T any](buffer *[]T, n int) []T {
	if cap(*buffer) < n {
		*buffer = make([]T, n)
	}
	return (*buffer)[:n]
}
