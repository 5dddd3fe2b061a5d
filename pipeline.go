package tensorpress

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/report"
)

// pipelineIndex names the components of a diffusers pipeline.
const pipelineIndex = "model_index.json"

// pipelineOf returns the folders that a pipeline's index names and that are
// there, in its order; found tells whether the path is a pipeline.
func pipelineOf(path string) (folders []string, found bool, err error) {
	name := filepath.Join(path, pipelineIndex)
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

// modelsOf lists the folders of a path that hold weights: those of a
// pipeline's components, or "" for a path that is one model.
func modelsOf(path string) ([]string, error) {
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

// within is the path of one of the models that modelsOf lists.
func within(path, folder string) string {
	if folder == "" {
		return path
	}
	return filepath.Join(path, folder)
}

// holdsWeights counts a folder that cannot be read, which fails where it is opened.
func holdsWeights(folder string) bool {
	holds, err := checkpoint.HoldsWeights(folder)
	return holds || err != nil && !errors.Is(err, fs.ErrNotExist)
}

// verificationParts prepares the verification of each model of a path.
func verificationParts(v *report.Verification, path string, o VerifyOptions) ([]*verification, error) {
	folders, err := modelsOf(path)
	if err != nil {
		return nil, err
	}
	if o.Source != "" {
		if err := compareFolders(v, folders, o.Source, path); err != nil {
			return nil, err
		}
	}
	var parts []*verification
	for _, folder := range folders {
		one := &verification{VerifyOptions: o, Verification: v, path: path, folder: folder, sourceFolder: folder}
		if folder != "" && one.Source != "" && !holdsWeights(within(one.Source, folder)) {
			one.Source = "" // compareFolders has said so
		}
		parts = append(parts, one)
	}
	return parts, nil
}

// compareFolders: every model of the source is there, and no other.
func compareFolders(v *report.Verification, folders []string, source, path string) error {
	wanted, err := modelsOf(source)
	if err != nil {
		return err
	}
	if (folders[0] == "") != (wanted[0] == "") {
		return usage.Errorf("--source %s and %s: one is a pipeline, the other a model: name the component's folder", source, path)
	}
	for _, name := range wanted {
		if !slices.Contains(folders, name) {
			v.Problems = append(v.Problems, report.Problem{Problem: name + ": is missing: the source has it"})
		}
	}
	for _, name := range folders {
		if !slices.Contains(wanted, name) {
			v.Problems = append(v.Problems, report.Problem{Problem: name + ": is not in the source"})
		}
	}
	return nil
}
