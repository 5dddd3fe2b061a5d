package tensorpress

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/sdnq"
)

const modelConfig = "config.json"

// spaceError says that the disk is too small before it is full.
type spaceError struct {
	dest         string
	needed, free int64
	notes        []string // what else takes room there
}

func (e *spaceError) Error() string {
	text := fmt.Sprintf("%s needs %s, and %s are free there: make room or name another disk", e.dest, Size(e.needed), Size(e.free))
	return strings.Join(append([]string{text}, e.notes...), "; ")
}

// indexName is the name under which loaders look for the index.
func indexName(p *plan.Plan) string {
	return stemOf(p) + ".safetensors.index.json"
}

// stemOf is the weights' name without the numbers of shards.
func stemOf(p *plan.Plan) string {
	stem, _, _ := strings.Cut(strings.TrimSuffix(p.Files[0].Name, ".safetensors"), "-00001-of-")
	return stem
}

// copyOthers copies all files of a source folder that hold no weights and that
// are not written anew. A source that is no folder brings none.
func copyOthers(ctx context.Context, s place, c *checkpoint.Checkpoint) error {
	if !c.IsDir {
		return nil
	}
	names, err := c.OtherFiles()
	if err != nil {
		return err
	}
	for _, name := range names {
		if name == modelConfig || describes(c, name) {
			continue
		}
		if err := s.CopyFile(ctx, name, filepath.Join(c.Dir, filepath.FromSlash(name))); err != nil {
			return err
		}
	}
	return nil
}

// writeModelConfig writes the model's own config with the SDNQ config in it,
// or without any where config is nil. A model without a config of its own gets
// the SDNQ config as a file.
func writeModelConfig(s place, c *checkpoint.Checkpoint, config *sdnq.Config) error {
	path := filepath.Join(c.Dir, modelConfig)
	text, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		if config == nil {
			return nil
		}
		return s.WriteFile(layout.ConfigFile, []byte(pyjson.DumpSorted(config.Encode())))
	}
	if err != nil {
		return err
	}
	model, err := pyjson.ParseObject(text)
	if err != nil {
		return sourceErrorf("%s: %w", path, err)
	}
	without := layout.WithoutDeclarations(model)
	switch {
	case config != nil:
		model = without.Set(layout.ConfigKey, config.Encode())
	case pyjson.Dump(without) == pyjson.Dump(model): // nothing to change: not a byte of it
		return s.WriteFile(modelConfig, text)
	default:
		model = without
	}
	return s.WriteFile(modelConfig, []byte(pyjson.DumpSorted(model)))
}

func sourceErrorf(format string, args ...any) error {
	return &sourceError{fmt.Errorf(format, args...)}
}
