package plan

import (
	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/sdnqconfig"
	"github.com/tensorpress/tensorpress/internal/usage"
)

// Renamed plans a copy of tensors under the names that they have been given, with
// the SDNQ config that describes them, nil where they are not quantized.
func Renamed(tensors []checkpoint.Tensor, config *sdnqconfig.Config, o Options) (*Plan, error) {
	as := layout.Comfy
	if config != nil || o.Output.Folder {
		as = layout.SDNQ
	}
	if config != nil && o.For != nil {
		if err := o.For.CheckOutput(as.Name, o.Output.Folder); err != nil {
			return nil, usage.Wrap(err)
		}
	}
	var edits []Edit
	for _, t := range tensors {
		edits = append(edits, Kept(t))
	}
	if config != nil {
		o.Output.Metadata = withoutConfigs(o.Output.Metadata)
	}
	o.Output.Metadata = (&Plan{Config: config}).metadata(o.Output)
	p, err := Rewrite(edits, o.Output)
	if err == nil {
		p.Layout, p.Config = as, config
		p.ConfigFile = config != nil && o.For != nil && o.For.ConfigFile
	}
	return p, err
}
