package bodies

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/tensorpress/tensorpress/safetensors"
)

// calls is a file in memory that counts its writes.
type calls struct {
	data []byte
	n    int
	err  error
}

func (c *calls) WriteAt(p []byte, off int64) (int, error) {
	c.n++
	if c.err != nil {
		return 0, c.err
	}
	if need := int(off) + len(p) - len(c.data); need > 0 {
		c.data = append(c.data, make([]byte, need)...)
	}
	return copy(c.data[off:], p), nil
}

// TestSections: every byte must be where WriteSection would put it, whatever
// the order, the sizes and the number of files, in few calls.
func TestSections(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var tensors []safetensors.Tensor
	for i := range 40 {
		size := rng.IntN(2000)
		if i%10 == 0 {
			size = rng.IntN(300 << 10)
		}
		tensors = append(tensors, safetensors.Tensor{Name: string(rune('A' + i)), Dtype: safetensors.U8, Shape: []int{size}})
	}
	h, err := safetensors.NewHeader(tensors, nil)
	if err != nil {
		t.Fatal(err)
	}
	files := []*calls{{}, {}}
	var all Sections
	var memory []byte
	for range 2 { // a second time with what the first left
		var want [2][]byte
		var writers []*Writer
		for i, f := range files {
			*f = calls{}
			w := NewWriter(f, h)
			if err := w.WriteHeader(); err != nil {
				t.Fatal(err)
			}
			writers = append(writers, w)
			want[i] = append(want[i], f.data...)
			want[i] = append(want[i], make([]byte, h.FileSize()-h.DataStart)...)
		}
		type piece struct {
			file, tensor int
			off, n       int64
		}
		var pieces []piece
		for f := range files {
			for i, one := range h.Tensors {
				for off := int64(0); off < one.Size; {
					n := min(1+rng.Int64N(one.Size), one.Size-off)
					pieces = append(pieces, piece{f, i, off, n})
					off += n
				}
			}
		}
		for range len(pieces) { // some in their order
			i, j := rng.IntN(len(pieces)), rng.IntN(len(pieces))
			pieces[i], pieces[j] = pieces[j], pieces[i]
		}
		for _, p := range pieces {
			if rng.IntN(3) == 0 || len(memory) < int(p.n) { // else right behind the last
				memory = make([]byte, 64<<10+int(p.n))
			}
			data := memory[:p.n]
			memory = memory[p.n:]
			for i := range data {
				data[i] = byte(rng.Uint32())
			}
			one := h.Tensors[p.tensor]
			copy(want[p.file][h.DataStart+one.Offset+p.off:], data)
			if err := all.Add(writers[p.file], one, data, p.off); err != nil {
				t.Fatal(err)
			}
		}
		if err := all.Write(); err != nil {
			t.Fatal(err)
		}
		for i, f := range files {
			if !bytes.Equal(f.data, want[i]) {
				t.Errorf("file %d has other bytes", i)
			}
			if err := writers[i].Finish(); err != nil {
				t.Error(err)
			}
		}
		if n := files[0].n + files[1].n; n > len(pieces)/3 {
			t.Errorf("%d calls for %d pieces", n, len(pieces))
		}
	}
}

// TestSectionsErrors: an error must name the tensor, and bytes that were not
// written must not count.
func TestSectionsErrors(t *testing.T) {
	h, err := safetensors.NewHeader([]safetensors.Tensor{{Name: "x", Dtype: safetensors.U8, Shape: []int{4}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	f := &calls{}
	w := NewWriter(f, h)
	if err := w.WriteHeader(); err != nil {
		t.Fatal(err)
	}
	var all Sections
	if err := all.Add(w, safetensors.Tensor{Name: "y"}, nil, 0); !errors.Is(err, errForeign) {
		t.Errorf("unknown tensor: %v", err)
	}
	if err := all.Add(w, h.Tensors[0], make([]byte, 5), 0); !errors.Is(err, safetensors.ErrRange) {
		t.Errorf("past the end: %v", err)
	}
	f.err = errors.New("disk full")
	if err := all.Add(w, h.Tensors[0], make([]byte, 4), 0); err != nil {
		t.Fatal(err)
	}
	if err := all.Write(); !errors.Is(err, f.err) || err.Error() != `write tensor "x": disk full` {
		t.Errorf("got %v", err)
	}
	if err := w.Finish(); !errors.Is(err, safetensors.ErrIncomplete) {
		t.Errorf("got %v", err)
	}
}
