package checkpoint_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/safetensors"
)

// randomFile is one of a tensor of random bytes.
func randomFile(t *testing.T, r *rand.Rand, size int) (*checkpoint.Checkpoint, []byte) {
	t.Helper()
	h, err := safetensors.NewHeader([]safetensors.Tensor{{Name: "a", Dtype: safetensors.U8, Shape: []int{size}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(1 + r.IntN(255))
	}
	return open(t, filepath.Join(folder(t, map[string]string{"x.safetensors": string(h.Encode()) + string(data)}), "x.safetensors")), data
}

// TestGathered: a tensor that is runs of others must read the same bytes, wherever the
// reading begins and however the runs lie: a wrong one would be a row of another layer.
func TestGathered(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	c, data := randomFile(t, r, 400_000)
	from, _ := c.Lookup("a")
	for _, tt := range []struct {
		name  string
		lines int   // of the tensor
		size  int64 // of a line
		// runs of a line: where they go, how long they are, where they begin in the
		// source, and how far apart there
		runs   [][4]int64
		pieces int
	}{
		{"rows one after the other", 1, 9000, [][4]int64{{0, 4000, 7000, 0}, {4000, 5000, 11000, 0}}, 1},
		{"rows elsewhere", 1, 9000, [][4]int64{{0, 4000, 7000, 0}, {4000, 5000, 1000, 0}}, 2},
		{"columns", 300, 96, [][4]int64{{0, 32, 0, 32}, {32, 64, 50_000, 64}}, 2},
		{"columns far apart", 40, 96, [][4]int64{{0, 32, 0, 9000}, {32, 64, 50, 5000}}, 2},
		{"halves that change places", 100, 64, [][4]int64{{0, 32, 32, 64}, {32, 32, 0, 64}}, -1},
		{"one for all rows", 5000, 4, [][4]int64{{0, 4, 12, 0}}, 1},
		{"factors with zeros", 500, 96, [][4]int64{{16, 64, 100, 64}}, 1},
		{"long runs", 3, 150_000, [][4]int64{{0, 130_000, 0, 130_000}}, 1},
	} {
		g, want := &checkpoint.Gathered{}, make([]byte, int64(tt.lines)*tt.size)
		for line := range int64(tt.lines) {
			for _, run := range tt.runs {
				to, offset := line*tt.size+run[0], run[2]+line*run[3]
				g.Add(to, run[1], &from, offset)
				copy(want[to:to+run[1]], data[offset:])
			}
		}
		if n := len(g.Pieces); tt.pieces >= 0 && n != tt.pieces {
			t.Errorf("%s: %d pieces, want %d", tt.name, n, tt.pieces)
		}
		all, err := checkpoint.Gather("b", safetensors.U8, []int{len(want)}, g)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 300 {
			off := r.Int64N(all.Size)
			n := r.Int64N(all.Size - off + 1)
			if i%2 == 0 {
				n = min(n, r.Int64N(200))
			}
			if i == 0 {
				off, n = 0, all.Size
			}
			got := bytes.Repeat([]byte{0}, int(n)) // whatever was there before
			for j := range got {
				got[j] = byte(j)
			}
			if err := c.ReadSection(all, got, off); err != nil {
				t.Fatalf("%s: %v", tt.name, err)
			}
			if !bytes.Equal(got, want[off:off+n]) {
				t.Fatalf("%s: other bytes from %d to %d of %d", tt.name, off, off+n, all.Size)
			}
		}
		if err := c.ReadSection(all, make([]byte, 2), all.Size-1); !errors.Is(err, safetensors.ErrRange) {
			t.Errorf("%s: beyond the end: %v", tt.name, err)
		}
	}
}

// TestTurned: matrices of which rows and columns change places must read so, wherever the
// reading begins, whatever their shape.
func TestTurned(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	for _, shape := range [][]int{{1, 1, 1}, {3, 5, 7}, {2, 40, 300}, {2, 3, 9000}, {1, 2, 80_000}, {4, 700, 3}} {
		n := shape[0] * shape[1] * shape[2]
		c, data := randomFile(t, r, 2*n)
		from, _ := c.Lookup("a")
		from.Dtype, from.Shape = safetensors.BF16, shape
		turned := checkpoint.Turned("b", &from)
		want := make([]byte, 2*n)
		rows, columns := shape[2], shape[1]
		for i := range n {
			matrix, at := i/(rows*columns), i%(rows*columns)
			copy(want[2*i:2*i+2], data[2*(matrix*rows*columns+at%columns*rows+at/columns):])
		}
		for range 40 {
			off := r.IntN(n)
			got := make([]byte, 2*(1+r.IntN(n-off)))
			if err := c.ReadSection(turned, got, int64(2*off)); err != nil || !bytes.Equal(got, want[2*off:2*off+len(got)]) {
				t.Fatalf("%v: %d values from %d: %v", shape, len(got)/2, off, err)
			}
		}
		if err := c.ReadSection(turned, make([]byte, 2), int64(2*n)); err == nil {
			t.Errorf("%v: a value beyond the end", shape)
		}
	}
}
