package engine_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/engine"
	"github.com/tensorpress/tensorpress/internal/fixture"
	"github.com/tensorpress/tensorpress/safetensors"
)

// TestTurnsAndMemory: whichever weights are under way together, and whether
// they stay in memory from pass to pass, the file is the same.
func TestTurnsAndMemory(t *testing.T) {
	t.Parallel()
	var tensors []safetensors.Tensor
	for i, shape := range [][]int{{640, 1536}, {96, 1024}, {2100, 640}, {640, 2000}, {33, 700}} {
		tensors = append(tensors, safetensors.Tensor{Name: string(rune('a'+i)) + ".weight", Dtype: safetensors.BF16, Shape: shape})
	}
	source := fixture.Written(t, tensors)
	var want []byte
	for i, r := range []fixture.Resources{
		{Threads: 1}, {Threads: 2}, {Threads: 7}, // all of each stays
		{Threads: 1, Memory: 86 << 20}, {Threads: 3, Memory: 88 << 20}, // parts
		{Threads: 3, Memory: 33 << 20}, {Threads: 2, Memory: 12 << 20}, // nothing, and the larger searches use the disk
		{Threads: 3, Memory: 1 << 20}, // all do
	} {
		if testing.Short() && i%2 > 0 { // one of each kind
			continue
		}
		out := filepath.Join(t.TempDir(), "out.safetensors")
		o := tensorpress.Options{Layout: "sdnq", Layer: tensorpress.Settings{Dtype: "uint4", SVDRank: new(24)}, Preset: "none", Threads: r.Threads, Memory: r.Memory, Progress: r.Progress}
		if _, err := tensorpress.Quantize(t.Context(), files.Dir(source), files.Dir(out), o); err != nil {
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
		if files := fixture.Left(t, filepath.Dir(out)); files != "out.safetensors quantization_config.json" {
			t.Errorf("left behind: %s", files)
		}
	}
}

// TestKeeperLendsNoMore: the memory of a run is bounded, and is used again.
func TestKeeperLendsNoMore(t *testing.T) {
	k := engine.NewResidency(fixture.Resources{Threads: 2, Memory: 88 << 20}) // 24 MiB, 22 of it for searches
	a, b, c := k.Reserve(100, 0), k.Reserve(4<<20, 0), k.Reserve(50, 0)
	if b.Size != 1<<20 {
		t.Fatalf("keeps %d bytes of a large weight, want half of 2 MiB", b.Size)
	}
	over := make(chan struct{})
	close(over)
	a.Take(nil)
	b.Take(nil)
	if c.Take(over); c.Data != nil {
		t.Error("lends to a third weight")
	}
	was := &a.Data[0]
	a.Release()
	if c.Take(nil); len(c.Data) != 50 || &c.Data[0] != was {
		t.Error("what was given back is not lent again")
	}
	b.Release()
	c.Release()
	d := k.Reserve(4<<20, 24<<20-200) // a search that leaves 200 bytes
	if d.Take(nil); len(d.Data) != 100 || k.Held != 100 {
		t.Errorf("%d bytes beside a large search, of buffers of %d; want 100", len(d.Data), k.Held)
	}
	if k.Reserve(100, 24<<20) != nil || engine.NewResidency(fixture.Resources{Threads: 2, Memory: 64 << 20}).Reserve(100, 0) != nil {
		t.Error("keeps a weight where there is no memory")
	}
}

// TestThreadsWithinMemory: each takes some of it, so that many cores must not
// go beyond what the user allows.
func TestThreadsWithinMemory(t *testing.T) {
	for _, test := range []struct {
		threads int
		memory  int64
		want    int
	}{{8, 0, 8}, {64, 0, 44}, {64, 64 << 20, 6}, {2, 64 << 20, 2}, {4, 1 << 20, 1}, {64, 1 << 30, 64}} {
		if got := engine.Workers(fixture.Resources{Threads: test.threads, Memory: test.memory}); got != test.want {
			t.Errorf("%d threads, memory %d: %d work, want %d", test.threads, test.memory, got, test.want)
		}
	}
}
