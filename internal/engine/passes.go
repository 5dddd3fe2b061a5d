package engine

import (
	"sync"

	"github.com/tensorpress/tensorpress/internal/stream"
	"github.com/tensorpress/tensorpress/internal/tile"
)

// reading is one pass over a tensor.
type reading struct {
	*encoding
	pass  tile.Pass
	after <-chan struct{} // the pass before
	done  chan struct{}

	mu     sync.Mutex
	found  map[int]finding // by tile, until all before have been joined
	joined int             // tiles
	total  int
}

type finding struct {
	area  tile.Area
	found any
}

func (r *reading) tasks(yield func(stream.Task) bool) {
	rows, cols := r.pass.Tile()
	r.found = map[int]finding{}
	r.total = r.cut.Count(rows, cols)
	for tile, a := range r.cut.Areas(rows, cols) {
		if !yield(stream.Task{Bytes: r.bytes(a), Do: func(w *stream.Worker) error {
			if !wait(w, r.after) {
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

// look reads one area.
func (r *reading) look(w *stream.Worker, a tile.Area) (any, error) {
	values, err := r.read(w, a)
	if err != nil {
		return nil, err
	}
	found, err := r.pass.Read(values, &w.Scratch)
	return found, r.explain(err)
}

// join hands what was found on in the order of the tiles.
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
		if r.kept != nil {
			r.kept.read.Store(true)
		}
		close(r.done)
	}
	return nil
}
