package checkpoint

import (
	"errors"
	"io/fs"
	"maps"
	"slices"
	"sync"

	"github.com/tensorpress/tensorpress/internal/openfiles"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/safetensors"
)

// maxOpen is the most shards that stay open.
var maxOpen = openfiles.Most()

// openers is how many headers are read at the same time; on a network disk each takes a
// round trip.
var openers = min(16, maxOpen)

// opening reads the headers of shards while the index is still naming further ones.
type opening struct {
	open   func(name string) (*Shard, error)
	shards map[string]*shard
	queue  chan *shard
	busy   sync.WaitGroup
}

// shard is an opened file, or the error of opening it.
type shard struct {
	name string
	file *Shard
	err  error
}

func newOpening(open func(name string) (*Shard, error)) *opening {
	return &opening{open: open, shards: map[string]*shard{}, queue: make(chan *shard, openers)}
}

// add starts opening a shard, unless it was added before.
func (o *opening) add(name string) {
	if o.shards[name] != nil {
		return
	}
	if len(o.shards) < openers {
		o.busy.Go(o.work)
	}
	s := &shard{name: name}
	o.shards[name] = s
	o.queue <- s
}

func (o *opening) work() {
	for s := range o.queue {
		s.file, s.err = o.open(s.name)
	}
}

// finish waits until all shards are open and returns them by name, nil for those that
// could not be opened, and the first of their errors in that order.
func (o *opening) finish() (names []string, files []*Shard, first error) {
	close(o.queue)
	o.busy.Wait()
	names = slices.Sorted(maps.Keys(o.shards))
	for _, name := range names {
		s := o.shards[name]
		files = append(files, s.file)
		if first == nil {
			first = s.err
		}
	}
	return names, files, first
}

// openShard reads the header of a shard and leaves it parked.
func (c *Checkpoint) openShard(name string) (*Shard, error) {
	path := c.beside(name)
	f, err := newShard(c.Tree, path)
	switch {
	case err == nil:
		return f, f.park()
	case c.Index != "" && errors.Is(err, fs.ErrNotExist):
		return nil, usage.SourceErrorf("%s: shard %q is missing: %w", c.beside(c.Index), name, err)
	case errors.Is(err, safetensors.ErrFormat):
		if what := foreignContent(c.Tree, path); what != "" {
			return nil, usage.SourceErrorf("%s: is no safetensors file: it is %s", path, what)
		}
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

// release ends a use, and parks shards while more than maxOpen are open.
func (s *openSet) release(shard int, files []*Shard) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.recent[s.find(shard)].users--
	for len(s.recent) > maxOpen {
		i := slices.IndexFunc(s.recent, func(o openShard) bool { return o.users == 0 })
		if i < 0 {
			return nil // every open shard is being read
		}
		idle := s.recent[i].shard
		s.recent = slices.Delete(s.recent, i, i+1)
		if err := files[idle].park(); err != nil {
			return err
		}
	}
	return nil
}
