package tensorpress

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/tensorpress/tensorpress/safetensors"
)

// TestTurnsAndMemory: whichever weights are under way together, and whether
// they stay in memory from pass to pass, the file is the same.
func TestTurnsAndMemory(t *testing.T) {
	var tensors []safetensors.Tensor
	for i, shape := range [][]int{{640, 1536}, {96, 1024}, {2100, 640}, {640, 2000}, {33, 700}} {
		tensors = append(tensors, safetensors.Tensor{Name: string(rune('a'+i)) + ".weight", Dtype: safetensors.BF16, Shape: shape})
	}
	source := written(t, tensors)
	var want []byte
	for _, r := range []Resources{{Threads: 1}, {Threads: 2}, {Threads: 7}, {Threads: 3, Memory: 33 << 20}, {Threads: 2, Memory: 12 << 20}} {
		out := filepath.Join(t.TempDir(), "out.safetensors")
		o := Options{Layout: "sdnq", Dtype: ptr("uint4"), Preset: "none", Settings: map[string]any{"svd-rank": 24}, Resources: r}
		if _, err := Quantize(t.Context(), source, out, o); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		if want == nil {
			want = got
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%d threads, memory %d: another file", r.Threads, r.Memory)
		}
	}
}

// TestKeeperLendsNoMore: the memory of a run is bounded, and is used again.
func TestKeeperLendsNoMore(t *testing.T) {
	var k keeper
	a, b := k.keep(60, 100), k.keep(40, 100)
	if a == nil || b == nil || k.keep(1, 100) != nil {
		t.Fatal("lends other than 100 bytes")
	}
	a.data, b.data = k.buffer(60), k.buffer(40)
	was := &a.data[0]
	a.release()
	if c := k.keep(50, 100); c == nil || &k.buffer(50)[0] != was {
		t.Error("what was given back is not lent again")
	}
	b.release()
	if len(k.free) != 1 {
		t.Errorf("%d buffers are free, want 1", len(k.free))
	}
}
