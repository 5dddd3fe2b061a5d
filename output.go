package tensorpress

import (
	"os"
	"path/filepath"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/stage"
	"github.com/tensorpress/tensorpress/safetensors"
)

type (
	writer = *safetensors.Writer
	tensor = safetensors.Tensor
)

// place is where the files of a model go: a stage, or a folder in one.
type place interface {
	Create(name string) (*os.File, error)
	WriteFile(name string, data []byte) error
	CopyFile(name, from string) error
}

func isFolder(dest string) bool { return filepath.Ext(filepath.Clean(dest)) != ".safetensors" }

// checkDest refuses to overwrite; see [stage.Check].
func checkDest(c *checkpoint.Checkpoint, p *plan.Plan, dest string, force bool) error {
	var beside []string
	if p.Config != nil && !isFolder(dest) {
		beside = append(beside, layout.ConfigFile)
	}
	return stage.Check(dest, isFolder(dest), force, sourcePaths(c, isFolder(dest)), beside)
}

// sourcePaths are the files that are read, and the folder where one was named or,
// with its index, is copied.
func sourcePaths(c *checkpoint.Checkpoint, copied bool) []string {
	paths := []string{c.Path}
	if copied && c.Index != "" {
		paths = append(paths, c.Dir)
	}
	for _, name := range c.ShardNames {
		paths = append(paths, filepath.Join(c.Dir, filepath.FromSlash(name)))
	}
	return paths
}

func createFiles(s place, files []plan.File) (writers, error) {
	var all writers
	for _, file := range files {
		f, err := s.Create(file.Name)
		if err != nil {
			return nil, err
		}
		w, err := safetensors.NewBodies(f, file.Header)
		if err != nil {
			return nil, err
		}
		all = append(all, w)
	}
	return all, nil
}

// writeCompanions writes what stands beside the weights: configs, the index,
// and in a folder all other files of the source.
func writeCompanions(s place, one *model, dest string) error {
	c, p := one.c, one.plan
	if !isFolder(dest) {
		if p.Config == nil {
			return nil
		}
		return s.WriteFile(layout.ConfigFile, []byte(pyjson.DumpSorted(p.Config.Encode())))
	}
	if err := copyOthers(s, one); err != nil {
		return err
	}
	if len(p.Files) > 1 {
		if err := s.WriteFile(c.IndexName(), []byte(p.Index())); err != nil {
			return err
		}
	}
	if p.ConfigFile && c.Config != nil { // else that is where it goes anyway
		if err := s.WriteFile(layout.ConfigFile, []byte(pyjson.DumpSorted(p.Config.Encode()))); err != nil {
			return err
		}
	}
	return writeModelConfig(s, c, p)
}
