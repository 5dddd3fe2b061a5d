package checkpoint

import (
	"errors"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"sync"

	"github.com/tensorpress/tensorpress/safetensors"
)

const (
	// maxOpen is how many shards stay open: ordinary limits are 256 to 1024
	// descriptors, and the output takes some too.
	maxOpen = 64
	// openers is how many headers are read at a time; on a network disk each
	// takes a round trip.
	openers = 16
)

// opening reads the headers of shards while further ones become known.
type opening struct {
	open  func(name string) (*safetensors.File, error)
	names chan string
	known map[string]bool
	busy  sync.WaitGroup

	mu    sync.Mutex
	files map[string]*safetensors.File
	errs  map[string]error
}

func newOpening(open func(name string) (*safetensors.File, error)) *opening {
	return &opening{
		open: open, names: make(chan string, openers), known: map[string]bool{},
		files: map[string]*safetensors.File{}, errs: map[string]error{},
	}
}

// add has a shard opened, once.
func (o *opening) add(name string) {
	if o.known[name] {
		return
	}
	if len(o.known) < openers {
		o.busy.Go(o.work)
	}
	o.known[name] = true
	o.names <- name
}

func (o *opening) work() {
	for name := range o.names {
		f, err := o.open(name)
		o.mu.Lock()
		o.files[name], o.errs[name] = f, err
		o.mu.Unlock()
	}
}

// finish returns all shards by name once they are open, nil those that could not
// be, and the error of the first of them.
func (o *opening) finish() (names []string, files []*safetensors.File, first error) {
	close(o.names)
	o.busy.Wait()
	names = slices.Sorted(maps.Keys(o.known))
	for _, name := range names {
		files = append(files, o.files[name])
		if first == nil {
			first = o.errs[name]
		}
	}
	return names, files, first
}

// openShard reads the header of a shard and leaves it parked.
func (c *Checkpoint) openShard(name string) (*safetensors.File, error) {
	path := filepath.Join(c.Dir, filepath.FromSlash(name))
	f, err := safetensors.Open(path)
	switch {
	case err == nil:
		return f, f.Park()
	case c.Index != "" && errors.Is(err, fs.ErrNotExist):
		return nil, sourceErrorf("%s: shard %q is missing: %w", filepath.Join(c.Dir, c.Index), name, err)
	}
	return nil, asSource(err)
}

// openSet bounds how many shards are open: it parks the one that was used
// longest ago.
type openSet struct {
	mu     sync.Mutex
	recent []openShard // the latest use last
}

type openShard struct {
	shard int
	users int // reads under way
}

// use keeps a shard from being parked until release.
func (s *openSet) use(shard int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := openShard{shard: shard}
	if i := s.find(shard); i >= 0 {
		o = s.recent[i]
		s.recent = slices.Delete(s.recent, i, i+1)
	}
	o.users++
	s.recent = append(s.recent, o)
}

func (s *openSet) find(shard int) int {
	return slices.IndexFunc(s.recent, func(o openShard) bool { return o.shard == shard })
}

// release ends a use and parks what is too much.
func (s *openSet) release(shard int, files []*safetensors.File) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.recent[s.find(shard)].users--
	for len(s.recent) > maxOpen {
		i := slices.IndexFunc(s.recent, func(o openShard) bool { return o.users == 0 })
		if i < 0 {
			return nil // all are being read from
		}
		idle := s.recent[i].shard
		s.recent = slices.Delete(s.recent, i, i+1)
		if err := files[idle].Park(); err != nil {
			return err
		}
	}
	return nil
}
