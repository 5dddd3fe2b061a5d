package lowrank

import (
	"errors"
	"slices"
	"testing"

	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/internal/tiletest"
	"github.com/tensorpress/tensorpress/safetensors"
)

// memoryShelf fails from a call on, if that is not negative.
type memoryShelf struct {
	data   []byte
	calls  int
	fails  int
	closed bool
}

var errShelf = errors.New("no space left")

func (s *memoryShelf) call() error {
	if s.calls++; s.fails >= 0 && s.calls > s.fails {
		return errShelf
	}
	return nil
}

func (s *memoryShelf) WriteAt(p []byte, off int64) (int, error) {
	if err := s.call(); err != nil {
		return 0, err
	}
	if need := int(off) + len(p) - len(s.data); need > 0 {
		s.data = append(s.data, make([]byte, need)...)
	}
	return copy(s.data[off:], p), nil
}

func (s *memoryShelf) ReadAt(p []byte, off int64) (int, error) {
	if err := s.call(); err != nil {
		return 0, err
	}
	return copy(p, s.data[off:]), nil
}

func (s *memoryShelf) Close() error {
	s.closed = true
	return nil
}

func shelvedSearch(t *testing.T, rows, columns, rank int, s tile.Spill) *Search {
	t.Helper()
	l, err := New(rows, columns, rank, SVDSteps)
	if err != nil {
		t.Fatal(err)
	}
	before := l.Memory()
	if ok, err := l.Spill(func() (tile.Spill, error) { return s, nil }); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if l.Memory() > before/2 {
		t.Errorf("takes %d bytes, %d without a file", l.Memory(), before)
	}
	return l
}

// TestShelf: how much memory there is must not show in the bytes, whether the
// directions come from products or from the blocks themselves.
func TestShelf(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		rows, columns, rank int
		steep               float64
	}{{700, 600, 9, 0.7}, {300, 520, 3, 6}, {600, 530, 40, 0.5}} {
		w, _ := tiletest.RoundedTo(shaped(c.rows, c.columns, c.steep, 3), safetensors.BF16)
		for _, from := range []safetensors.Dtype{safetensors.F32, safetensors.BF16} {
			plain, err := New(c.rows, c.columns, c.rank, SVDSteps)
			if err != nil {
				t.Fatal(err)
			}
			want, err := plain.inOrder(w, from)
			if err != nil {
				t.Fatal(err)
			}
			s := &memoryShelf{fails: -1}
			got, err := shelvedSearch(t, c.rows, c.columns, c.rank, s).inOrder(w, from)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got.Down, want.Down) {
				t.Errorf("%+v of %s: other factors", c, from)
			}
			if len(s.data) == 0 || !s.closed {
				t.Errorf("%+v of %s: %d bytes were put away, closed: %v", c, from, len(s.data), s.closed)
			}
		}
	}
}

// TestShelfFails: a full disk must not end in wrong factors.
func TestShelfFails(t *testing.T) {
	const rows, columns, rank = 300, 520, 9
	w := shaped(rows, columns, 0.7, 3)
	s := &memoryShelf{fails: -1}
	if _, err := shelvedSearch(t, rows, columns, rank, s).inOrder(w, safetensors.F32); err != nil {
		t.Fatal(err)
	}
	for _, fails := range []int{0, 1, 5, s.calls / 2, s.calls - 1} {
		l := shelvedSearch(t, rows, columns, rank, &memoryShelf{fails: fails})
		if _, err := l.inOrder(w, safetensors.F32); err != errShelf {
			t.Errorf("after %d calls: got %v", fails, err)
		}
	}
}
