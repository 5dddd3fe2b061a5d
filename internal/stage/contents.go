package stage

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/tensorpress/tensorpress/internal/usage"
)

// Contents lists what an output folder consists of, as slash paths. --force replaces a
// folder only if it holds nothing but this and what rule allows.
type Contents struct {
	Files []string          // files that the run writes or copies
	Stems map[string]string // stems of weights by the folder of their model, "" for the output itself
}

const pipelineIndex = "model_index.json"

// descriptions are files that tensorpress or a reference program writes beside weights.
var descriptions = []string{"config.json", "generation_config.json", "quantization_config.json", pipelineIndex}

// components are files that diffusers and transformers write into the folders of a
// pipeline's components.
var components = []string{
	"scheduler_config.json", "preprocessor_config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json",
	"special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "spiece.model", "tokenizer.model",
	"chat_template.jinja",
}

// loaders are stems under which loaders look for weights.
var loaders = []string{"model", "diffusion_pytorch_model"}

// litter are files that file managers leave in any folder.
var litter = []string{".DS_Store", "Thumbs.db", "desktop.ini"}

// shardName matches what follows the stem in the file names of weights and of their
// index.
var shardName = regexp.MustCompile(`^(-\d{5,9}-of-\d{5,9})?\.safetensors(\.index\.json)?$`)

// rule says which files and folders of an old output may be replaced.
type rule struct {
	files, folders map[string]bool
	stems          map[string][]string // stems of weights, by the folder of a model
	named          map[string]bool     // folders that the old pipeline names
}

// ruleFor returns the rule for an old output with that index. The index of an old pipeline counts only
// if the new output is a pipeline as well: a model must not replace a pipeline.
func (c Contents) ruleFor(index []byte) rule {
	r := rule{files: map[string]bool{}, folders: map[string]bool{}, stems: map[string][]string{"": nil}, named: map[string]bool{}}
	if slices.Contains(c.Files, pipelineIndex) {
		for _, name := range namedBy(index) {
			r.named[name], r.folders[name], r.stems[name] = true, true, loaders
		}
	}
	for name, stem := range c.Stems {
		r.stems[name] = append(slices.Clip(r.stems[name]), stem)
		r.above(name + "/x")
	}
	for _, name := range c.Files {
		r.files[name] = true
		r.above(name)
	}
	return r
}

// above allows the folders in which a file lies.
func (r rule) above(name string) {
	for dir := path.Dir(name); dir != "." && dir != "/"; dir = path.Dir(dir) {
		r.folders[dir] = true
	}
}

// indexOf reads the index of a pipeline, nil where there is none.
func indexOf(folder string) []byte {
	path := filepath.Join(folder, pipelineIndex)
	if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() { // opening a FIFO would wait for ever
		return nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	return text
}

// namedBy returns the folders that a pipeline's index names.
func namedBy(text []byte) (names []string) {
	var entries map[string]json.RawMessage
	if json.Unmarshal(text, &entries) != nil {
		return nil // not an index
	}
	for name, value := range entries {
		var classes []any // the library and the class
		if filepath.IsLocal(name) && !strings.ContainsAny(name, `/\`) && json.Unmarshal(value, &classes) == nil && len(classes) == 2 {
			names = append(names, name)
		}
	}
	return names
}

func (r rule) allows(name string) bool {
	dir, base := path.Split(name)
	dir = strings.TrimSuffix(dir, "/")
	switch {
	case r.files[name] || slices.Contains(litter, base):
		return true
	case r.named[dir] && slices.Contains(components, base):
		return true
	}
	stems, ofModel := r.stems[dir]
	return ofModel && (slices.Contains(descriptions, base) || slices.ContainsFunc(stems, func(stem string) bool { return areWeights(base, stem) }))
}

// areWeights reports whether name is that of weights with the stem, or of their index.
// For a variant, whose stem is like model.fp16, an index may have the variant near its
// end.
func areWeights(name, stem string) bool {
	if rest, ok := strings.CutPrefix(name, stem); ok && shardName.MatchString(rest) {
		return true
	}
	model, variant, ok := strings.Cut(stem, ".")
	return ok && name == model+".safetensors.index."+variant+".json"
}

// strays returns the files and folders in a folder that are no part of an output.
func (c Contents) strays(folder string) (names []string, err error) {
	r := c.ruleFor(indexOf(folder))
	err = fs.WalkDir(os.DirFS(folder), ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil || name == ".":
			return err
		case system.isMount(filepath.Join(folder, filepath.FromSlash(name))): // removing files on the disk would remove them from elsewhere
			names = append(names, name+" (where a disk is mounted)")
			return skipFolder(entry)
		case entry.IsDir() && r.folders[name]:
			return nil
		case entry.IsDir():
			names = append(names, name+"/")
			return fs.SkipDir
		case !entry.Type().IsRegular() || !r.allows(name): // outputs contain no links
			names = append(names, name)
		}
		return nil
	})
	return names, err
}

func skipFolder(entry fs.DirEntry) error {
	if entry.IsDir() {
		return fs.SkipDir
	}
	return nil
}

// checkContents refuses to replace a folder that is not an output, because a mistyped
// name must not delete other things.
func (c Contents) checkContents(dest, folder string) error {
	strays, err := c.strays(folder)
	if err != nil || len(strays) == 0 {
		return inside(err, folder, dest)
	}
	return inTheWay(dest, strays)
}

// CheckNames refuses to replace what a store has under a destination's name, by the names
// of the files there and the text of a pipeline's index among them.
func (c Contents) CheckNames(dest string, names []string, index []byte) error {
	r := c.ruleFor(index)
	strays := slices.DeleteFunc(slices.Clone(names), r.allows)
	if len(strays) == 0 {
		return nil
	}
	return inTheWay(dest, strays)
}

func inTheWay(dest string, strays []string) error {
	return usage.Existsf("%s exists and is no model folder that `Force` replaces: it holds %s, which is no part of an output: move that away, or name another destination",
		dest, list(strays))
}

// inside puts the whole path into an error of a walk, which knows only names within the
// folder.
func inside(err error, folder, dest string) error {
	var of *fs.PathError
	if errors.As(err, &of) {
		return &fs.PathError{Op: of.Op, Path: filepath.Join(dest, strings.TrimPrefix(of.Path, folder)), Err: of.Err}
	}
	return err
}

// list joins names for a message.
func list(names []string) string {
	const most = 4
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}
