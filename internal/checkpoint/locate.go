package checkpoint

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tensorpress/tensorpress/internal/shards"
	"github.com/tensorpress/tensorpress/internal/source"
	"github.com/tensorpress/tensorpress/internal/usage"
)

const (
	weightSuffix = ".safetensors"
	indexSuffix  = ".safetensors.index.json"
	configFile   = "config.json"
)

// PipelineFile is the file that names the components of a diffusers pipeline.
const PipelineFile = "model_index.json"

// plainly drops the name of the system call from the error of a path.
func plainly(err error) error {
	if call, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("%s: %w", call.Path, call.Err)
	}
	return err
}

// locate finds the weights that c.Path names, and reads the config beside them.
func (c *Checkpoint) locate() error {
	info, err := c.Tree.Stat(c.Path)
	if c.Tree.OnDisk() && errors.Is(err, fs.ErrNotExist) {
		return cmp.Or(shards.NotPlaced(c.Path), plainly(err))
	}
	if err != nil {
		return plainly(err)
	}
	if info.IsDir() {
		return c.locateInDir()
	}
	if err := source.CheckRegular(c.Path, info); err != nil {
		return err
	}
	folder, name := c.Tree.Split(c.Path)
	if c.Dir = folder; c.Tree.OnDisk() {
		c.Dir = filepath.Clean(straight(cmp.Or(folder, ".")))
	}
	s, number, ok := parseName(name)
	switch {
	case name == PipelineFile:
		return pipelineError(c.Dir)
	case !ok:
		return foreignError(c.Path, name)
	case s.kind == numbered && s.of > 1:
		c.Part = &Part{number, s.of}
	}
	if s.kind != indexed { // read alone, even if its name is that of a shard
		s.kind = single
	}
	c.take(&s)
	return c.loadConfig()
}

// straight returns a path of the folder that means the same to the system and to
// [filepath.Clean]. They disagree about a path in which ".." follows a link.
func straight(folder string) string {
	a, errA := os.Stat(folder)
	b, errB := os.Stat(filepath.Clean(folder))
	if errA == nil && errB == nil && os.SameFile(a, b) {
		return folder
	}
	if real, err := filepath.EvalSymlinks(folder); err == nil {
		return real
	}
	return folder
}

// take makes the set the weights of the checkpoint.
func (c *Checkpoint) take(s *set) {
	c.set = s
	c.Sharded = s.kind != single
	if s.kind == indexed {
		c.Index = s.files[0]
	} else {
		c.ShardNames = s.files
	}
}

func hasSuffix(name, suffix string) bool {
	return strings.HasSuffix(strings.ToLower(name), suffix)
}

func pipelineError(dir string) error {
	return usage.SourceErrorf("%s: is a diffusers pipeline (%s): name the folder of a component, such as its transformer or unet",
		dir, PipelineFile)
}

// foreignError says what to do about a file of another format.
func foreignError(path, name string) error {
	switch {
	case isPickle(name):
		return usage.SourceErrorf("%s: is a pickle checkpoint, which is not read because loading it can run code: convert it to safetensors first", path)
	case hasSuffix(name, ".gguf"):
		return usage.SourceErrorf("%s: GGUF is not supported: start from the safetensors checkpoint it was made of", path)
	}
	return usage.SourceErrorf("%s: want a %s file, a %s file or a folder that holds one", path, weightSuffix, "*"+indexSuffix)
}

func isPickle(name string) bool {
	for _, suffix := range []string{".ckpt", ".pt", ".pth", ".bin", ".bin.index.json"} {
		if hasSuffix(name, suffix) {
			return true
		}
	}
	return false
}

// locateInDir takes the weights that the config names, or else those that the folder's
// loader would take.
func (c *Checkpoint) locateInDir() error {
	if err := shards.Unfinished(source.Source{Tree: c.Tree, Path: cmp.Or(c.whole, c.Path)}); err != nil {
		return err
	}
	c.Dir, c.IsDir = c.Path, true
	if c.Tree.OnDisk() {
		c.Dir = straight(c.Path)
	}
	names, err := fileNames(c.Tree, c.Dir)
	if err != nil {
		return err
	}
	if slices.Contains(names, PipelineFile) {
		return pipelineError(c.Dir)
	}
	if err := c.loadConfig(); err != nil {
		return err
	}
	s, err := c.explicitSet()
	c.Explicit = s != nil
	if s == nil && err == nil {
		sets := setsOf(names)
		if len(sets) == 0 {
			return c.noWeights(names)
		}
		s, err = chooseSet(c.Dir, sets, c.Config)
	}
	if err == nil && s.kind == numbered {
		err = s.checkNumbers(c.Dir)
	}
	if err == nil {
		c.take(s)
	}
	return err
}

// fileNames returns the names in dir, ascending, without folders and hidden files.
// Links are included: model caches consist of them.
func fileNames(t source.Tree, dir string) ([]string, error) {
	entries, err := t.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, entry := range entries {
		if !entry.IsDir() && !strings.HasPrefix(entry.Name(), ".") {
			names = append(names, entry.Name())
		}
	}
	return names, nil
}

// HoldsWeights reports whether a folder has weights that can be read.
func HoldsWeights(folder source.Source) (bool, error) {
	names, err := fileNames(folder.Tree, folder.Path)
	return len(setsOf(names)) > 0, err
}

// ListNames joins names for a message.
func ListNames(names []string) string {
	const most = 8
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

func (c *Checkpoint) noWeights(names []string) error {
	if c.Tree.OnDisk() {
		if err := cacheError(c.Dir); err != nil {
			return err
		}
	}
	for _, name := range names {
		if isPickle(name) || hasSuffix(name, ".gguf") {
			return usage.SourceErrorf("no %s file in the folder: %w", weightSuffix, foreignError(c.beside(name), name))
		}
	}
	return usage.SourceErrorf("%s: no %s file in the folder", c.Dir, weightSuffix)
}

// cacheError tells the user which folder to name in place of a repository's folder in a
// hub's cache. It returns nil for any other folder.
func cacheError(dir string) error {
	snapshots := filepath.Join(dir, "snapshots")
	if filepath.Base(dir) == "snapshots" {
		dir, snapshots = filepath.Dir(dir), dir
	}
	entries, err := os.ReadDir(snapshots)
	if err != nil || !hubFolder.MatchString(filepath.Base(absolute(dir))) {
		return nil
	}
	var names []string
	for _, e := range entries {
		names = append(names, filepath.Join(snapshots, e.Name()))
	}
	if main, err := ReadFile(filepath.Join(dir, "refs", "main"), 1000); err == nil {
		if name := filepath.Join(snapshots, strings.TrimSpace(string(main))); slices.Contains(names, name) {
			names = []string{name}
		}
	}
	if len(names) == 0 {
		return usage.SourceErrorf("%s: is the folder of a hub's cache and holds no snapshot: download the model again", dir)
	}
	return usage.SourceErrorf("%s: is the folder of a hub's cache: take the model in it, %s", dir, strings.Join(names, " or "))
}

func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}
