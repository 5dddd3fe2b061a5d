package bundle

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/shards"
	"github.com/tensorpress/tensorpress/internal/source"
	"github.com/tensorpress/tensorpress/internal/usage"
)

// pipelineOf returns the folders that a pipeline's index names and that are
// there, in its order; found tells whether the source is a pipeline.
func pipelineOf(s source.Source) (folders []string, found bool, err error) {
	name := s.Join(s.Path, checkpoint.PipelineFile)
	info, err := s.Stat(s.Path)
	if err != nil && !s.OnDisk() && !errors.Is(err, fs.ErrNotExist) { // it was tried for long
		return nil, false, err
	}
	if err != nil || !info.IsDir() {
		return nil, false, nil // no pipeline; whoever reads it says what else is wrong
	}
	text, err := source.ReadFile(s.Tree, name, checkpoint.MaxText)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, true, err
	}
	if err := shards.Unfinished(s); err != nil { // a component that is not there yet would be left out
		return nil, true, err
	}
	index, err := pyjson.ParseObject(text)
	if err != nil {
		return nil, true, usage.SourceErrorf("%s: %w", name, err)
	}
	for _, entry := range index {
		if !filepath.IsLocal(entry.Key) || strings.ContainsAny(entry.Key, `/\`) {
			continue
		}
		if info, err := s.Stat(s.Join(s.Path, entry.Key)); err == nil && info.IsDir() {
			folders = append(folders, entry.Key)
		}
	}
	return folders, true, nil
}

// denoisers are the beginnings of the names of a pipeline's components that ComfyUI
// loads as diffusion models.
var denoisers = []string{"transformer", "unet"}

// Denoiser returns the one diffusion model of a pipeline, "" for a source that is none.
func Denoiser(s source.Source) (folder string, err error) {
	folders, found, err := pipelineOf(s)
	if !found || err != nil {
		return "", err
	}
	folders = slices.DeleteFunc(folders, func(folder string) bool {
		return !slices.ContainsFunc(denoisers, func(name string) bool { return strings.HasPrefix(folder, name) })
	})
	switch len(folders) {
	case 0:
		return "", usage.Errorf("%s is a pipeline without a %s: name the folder of the component that is meant", s.Path, strings.Join(denoisers, " or "))
	case 1:
		return folders[0], nil
	}
	return "", usage.Errorf("%s is a pipeline with %s: name the folder of the one that is meant, such as %s",
		s.Path, strings.Join(folders, " and "), s.Join(s.Path, folders[0]))
}

// ModelsOf lists the folders of a source that hold weights: those of a
// pipeline's components, or "" for a source that is one model.
func ModelsOf(s source.Source) ([]string, error) {
	folders, found, err := pipelineOf(s)
	if !found || err != nil {
		return []string{""}, err
	}
	var models []string
	for _, name := range folders {
		holds, err := checkpoint.HoldsWeights(s.In(name))
		if err != nil {
			return nil, err
		}
		if holds {
			models = append(models, name)
		}
	}
	if len(models) == 0 {
		return nil, usage.SourceErrorf("%s: no component of the pipeline holds .safetensors weights", s.Path)
	}
	return models, nil
}

// Within is the name of a model's output in that of a pipeline.
func Within(dest, folder string) string {
	if folder == "" {
		return dest
	}
	return filepath.Join(dest, folder)
}

// HoldsWeights counts a folder that cannot be read, which fails where it is opened.
func HoldsWeights(folder source.Source) bool {
	holds, err := checkpoint.HoldsWeights(folder)
	return holds || err != nil && !errors.Is(err, fs.ErrNotExist)
}
