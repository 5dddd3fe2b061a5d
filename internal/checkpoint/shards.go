package checkpoint

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

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

// openShards reads the headers of all shards. Of several errors it returns that
// of the first shard. Shards are left parked.
func (c *Checkpoint) openShards() error {
	c.Shards = make([]*safetensors.File, len(c.ShardNames))
	errs := make([]error, len(c.ShardNames))
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(openers, len(c.ShardNames)) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(errs); i = int(next.Add(1)) - 1 {
				c.Shards[i], errs[i] = c.openShard(c.ShardNames[i])
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

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
