package bundle

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/usage"
)

// pipelineOf returns the folders that a pipeline's index names and that are
// there, in its order; found tells whether the path is a pipeline.
func pipelineOf(path string) (folders []string, found bool, err error) {
	name := filepath.Join(path, checkpoint.PipelineFile)
	if info, err := os.Stat(path); err != nil || !info.IsDir() {
		return nil, false, nil // no pipeline; whoever reads it says what else is wrong
	}
	text, err := checkpoint.ReadFile(name, checkpoint.MaxText)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
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
		if info, err := os.Stat(filepath.Join(path, entry.Key)); err == nil && info.IsDir() {
			folders = append(folders, entry.Key)
		}
	}
	return folders, true, nil
}

// ModelsOf lists the folders of a path that hold weights: those of a
// pipeline's components, or "" for a path that is one model.
func ModelsOf(path string) ([]string, error) {
	folders, found, err := pipelineOf(path)
	if !found || err != nil {
		return []string{""}, err
	}
	var models []string
	for _, name := range folders {
		holds, err := checkpoint.HoldsWeights(filepath.Join(path, name))
		if err != nil {
			return nil, err
		}
		if holds {
			models = append(models, name)
		}
	}
	if len(models) == 0 {
		return nil, usage.SourceErrorf("%s: no component of the pipeline holds .safetensors weights", path)
	}
	return models, nil
}

// Within is the path of one of the models that modelsOf lists.
func Within(path, folder string) string {
	if folder == "" {
		return path
	}
	return filepath.Join(path, folder)
}

// HoldsWeights counts a folder that cannot be read, which fails where it is opened.
func HoldsWeights(folder string) bool {
	holds, err := checkpoint.HoldsWeights(folder)
	return holds || err != nil && !errors.Is(err, fs.ErrNotExist)
}
