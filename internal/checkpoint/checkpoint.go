// Package checkpoint opens a safetensors file, a sharded checkpoint or a model
// folder as one immutable inventory of tensors. It reads no weights by itself.
package checkpoint

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/tensorpress/tensorpress/internal/bodies"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/source"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Tensor is a tensor and the shard that holds it.
type Tensor struct {
	safetensors.Tensor
	Shard int // index into Checkpoint.Shards
	// Gathered is nil but for a tensor that no shard holds as it is.
	Gathered *Gathered
}

// Checkpoint is what a source holds. Its fields must not be changed.
type Checkpoint struct {
	Tree    source.Tree // the files among which the source lies
	Path    string      // as given to Open
	Dir     string      // folder of the weights
	IsDir   bool        // Path is a folder
	Sharded bool        // the weights are a set of shards, even if of one
	// Index is the file name of the weight index, empty if there is none.
	Index string
	// Shards are the weight files, in the order of ShardNames. Read them with
	// ReadSection of the checkpoint, which bounds how many are open.
	Shards     []*Shard
	ShardNames []string // slash paths relative to Dir, ascending
	Tensors    []Tensor // ascending by name
	// Metadata is the metadata of the file. For shards it has the keys whose values are
	// equal in all shards that have the key, and is nil if no shard has metadata.
	Metadata map[string]string
	// IndexMetadata is the "metadata" of the index, nil if there is none.
	IndexMetadata map[string]json.RawMessage
	// Config is the config.json beside the weights, nil if there is none.
	Config pyjson.Object
	// Explicit says that the config itself names the file of the weights.
	Explicit bool
	// Part is set if Path is one shard of a set: its number and their count.
	Part *Part
	// Witness remembers the files beside the shards that were read.
	Witness Witness

	whole string // path of the source of which this is a part, "" if it is no part
	set   *set
	open  openSet
}

// Part is one shard of several.
type Part struct{ Number, Of int }

// Open reads the inventory of a source: a .safetensors file, a weight index
// (*.safetensors.index.json), or a folder that holds either. The error is [ErrSource]
// if the source is not a valid checkpoint.
func Open(s source.Source) (*Checkpoint, error) { return open(newCheckpoint(s)) }

// OpenPart opens a folder of a source, "" for the whole source. Links among the
// folder's other files may lead anywhere within the source.
func OpenPart(s source.Source, folder string) (*Checkpoint, error) {
	c := newCheckpoint(s.In(folder))
	if folder != "" {
		c.whole = s.Path
	}
	return open(c)
}

func newCheckpoint(s source.Source) *Checkpoint {
	return &Checkpoint{Tree: s.Tree, Path: s.Path, Witness: Witness{Tree: s.Tree}}
}

// beside returns the path of a file beside the weights.
func (c *Checkpoint) beside(name string) string { return c.Tree.Join(c.Dir, name) }

// Beside returns a file beside the weights.
func (c *Checkpoint) Beside(name string) source.Source {
	return source.Source{Tree: c.Tree, Path: c.beside(name)}
}

