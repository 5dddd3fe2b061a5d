package tile

// Scratch is memory that calls use again, one Scratch to a goroutine. The zero value
// is ready.
type Scratch struct {
	// Cancelled, if not nil, is closed when the work is given up.
	Cancelled <-chan struct{}

	codes         []uint16
	values        []float32
	widened, half []float32 // of Values
	parts         []any
}

// Uint16s returns n of a buffer, until the next call.
func (s *Scratch) Uint16s(n int) []uint16 { return Sized(&s.codes, n) }

// Floats returns n of a buffer, until the next call.
func (s *Scratch) Floats(n int) []float32 { return Sized(&s.values, n) }

// PartOf returns the T in a scratch, where whoever has that type keeps further buffers.
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

// Sized returns n values of a buffer, which it makes larger if it must; they hold
// anything.
func Sized[T any](buffer *[]T, n int) []T {
	if cap(*buffer) < n {
		*buffer = make([]T, n)
	}
	return (*buffer)[:n]
}
