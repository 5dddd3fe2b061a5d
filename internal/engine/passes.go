package engine

import (
	"sync"

	"github.com/tensorpress/tensorpress/internal/stream"
	"github.com/tensorpress/tensorpress/internal/tile"
)

// reading is one pass over one tensor.
type reading struct {
	*encoding
	pass  tile.Pass
	after <-chan struct{} // closed when the previous pass is complete
	done  chan struct{}

	mu     sync.Mutex
	found  map[int]finding // by tile, waiting for earlier tiles to be joined
	joined int             // number of tiles
	total  int
}

// finding is what a pass found in one tile.
type finding struct {
	area  tile.Area
	found any
}

func (r *reading) tasks(yield func(stream.Task) bool) {
	rows, cols := r.pass.Tile()
	r.found = map[int]finding{}
	r.total = r.cut.Count(rows, cols)
	for tile, a := range r.cut.Areas(rows, cols) {
		if !yield(stream.Task{Bytes: r.bytes(a), At: r.at(a), Do: func(w *stream.Worker) error {
			defer r.worn()
			if !r.wait(w, r.after) {
				return nil
			}
			found, err := r.look(w, a)
			if err != nil {
				return err
			}
			return r.join(tile, finding{a, found})
		}}) {
			return
		}
	}
}

// look runs the pass on one area.
func (r *reading) look(w *stream.Worker, a tile.Area) (any, error) {
	values, err := r.read(w, a)
	if err != nil {
		return nil, err
	}
	found, err := r.pass.Read(values, &w.Scratch)
	return found, r.explain(err)
}

// join passes on what was found in a tile, and in later tiles that were waiting for it,
// in the order of the tiles. After the last one the pass is done.
func (r *reading) join(tile int, found finding) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.found[tile] = found
	for {
		next, ok := r.found[r.joined]
		if !ok {
			break
		}
		delete(r.found, r.joined)
		if err := r.pass.Join(next.area, next.found); err != nil {
			return err
		}
		r.joined++
	}
	if r.joined == r.total {
		if r.resident != nil {
			r.resident.read.Store(true)
		}
		close(r.done)
	}
	return nil
}
