package checkpoint

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const (
	weightSuffix = ".safetensors"
	indexSuffix  = ".safetensors.index.json"
	pipelineFile = "model_index.json"
)

// stems are the names that weights have in a folder, the first one preferred.
var stems = []string{"model", "diffusion_pytorch_model"}

// source is where the weights of a path are.
type source struct {
	dir     string
	isDir   bool
	sharded bool
	index   string   // file name in dir
	shards  []string // file names in dir, unless index lists them
}

// locate finds the weights that path stands for.
func locate(path string) (source, error) {
	info, err := os.Stat(path)
	if err != nil {
		return source{}, err
	}
	if info.IsDir() {
		return locateInDir(path)
	}
	dir, name := filepath.Dir(path), filepath.Base(path)
	switch {
	case hasSuffix(name, weightSuffix):
		return source{dir: dir, shards: []string{name}}, nil
	case hasSuffix(name, indexSuffix):
		return source{dir: dir, sharded: true, index: name}, nil
	case name == pipelineFile:
		return source{}, pipelineError(dir)
	}
	return source{}, foreignError(path, name)
}

func hasSuffix(name, suffix string) bool {
	return strings.HasSuffix(strings.ToLower(name), suffix)
}

func pipelineError(dir string) error {
	return sourceErrorf("%s: is a diffusers pipeline (%s): name the folder of a component, such as its transformer or unet",
		dir, pipelineFile)
}

// foreignError says what to do about a file of another format.
func foreignError(path, name string) error {
	switch {
	case isPickle(name):
		return sourceErrorf("%s: is a pickle checkpoint, which is not read because loading it can run code: convert it to safetensors first", path)
	case hasSuffix(name, ".gguf"):
		return sourceErrorf("%s: GGUF is not supported: start from the safetensors checkpoint it was made of", path)
	}
	return sourceErrorf("%s: want a %s file, a %s file or a folder that holds one", path, weightSuffix, "*"+indexSuffix)
}

func isPickle(name string) bool {
	for _, suffix := range []string{".ckpt", ".pt", ".pth", ".bin", ".bin.index.json"} {
		if hasSuffix(name, suffix) {
			return true
		}
	}
	return false
}

// locateInDir prefers an index to files, and usual names to others.
func locateInDir(dir string) (source, error) {
	names, err := fileNames(dir)
	if err != nil {
		return source{}, err
	}
	if slices.Contains(names, pipelineFile) {
		return source{}, pipelineError(dir)
	}
	src := source{dir: dir, isDir: true}
	if indexes := withSuffix(names, indexSuffix); len(indexes) > 0 {
		src.sharded = true
		src.index, err = choose(dir, indexes, indexSuffix)
		return src, err
	}
	weights := withSuffix(names, weightSuffix)
	if len(weights) == 0 {
		return source{}, noWeightsError(dir, names)
	}
	if set, ok, err := shardSet(dir, weights); ok || err != nil {
		src.sharded, src.shards = true, set
		return src, err
	}
	name, err := choose(dir, weights, weightSuffix)
	src.shards = []string{name}
	return src, err
}

// fileNames are the names in dir that are neither folders nor hidden, ascending.
// Links count: model caches are made of them.
func fileNames(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
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

func withSuffix(names []string, suffix string) []string {
	var found []string
	for _, name := range names {
		if hasSuffix(name, suffix) {
			found = append(found, name)
		}
	}
	return found
}

// choose returns the file of the usual name, or else the only one.
func choose(dir string, names []string, suffix string) (string, error) {
	for _, stem := range stems {
		if slices.Contains(names, stem+suffix) {
			return stem + suffix, nil
		}
	}
	if len(names) == 1 {
		return names[0], nil
	}
	return "", sourceErrorf("%s: holds %s, and nothing says which to take: name one of them", dir, list(names))
}

// list is names as they appear in messages.
func list(names []string) string {
	const most = 8
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

func noWeightsError(dir string, names []string) error {
	for _, name := range names {
		if isPickle(name) || hasSuffix(name, ".gguf") {
			return sourceErrorf("no %s file in the folder: %w", weightSuffix, foreignError(filepath.Join(dir, name), name))
		}
	}
	return sourceErrorf("%s: no %s file in the folder", dir, weightSuffix)
}

var shardName = regexp.MustCompile(`^(.+)-(\d{1,9})-of-(\d{1,9})\.safetensors$`)

// shardSet reports whether names are numbered shards of one set, which some
// tools save without an index. A set that is not whole is an error.
func shardSet(dir string, names []string) ([]string, bool, error) {
	var stem, of string
	seen := map[int]bool{}
	for i, name := range names {
		m := shardName.FindStringSubmatch(name)
		if m == nil || i > 0 && (m[1] != stem || m[3] != of) {
			return nil, false, nil
		}
		stem, of = m[1], m[3]
		n, _ := strconv.Atoi(m[2]) // at most nine digits
		seen[n] = true
	}
	count, _ := strconv.Atoi(of)
	for n := 1; n <= count; n++ {
		if !seen[n] {
			return nil, false, sourceErrorf("%s: shard %d of %d is missing, and there is no index: it holds %s", dir, n, count, list(names))
		}
	}
	if len(names) != count {
		return nil, false, sourceErrorf("%s: want %d shards, got %d: it holds %s", dir, count, len(names), list(names))
	}
	return names, true, nil
}
