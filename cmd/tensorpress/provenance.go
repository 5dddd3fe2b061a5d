package main

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/tensorpress/tensorpress/report"
	"go.yaml.in/yaml/v3"
)

// unsaid are flags that say how a run goes and where to, and nothing of what it makes.
var unsaid = []string{
	"help", "recipe", "report", "json", "quiet", "progress", "metrics", "threads", "memory", "force", "dry-run", "measure", "lock", "resume", "part",
}

// addProvenance adds to a report what made it: the program, the command and its settings.
func addProvenance(r *report.Report, cmd *cobra.Command) {
	p := provenanceOf(r.Provenance, cmd)
	if _, said := p.Settings.Get("layout"); !said && cmd.Flags().Lookup("layout") != nil && r.Layout != "" {
		p.Settings = append(p.Settings, report.Option{Key: "layout", Value: r.Layout})
	}
	r.Provenance = p
}

// provenanceOf adds the program, the command and its settings to what is known of files.
func provenanceOf(p *report.Provenance, cmd *cobra.Command) *report.Provenance {
	if p == nil {
		p = &report.Provenance{}
	}
	p.Version, p.Command, p.Settings = versionText(), cmd.Name(), report.Options{}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Changed && !slices.Contains(unsaid, f.Name) {
			p.Settings = append(p.Settings, report.Option{Key: f.Name, Value: flagValue(f)})
		}
	})
	return p
}

// settingsOf returns a recipe's keys: of a report those of the run that it is of.
func settingsOf(path string, root *yaml.Node) (*yaml.Node, error) {
	p := valueOf(root, "provenance")
	if p == nil || valueOf(root, "layers") == nil {
		return root, nil
	}
	settings, command := valueOf(p, "settings"), valueOf(p, "command")
	if command == nil || settings == nil || settings.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("%s:%d: provenance: want a command and settings, as --report writes them", path, p.Line)
	}
	if command.Value != "quantize" && command.Value != "plan" {
		return nil, fmt.Errorf("%s:%d: is a report of %q: want one of quantize or plan", path, command.Line, command.Value)
	}
	return settings, nil
}

// valueOf is that of a key, nil where a node has none.
func valueOf(n *yaml.Node, key string) *yaml.Node {
	for i := 0; n.Kind == yaml.MappingNode && i < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return resolve(n.Content[i+1])
		}
	}
	return nil
}

// provenanceFacts are those of a page.
func (p *page) provenanceFacts(of *report.Provenance) {
	if of == nil {
		return
	}
	p.fact("made by", "tensorpress "+of.Version)
	for _, one := range of.Settings {
		p.fact("--"+one.Key, fmt.Sprint(one.Value))
	}
	for _, f := range of.Sources {
		p.fact("sha256 of source", f.SHA256+"  "+f.Path)
	}
	for _, f := range of.Outputs {
		p.fact("sha256 of output", f.SHA256+"  "+f.Path)
	}
}
