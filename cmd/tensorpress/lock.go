package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/report"
	"go.yaml.in/yaml/v3"
)

// lockFlag is --lock: a recipe that makes the same output again.
type lockFlag struct{ path string }

func (l *lockFlag) add(f *pflag.FlagSet) {
	f.StringVar(&l.path, "lock", "", "write what was chosen to `FILE`, a recipe, YAML or JSON by its suffix, that makes the same bytes of the same source")
}

// lockHead is the first line of a lock of YAML.
const lockHead = "# A recipe of tensorpress: quantize SOURCE DEST --recipe FILE makes the same bytes again.\n"

// check refuses a path that would fail, or do harm, only after all the work is done.
func (l *lockFlag) check(paths []string) error {
	if l.path == "" {
		return nil
	}
	if !slices.Contains([]string{".yaml", ".yml", ".json"}, strings.ToLower(filepath.Ext(l.path))) {
		return fmt.Errorf("--lock %s: the name must end in .yaml or .json", l.path)
	}
	return checkPlace("lock", l.path, paths, []string{lockHead[:20], "{\n  \"" + lockedKey + "\":"})
}

// unlocked are flags of a run that say nothing of what it makes, and those that a lock has
// the result of.
var unlocked = []string{
	"help", "recipe", "report", "json", "quiet", "progress", "metrics", "threads", "memory", "force", "dry-run", "measure",
	"budget", "target-bpw", "menu", "measured", "lock", "set", "layout", "resume", "part",
}

// write writes the lock of a choice.
func (l *lockFlag) write(f *pflag.FlagSet, r *report.Report) error {
	if l.path == "" {
		return nil
	}
	lock, err := lockOf(f, r)
	if err != nil {
		return err
	}
	text, err := lockText(lock, strings.EqualFold(filepath.Ext(l.path), ".json"))
	if err != nil {
		return err
	}
	if err := writeWhole(l.path, text); err != nil {
		return fmt.Errorf("--lock: %w", err)
	}
	return nil
}

// lockOf is a lock as a recipe has it: what the choice was made of and for, and the flags.
func lockOf(f *pflag.FlagSet, r *report.Report) (lock report.Options, err error) {
	b := r.Budget
	why := report.Options{
		{Key: "version", Value: versionText()}, {Key: "fingerprint", Value: b.Fingerprint}, {Key: "source", Value: r.Source},
		{Key: "budget", Value: number(b.Bytes)}, {Key: "bytes", Value: number(b.Chosen.Bytes)}, {Key: "rel_mse", Value: number(b.Chosen.RelMSE)},
		{Key: "menu", Value: []any{}}, {Key: "layers", Value: []any{}},
	}
	var menu, layers []any
	for _, e := range b.Menu {
		menu = append(menu, report.Options{{Key: "entry", Value: e.Name}, {Key: "settings", Value: e.Settings}, {Key: "bytes", Value: number(e.BytesOut)}, {Key: "rel_mse", Value: figureOf(e.RelMSE)}})
	}
	for _, c := range b.Layers {
		layers = append(layers, append(report.Options{{Key: "name", Value: c.Name}}, choiceOf(c)...))
	}
	why[6].Value, why[7].Value = menu, layers
	lock = report.Options{{Key: lockedKey, Value: why}, {Key: "layout", Value: r.Layout}}
	settings, err := plan.ParseRule("all=" + b.Settings)
	if err != nil {
		return nil, err
	}
	for _, field := range codec.Fields() {
		if v := field.Saying(settings.Layer); v != nil {
			lock = append(lock, report.Option{Key: field.Flag, Value: plainValue(v)})
		}
	}
	f.VisitAll(func(one *pflag.Flag) {
		if one.Changed && !codec.IsSetting(one.Name) && !slices.Contains(unlocked, one.Name) {
			lock = append(lock, report.Option{Key: one.Name, Value: flagValue(one)})
		}
	})
	if rules := rulesOf(f, b); len(rules) > 0 {
		lock = append(lock, report.Option{Key: "set", Value: rules})
	}
	return lock, nil
}