func open(c *Checkpoint) (*Checkpoint, error) {
	if err := c.locate(); err != nil {
		return nil, err
	}
	if err := c.load(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *Checkpoint) load() error {
	idx, err := c.openAll()
	if err != nil {
		return err
	}
	if err := c.list(idx); err != nil {
		return err
	}
	c.Metadata = mergeMetadata(c.Shards)
	for _, f := range c.Shards {
		f.header.Tensors = nil // c.Tensors holds them now
	}
	return nil
}

// openAll opens all shards. Shards that an index lists are opened while the rest of the
// index is still being read.
func (c *Checkpoint) openAll() (idx *index, err error) {
	opening := newOpening(c.openShard)
	for _, name := range c.ShardNames {
		opening.add(name)
	}
	if c.Index != "" {
		if idx, err = c.readIndex(opening.add); err == nil {
			c.IndexMetadata = idx.metadata
		}
	}
	var of error
	c.ShardNames, c.Shards, of = opening.finish()
	return idx, cmp.Or(err, of)
}

// list gathers the tensors of all shards and makes sure that the index, if there
// is one, lists them.
func (c *Checkpoint) list(idx *index) error {
	if idx != nil && c.follow(idx) {
		return nil
	}
	if err := c.collect(); err != nil || idx == nil {
		return err
	}
	return c.compare(idx)
}

// follow lists the tensors in the order of the index. It reports true if the shards
// have the same tensors in that order: then nothing needs sorting or comparing.
func (c *Checkpoint) follow(idx *index) bool {
	left, numbers := make([][]safetensors.Tensor, len(c.Shards)), make(map[string]int, len(c.Shards))
	n := 0
	for i, name := range c.ShardNames {
		left[i], numbers[name] = c.Shards[i].header.Tensors, i
		n += len(left[i])
	}
	if n != len(idx.entries) {
		return false
	}
	c.Tensors = make([]Tensor, 0, n)
	shard := 0
	for i, e := range idx.entries {
		if i == 0 || e.file != idx.entries[i-1].file {
			shard = numbers[e.file]
		}
		if rest := left[shard]; len(rest) == 0 || rest[0].Name != e.tensor {
			return false
		}
		c.Tensors = append(c.Tensors, Tensor{Tensor: left[shard][0], Shard: shard})
		left[shard] = left[shard][1:]
	}
	return true
}

// collect gathers the tensors of all shards; a name in two shards is an error.
func (c *Checkpoint) collect() error {
	n := 0
	for _, f := range c.Shards {
		n += len(f.header.Tensors)
	}
	c.Tensors = make([]Tensor, 0, n)
	for shard, f := range c.Shards {
		for _, t := range f.header.Tensors {
			c.Tensors = append(c.Tensors, Tensor{Tensor: t, Shard: shard})
		}
	}
	c.Tensors = sorted(c.Tensors)
	for i := 1; i < len(c.Tensors); i++ {
		if a, b := c.Tensors[i-1], c.Tensors[i]; a.Name == b.Name {
			return usage.SourceErrorf("%s: tensor %.200q is in two shards, %q and %q",
				c.Dir, a.Name, c.ShardNames[a.Shard], c.ShardNames[b.Shard])
		}
	}
	return nil
}

// sorted returns tensors by name, and by shard where names are the same. It sorts their
// positions, because a Tensor is large to move.
func sorted(tensors []Tensor) []Tensor {
	byName := func(a, b Tensor) int { return strings.Compare(a.Name, b.Name) }
	if slices.IsSortedFunc(tensors, byName) {
		return tensors
	}
	places := make([]int32, len(tensors))
	for i := range places {
		places[i] = int32(i)
	}
	slices.SortFunc(places, func(a, b int32) int {
		return cmp.Or(strings.Compare(tensors[a].Name, tensors[b].Name), cmp.Compare(a, b))
	})
	all := make([]Tensor, len(tensors))
	for i, place := range places {
		all[i] = tensors[place]
	}
	return all
}

// compare makes sure that the index and the shards list the same tensors in the same
// files.
func (c *Checkpoint) compare(idx *index) error {
	path := c.beside(c.Index)
	tensors := c.Tensors
	for _, e := range idx.entries {
		if len(tensors) > 0 && tensors[0].Name < e.tensor {
			break // a tensor that the index does not list
		}
		if len(tensors) == 0 || tensors[0].Name > e.tensor {
			return usage.SourceErrorf("%s: maps tensor %.200q to %q, which does not hold it", path, e.tensor, e.file)
		}
		if holder := c.ShardNames[tensors[0].Shard]; holder != e.file {
			return usage.SourceErrorf("%s: maps tensor %.200q to %q, but %q holds it", path, e.tensor, e.file, holder)
		}
		tensors = tensors[1:]
	}
	if len(tensors) > 0 {
		return usage.SourceErrorf("%s: does not list tensor %.200q of %q", path, tensors[0].Name, c.ShardNames[tensors[0].Shard])
	}
	return nil
}

// mergeMetadata keeps the keys whose values are equal in all files that have the key.
func mergeMetadata(files []*Shard) map[string]string {
	var merged map[string]string
	disputed := map[string]bool{}
	for _, f := range files {
		metadata := f.header.Metadata
		if metadata != nil && merged == nil {
			merged = make(map[string]string, len(metadata))
		}
		for key, value := range metadata {
			if old, ok := merged[key]; ok && old != value {
				disputed[key] = true
			}
			merged[key] = value
		}
	}
	for key := range disputed {
		delete(merged, key)
	}
	return merged
}

func (c *Checkpoint) loadConfig() error {
	text, err := c.ReadBeside(configFile)
	if text == nil || err != nil {
		return err
	}
	if c.Config, err = pyjson.ParseObject(text); err != nil && c.IsModel() {
		return usage.SourceErrorf("%s: %w", c.beside(configFile), err)
	}
	return nil
}

// ReadBeside reads a file beside the weights; it returns nil if there is none.
func (c *Checkpoint) ReadBeside(name string) ([]byte, error) {
	text, err := c.Witness.ReadFile(c.beside(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return text, err
}

// root returns the folder that links must not leave.
func (c *Checkpoint) root() string { return cmp.Or(c.whole, c.Dir) }

// Stem returns the name under which loaders look for the weights: the file name without
// its ending and without the numbers of shards.
func (c *Checkpoint) Stem() string {
	if c.set.variant == "" {
		return c.set.stem
	}
	return c.set.stem + "." + c.set.variant
}

// Variant returns the variant that a loader must be asked for to find the weights, such
// as "fp16", and "" if it finds them without being asked.
func (c *Checkpoint) Variant() string { return c.set.variant }

// Named returns the file name that loaders look for in the folder: that of the weights
// or of their index.
func (c *Checkpoint) Named() string { return c.set.files[0] }

// IndexName returns the file name under which loaders look for an index of the weights.
func (c *Checkpoint) IndexName() string {
	if c.set.variant == "" {
		return c.set.stem + indexSuffix
	}
	return c.set.stem + weightSuffix + ".index." + c.set.variant + ".json"
}

// Stamps are those of all files that were read, of which the shards come first, each with
// its name in the folder of the weights.
func (c *Checkpoint) Stamps() (all []string) {
	for i, f := range c.Shards {
		all = append(all, fmt.Sprintf("%q %s", c.ShardNames[i], source.Stamp(f.info)))
	}
	return append(all, c.Witness.Stamps(c.Dir)...)
}

// Unchanged returns an [ErrSource] if a file that was read has changed since.
func (c *Checkpoint) Unchanged() error {
	for _, f := range c.Shards {
		if err := unchanged(c.Tree, f.path, f.info); err != nil {
			return err
		}
	}
	return c.Witness.Unchanged()
}

// IsModel reports whether the source is a folder or a weight index, so that the files
// beside the weights belong to the model. Files beside a single file may belong to
// anything.
func (c *Checkpoint) IsModel() bool { return c.IsDir || c.Index != "" }

// Lookup returns the tensor of that name.
func (c *Checkpoint) Lookup(name string) (Tensor, bool) {
	i, ok := c.search(name)
	if !ok {
		return Tensor{}, false
	}
	return c.Tensors[i], true
}

// Under returns the tensors whose names begin with the prefix, as a part of c.Tensors.
func (c *Checkpoint) Under(prefix string) []Tensor {
	from, _ := c.search(prefix)
	to := from
	for to < len(c.Tensors) && strings.HasPrefix(c.Tensors[to].Name, prefix) {
		to++
	}
	return c.Tensors[from:to:to]
}

// search returns the position of the tensor of that name in c.Tensors, or the position
// where it would stand.
func (c *Checkpoint) search(name string) (int, bool) {
	return slices.BinarySearchFunc(c.Tensors, name, func(t Tensor, name string) int {
		return strings.Compare(t.Name, name)
	})
}

// ReadSection fills p from the body of t, beginning off bytes into it. It is
// safe for concurrent use. Errors name the file and the tensor: those of
// [safetensors.Header.Section], and an [ErrSource] for a shard that changed after
// Open or ends too early.
func (c *Checkpoint) ReadSection(t Tensor, p []byte, off int64) error {
	if t.Gathered != nil {
		return c.readGathered(t, p, off)
	}
	if t.Shard < 0 || t.Shard >= len(c.Shards) {
		return fmt.Errorf("tensor %.200q: shard %d of %d: %w", t.Name, t.Shard, len(c.Shards), safetensors.ErrRange)
	}
	c.open.use(t.Shard)
	err := c.Shards[t.Shard].readSection(t.Tensor, p, off)
	return errors.Join(asSource(err), c.open.release(t.Shard, c.Shards))
}

// CopySection copies n bytes of t, beginning off bytes into it, to the same offset in
// tensor dst of a file that is being written. The system copies them if it can, else
// they are read and written. t must lie in a shard. Errors are those of ReadSection and of writing.
func (c *Checkpoint) CopySection(t Tensor, to *bodies.Writer, dst safetensors.Tensor, off int64, n int) error {
	c.open.use(t.Shard)
	err := c.Shards[t.Shard].copySection(t.Tensor, to, dst, off, n)
	return errors.Join(asSource(err), c.open.release(t.Shard, c.Shards))
}

// File returns the path of the file that holds t, for messages.
func (c *Checkpoint) File(t Tensor) string { return c.Shards[t.Shard].path }

// Close closes the weight files.
func (c *Checkpoint) Close() error {
	var errs []error
	for _, f := range c.Shards {
		if f != nil {
			errs = append(errs, f.close())
		}
	}
	return errors.Join(errs...)
}

// BytesOf returns the total size of tensors in bytes.
func BytesOf(tensors []Tensor) (n int64) {
	for _, t := range tensors {
		n += t.Size
	}
	return n
}
