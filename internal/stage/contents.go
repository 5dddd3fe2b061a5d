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

// Contents is what a folder consists of that a run makes, as slash paths. With what
// such a folder may hold besides, it is all that --force replaces.
type Contents struct {
	Files []string          // that are written, or copied
	Stems map[string]string // of weights, by the folder of their model, "" for the output itself
}

const pipelineIndex = "model_index.json"

// descriptions are files that tensorpress or a reference program writes beside
// weights.
var descriptions = []string{"config.json", "generation_config.json", "quantization_config.json", pipelineIndex}

// components are files that diffusers and transformers write into the folders that a
// pipeline names.
var components = []string{
	"scheduler_config.json", "preprocessor_config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json",
	"special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "spiece.model", "tokenizer.model",
	"chat_template.jinja",
}

// loaders are stems under which loaders look for weights.
var loaders = []string{"model", "diffusion_pytorch_model"}

// litter are files that file managers leave behind anywhere.
var litter = []string{".DS_Store", "Thumbs.db", "desktop.ini"}

// shardName is what stands behind the stem of weights, or of their index.
var shardName = regexp.MustCompile(`^(-\d{5,9}-of-\d{5,9})?\.safetensors(\.index\.json)?$`)

// rule is what of an old output may be replaced.
type rule struct {
	files, folders map[string]bool
	stems          map[string][]string // by the folder of a model
	named          map[string]bool     // folders that the old pipeline names
}

// ruleFor reads what the old output says of itself. A model takes no pipeline's place.
func (c Contents) ruleFor(folder string) rule {
	r := rule{files: map[string]bool{}, folders: map[string]bool{}, stems: map[string][]string{"": nil}, named: map[string]bool{}}
	if slices.Contains(c.Files, pipelineIndex) {
		for _, name := range namedBy(folder) {
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

// above lets the folders in that a file lies in.
func (r rule) above(name string) {
	for dir := path.Dir(name); dir != "." && dir != "/"; dir = path.Dir(dir) {
		r.folders[dir] = true
	}
}

// namedBy are the folders that a pipeline's index names.
func namedBy(folder string) (names []string) {
	path := filepath.Join(folder, pipelineIndex)
	if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() { // to open a pipe would be to wait for ever
		return nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	var entries map[string]json.RawMessage
	if json.Unmarshal(text, &entries) != nil {
		return nil // it names nothing
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

// areWeights tells weights of a stem, or their index. That of a variant, whose stem is
// model.fp16, has the variant near its end.
func areWeights(name, stem string) bool {
	if rest, ok := strings.CutPrefix(name, stem); ok && shardName.MatchString(rest) {
		return true
	}
	model, variant, ok := strings.Cut(stem, ".")
	return ok && name == model+".safetensors.index."+variant+".json"
}

// strays are what a folder holds that is no part of an output.
func (c Contents) strays(folder string) (names []string, err error) {
	r := c.ruleFor(folder)
	err = fs.WalkDir(os.DirFS(folder), ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil || name == ".":
			return err
		case system.isMount(filepath.Join(folder, filepath.FromSlash(name))): // what is removed there is gone elsewhere
			names = append(names, name+" (where a disk is mounted)")
			return skipFolder(entry)
		case entry.IsDir() && r.folders[name]:
			return nil
		case entry.IsDir():
			names = append(names, name+"/")
			return fs.SkipDir
		case !entry.Type().IsRegular() || !r.allows(name): // nothing that we write is a link
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

// checkContents lets --force replace outputs alone: a mistyped name must not take
// other things with it.
func (c Contents) checkContents(dest, folder string) error {
	strays, err := c.strays(folder)
	if err != nil || len(strays) == 0 {
		return inside(err, folder, dest)
	}
	return usage.Existsf("%s exists and is no model folder that `Force` replaces: it holds %s, which is no part of an output: move that away, or name another destination",
		dest, list(strays))
}

// inside gives an error of a walk, which knows its own names alone, the whole path.
func inside(err error, folder, dest string) error {
	var of *fs.PathError
	if errors.As(err, &of) {
		return &fs.PathError{Op: of.Op, Path: filepath.Join(dest, strings.TrimPrefix(of.Path, folder)), Err: of.Err}
	}
	return err
}

// list is names as they appear in messages.
func list(names []string) string {
	const most = 4
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}
