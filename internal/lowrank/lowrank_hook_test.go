package lowrank

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/internal/tiletest"
	"github.com/tensorpress/tensorpress/safetensors"
)

// TestWriteFactors is the other half of conformance/lowrank/compare.py: it
// factors the matrices that jobs.json in that folder lists.
func TestWriteFactors(t *testing.T) {
	dir := os.Getenv("TENSORPRESS_LOWRANK")
	if dir == "" {
		t.Skip("TENSORPRESS_LOWRANK names no folder")
	}
	var jobs []struct {
		In, Out             string
		Rows, Columns, Rank int
		Dtype, Source       string
		Steps               int
		Seconds             float64
		Passes              int
	}
	text, err := os.ReadFile(filepath.Join(dir, "jobs.json"))
	if err == nil {
		err = json.Unmarshal(text, &jobs)
	}
	if err != nil {
		t.Fatal(err)
	}
	dtypes := map[string]safetensors.Dtype{"F32": safetensors.F32, "BF16": safetensors.BF16, "F16": safetensors.F16}
	for i := range jobs {
		j := &jobs[i]
		raw, err := os.ReadFile(filepath.Join(dir, j.In))
		if err != nil {
			t.Fatal(err)
		}
		w := make([]float32, len(raw)/4)
		for i := range w {
			w[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
		}
		start := time.Now()
		f, err := passed(t, w, dtypes[j.Source], j.Rows, j.Columns, j.Rank, j.Steps, runtime.GOMAXPROCS(0)).Factors(dtypes[j.Dtype], nil)
		if err != nil {
			t.Fatal(err)
		}
		j.Seconds = time.Since(start).Seconds()
		up := make([]float32, j.Rows*f.Rank)
		f.Split(up, w, new(tile.Scratch))
		out := make([]byte, 4*(len(up)+len(f.Down)))
		for i, v := range append(up, f.Down...) {
			binary.LittleEndian.PutUint32(out[4*i:], math.Float32bits(v))
		}
		if err := os.WriteFile(filepath.Join(dir, j.Out), out, 0o644); err != nil {
			t.Fatal(err)
		}
		l, _ := New(j.Rows, j.Columns, j.Rank, j.Steps)
		j.Passes = l.Passes()
	}
	text, _ = json.Marshal(jobs)
	if err := os.WriteFile(filepath.Join(dir, "done.json"), text, 0o644); err != nil {
		t.Fatal(err)
	}
}

func factored(tb testing.TB, w []float32, from safetensors.Dtype, rows, columns, rank, threads int, to safetensors.Dtype) *Factors {
	tb.Helper()
	f, err := passed(tb, w, from, rows, columns, rank, SVDSteps, threads).Factors(to, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return f
}

// passed runs all passes over values of a dtype on that many goroutines, which
// start tiles in order.
func passed(tb testing.TB, w []float32, from safetensors.Dtype, rows, columns, rank, steps, threads int) *Search {
	tb.Helper()
	l, err := New(rows, columns, rank, steps)
	if err != nil {
		tb.Fatal(err)
	}
	tiles := make(chan [2]int)
	go func() {
		defer close(tiles)
		for pass := range l.Passes() {
			for tile := range l.Tiles() {
				tiles <- [2]int{pass, tile}
			}
		}
	}()
	var workers sync.WaitGroup
	for range threads {
		workers.Go(func() {
			s := new(tile.Scratch)
			for t := range tiles {
				l.addFrom(t[0], t[1], l.tile(w, t[1]), from, s)
			}
		})
	}
	workers.Wait()
	return l
}

// tile returns the rows of a tile.
func (l *Search) tile(w []float32, tile int) []float32 {
	size := l.TileRows() * l.Columns
	return w[tile*size : min((tile+1)*size, len(w))]
}

// addFrom adds a tile as it is stored in that dtype.
func (l *Search) addFrom(pass, at int, w []float32, from safetensors.Dtype, s *tile.Scratch) {
	_, raw := tiletest.RoundedTo(w, from)
	l.Add(pass, at, tile.Values{Area: tile.Line(0, len(w)), Dtype: from, Bytes: raw}, s, nil)
}
