package bundle

import (
	"context"
	"fmt"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/report"
)

// ModelConfig is a model's own config.
const ModelConfig = "config.json"

// sourceNotes say what of a source may surprise.
func sourceNotes(c *checkpoint.Checkpoint) (notes []string) {
	if c.Part != nil {
		notes = append(notes, PartText(c))
	}
	if v := c.Variant(); v != "" && c.IsModel() {
		notes = append(notes, fmt.Sprintf("%s holds the weights as the variant %s, and so does the output: load it with variant=%q", c.Dir, v, v))
	}
	return notes
}

// PartText says that one shard of several was named alone.
func PartText(c *checkpoint.Checkpoint) string {
	return fmt.Sprintf("%s is shard %d of %d alone: for the whole model name its folder or its index", c.Path, c.Part.Number, c.Part.Of)
}

// LeftOut says which weights are not copied.
func LeftOut(o *checkpoint.Others) (notes []string) {
	if o == nil {
		return nil
	}
	if n := len(o.LeftOut); n > 0 {
		notes = append(notes, fmt.Sprintf("%s of weights that the output does not describe %s left out, %s: %s; `CopyWeights` copies them",
			counted(n, "file"), isOrAre(n), report.Size(o.Bytes), checkpoint.ListNames(o.LeftOut)))
	}
	if n := len(o.Clash); n > 0 {
		notes = append(notes, fmt.Sprintf("%s of other weights %s not copied, since loaders would take them in place of the output: %s",
			counted(n, "file"), isOrAre(n), checkpoint.ListNames(o.Clash)))
	}
	return notes
}

// notRead says which weights a folder has beside those that go to a single file.
func notRead(o *checkpoint.Others) []string {
	n := len(o.LeftOut)
	if n == 0 {
		return nil
	}
	return []string{fmt.Sprintf("%s of other weights in the folder %s not read, %s: %s", counted(n, "file"), isOrAre(n), report.Size(o.Bytes), checkpoint.ListNames(o.LeftOut))}
}

func counted(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

func isOrAre(n int) string {
	if n == 1 {
		return "is"
	}
	return "are"
}

// Copied are the files beside a model's weights that are copied, nil where none are.
func (one *Model) Copied() []string {
	if one.others == nil {
		return nil
	}
	return one.others.Files
}

// CopyOthers copies all files of a source folder that hold no weights and that
// are not written anew. A source that is no folder brings none.
func CopyOthers(ctx context.Context, s Sink, one *Model) error {
	if one.others == nil {
		return nil
	}
	for _, name := range one.others.Files {
		if name == ModelConfig {
			continue
		}
		if err := s.CopyFile(ctx, name, one.Checkpoint.Beside(name)); err != nil {
			return err
		}
	}
	return nil
}

// WriteModelConfig writes the model's own config with the SDNQ config in it,
// or without any where config is nil. A model without a config of its own gets
// the SDNQ config as a file.
func WriteModelConfig(s Sink, c *checkpoint.Checkpoint, p *plan.Plan) error {
	config := p.Config
	text, err := c.ReadBeside(ModelConfig)
	switch {
	case err != nil:
		return err
	case text == nil && config == nil:
		return nil
	case text == nil:
		return s.WriteFile(layout.ConfigFile, []byte(pyjson.DumpSorted(config.Encode())))
	}
	model, err := pyjson.ParseObject(text)
	if err != nil {
		return usage.SourceErrorf("%s: %w", c.Beside(ModelConfig).Path, err)
	}
	without := layout.WithoutDeclarations(model)
	changed := pyjson.Dump(without) != pyjson.Dump(model)
	if moved := c.Explicit && weightsName(c, p) != c.Named(); moved {
		without, changed = without.Set(checkpoint.WeightsKey, weightsName(c, p)), true
	}
	switch {
	case config != nil:
		model = without.Set(layout.ConfigKey, config.Encode())
	case !changed: // not a byte of it
		return s.WriteFile(ModelConfig, text)
	default:
		model = without
	}
	return s.WriteFile(ModelConfig, []byte(pyjson.DumpSorted(model)))
}

// weightsName is the file that the loader of a folder looks for.
func weightsName(c *checkpoint.Checkpoint, p *plan.Plan) string {
	if len(p.Files) > 1 {
		return c.IndexName()
	}
	return p.Files[0].Name
}
