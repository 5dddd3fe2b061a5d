package tile

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// TestPutAndTakeAreInverse: a span's pieces come back as they were put, and nothing
// beside them is touched.
func TestPutAndTakeAreInverse(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 1))
	for range 500 {
		size, count := int64(r.IntN(9)), r.IntN(6)
		s := Span{int64(r.IntN(7)), size, count, size + int64(r.IntN(5))}
		tensor, pieces := make([]byte, 100), make([]byte, s.Bytes())
		for i := range pieces {
			pieces[i] = byte(1 + r.IntN(255))
		}
		s.Put(tensor, pieces)
		if got := s.Take(tensor); !bytes.Equal(got, pieces) {
			t.Fatalf("%+v: put %v, took %v", s, pieces, got)
		}
		if n := len(tensor) - bytes.Count(tensor, []byte{0}); n != len(pieces) {
			t.Errorf("%+v: %d bytes were put, not %d", s, n, len(pieces))
		}
	}
}

// TestSpansOfAnArea: they are the bytes of its values, in their order.
func TestSpansOfAnArea(t *testing.T) {
	cuts(t, func(r *rand.Rand, c Cut) {
		a, width := part(r, c), 1+r.IntN(4)
		tensor := make([]byte, c.Rows*c.Cols*width)
		for i := range tensor {
			tensor[i] = byte(i / width)
		}
		var got, want []byte
		spans := SpansOf(a, c.Cols, width)
		for _, s := range spans {
			got = append(got, s.Take(tensor)...)
		}
		for v := range a.Values() {
			want = append(want, bytes.Repeat([]byte{byte(a.Index(v, c.Cols))}, width)...)
		}
		if !bytes.Equal(got, want) || SpanBytes(spans) != len(want) {
			t.Errorf("%+v of %d columns, %d bytes each: %+v", a, c.Cols, width, spans)
		}
		if a.Cols == c.Cols && (len(spans) != 1 || spans[0].Count != 1) {
			t.Errorf("whole rows are no single run: %+v", spans)
		}
	})
}
