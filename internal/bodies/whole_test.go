package bodies

import (
	"testing"

	"github.com/tensorpress/tensorpress/safetensors"
)

// TestWhenWhole: a file counts as whole once, when all is written and nobody holds it any
// more, in whatever order that comes to be.
func TestWhenWhole(t *testing.T) {
	header := func() *safetensors.Header {
		h, err := safetensors.NewHeader([]safetensors.Tensor{
			{Name: "a", Dtype: safetensors.U8, Shape: []int{4}}, {Name: "b", Dtype: safetensors.U8, Shape: []int{0}}, {Name: "c", Dtype: safetensors.U8, Shape: []int{2}},
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	steps := map[string]func(w *Writer) error{
		"header": (*Writer).WriteHeader,
		"a begins": func(w *Writer) error {
			return w.WriteSection(w.header.Tensors[0], []byte{1, 2, 3}, 0)
		},
		"a ends": func(w *Writer) error {
			var s Sections
			if err := s.Add(w, w.header.Tensors[0], []byte{4}, 3); err != nil {
				return err
			}
			return s.Write()
		},
		"b":       func(w *Writer) error { return w.WriteSection(w.header.Tensors[1], nil, 0) },
		"c":       func(w *Writer) error { return w.WriteSection(w.header.Tensors[2], []byte{5, 6}, 0) },
		"release": func(w *Writer) error { w.Release(); return nil },
	}
	for range 100 { // the order of a map is another each time
		w, times, done := NewWriter(&calls{}, header()), 0, 0
		w.WhenWhole(func() { times++ })
		w.Hold()
		for name, step := range steps {
			if err := step(w); err != nil {
				t.Fatal(name, err)
			}
			if done++; name != "b" && done < len(steps)-1 && times > 0 {
				t.Fatalf("whole after %d of %d steps", done, len(steps))
			}
		}
		if err := w.Finish(); err != nil || times != 1 {
			t.Fatalf("it was whole %d times, %v", times, err)
		}
	}
}