// rulesOf are those of layers, and then those that were given.
func rulesOf(f *pflag.FlagSet, b *report.Budget) (rules []any) {
	for _, c := range b.Layers {
		if c.Pattern != "" {
			expr, _ := quoted(c.Pattern) // made of a name
			rules = append(rules, expr+"="+c.Settings)
		}
	}
	for _, text := range f.Lookup("set").Value.(pflag.SliceValue).GetSlice() {
		rules = append(rules, text)
	}
	return rules
}

func choiceOf(c report.Choice) report.Options {
	o := measuredOf(c.MeasuredChoice)
	if c.Smaller != nil {
		o = append(o, report.Option{Key: "smaller", Value: measuredOf(*c.Smaller)})
	}
	if c.Better != nil {
		o = append(o, report.Option{Key: "better", Value: measuredOf(*c.Better)})
	}
	return o
}

func measuredOf(c report.MeasuredChoice) report.Options {
	return report.Options{{Key: "entry", Value: c.Entry}, {Key: "rel_mse", Value: figureOf(c.RelMSE)}, {Key: "bytes", Value: number(c.Bytes)}}
}

// number is a number as JSON has it; floats have few digits, since they only say why.
func number[T int64 | int | float64](n T) json.Number {
	if x, ok := any(n).(float64); ok {
		return json.Number(strconv.FormatFloat(x, 'g', 4, 64))
	}
	return json.Number(fmt.Sprint(n))
}

func figureOf(x *float64) any {
	if x == nil {
		return nil
	}
	return number(*x)
}

func plainValue(v any) any {
	if n, ok := v.(int); ok {
		return number(n)
	}
	return v
}

// flagValue is what a flag says, with the type that a recipe wants.
func flagValue(f *pflag.Flag) any {
	if list, ok := f.Value.(pflag.SliceValue); ok {
		var texts []any
		for _, text := range list.GetSlice() {
			texts = append(texts, fromAnywhere(f, text))
		}
		return texts
	}
	text := fromAnywhere(f, f.Value.String())
	switch f.Value.Type() {
	case "bool":
		return text == "true"
	case "int", "int64", "float64":
		return json.Number(text)
	}
	return text
}

// fromAnywhere makes a path one that says the same in a recipe in any folder. A strength
// after it stays there.
func fromAnywhere(f *pflag.Flag, text string) string {
	if !slices.Contains(recipePaths, f.Name) {
		return text
	}
	if path, err := filepath.Abs(text); err == nil {
		return path
	}
	return text
}

func lockText(lock report.Options, asJSON bool) ([]byte, error) {
	if asJSON {
		text, err := json.MarshalIndent(lock, "", "  ")
		return append(text, '\n'), err
	}
	text, err := yaml.Marshal(yamlOf(lock, 0))
	return append([]byte(lockHead), text...), err
}

// yamlOf is a value as YAML has it: what lies deep in one line, so that a layer is one.
func yamlOf(v any, depth int) *yaml.Node {
	n := &yaml.Node{Kind: yaml.ScalarNode}
	if depth > 2 {
		n.Style = yaml.FlowStyle
	}
	switch v := v.(type) {
	case report.Options:
		n.Kind, n.Tag = yaml.MappingNode, "!!map"
		for _, one := range v {
			n.Content = append(n.Content, yamlOf(one.Key, depth+1), yamlOf(one.Value, depth+1))
		}
	case []any:
		n.Kind, n.Tag = yaml.SequenceNode, "!!seq"
		for _, one := range v {
			n.Content = append(n.Content, yamlOf(one, depth+1))
		}
	case string:
		n.SetString(v)
		if n.Style == 0 && v != "" && strings.ContainsAny(v, `^$\:#{}[],&*!|>'"%@`+"`") {
			n.Style = yaml.SingleQuotedStyle
		}
	case json.Number:
		n.Value, n.Tag = v.String(), "!!float"
		if _, err := strconv.ParseInt(v.String(), 10, 64); err == nil {
			n.Tag = "!!int"
		}
	case bool:
		n.Value, n.Tag = strconv.FormatBool(v), "!!bool"
	default:
		n.Value, n.Tag = "null", "!!null"
	}
	return n
}
