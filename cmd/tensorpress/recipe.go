package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/pattern"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/suggest"
	"github.com/tensorpress/tensorpress/report"
	"go.yaml.in/yaml/v3"
)

// recipeFlag is --recipe: a file that holds flags by their names.
type recipeFlag struct {
	path        string
	fingerprint string // of the source that the recipe is for, "" for any
}

func (r *recipeFlag) add(f *pflag.FlagSet) {
	f.StringVar(&r.path, "recipe", "", "take flags from a YAML or JSON `FILE`, or those of a --report; those given here win over it")
}

// mostRecipe is the most bytes that a recipe may have.
const mostRecipe = 64 << 20 // a lock has a rule and more for each layer

// recipePaths are the flags that name files. In a recipe their paths are relative to
// the recipe.
var recipePaths = []string{"config", "like", "layer-config", "importance", "lora", "report", "measured", "lock", "metrics"}

// recipeNumbers are the flags whose text is a number, which needs no quotes.
var recipeNumbers = []string{"dynamic-loss-threshold", "fit", "memory", "shard-size", "budget"}

// apply sets the flags that the recipe names and the command line does not.
func (r *recipeFlag) apply(f *pflag.FlagSet) error {
	if !f.Changed("recipe") {
		return nil
	}
	root, err := readRecipe("recipe", r.path)
	if err != nil || root == nil {
		return err
	}
	if root, err = settingsOf(r.path, root); err != nil {
		return err
	}
	one := &recipe{path: r.path, flags: f}
	err = one.apply(root)
	r.fingerprint = one.fingerprint
	return err
}

// readRecipe reads the file that a flag names, and returns its mapping, nil if it is empty.
func readRecipe(flag, path string) (*yaml.Node, error) {
	info, err := os.Stat(path)
	if err == nil && info.Mode().IsRegular() && info.Size() > mostRecipe {
		return nil, fmt.Errorf("--%s %s: %s are too large for a recipe", flag, path, report.Size(info.Size()))
	}
	text, err := checkpoint.ReadFile(path, mostRecipe)
	if err != nil {
		return nil, &runError{fmt.Errorf("--%s: %w", flag, err)}
	}
	return parseRecipe(path, text)
}

// parseRecipe returns the file's mapping, nil if the file is empty.
func parseRecipe(path string, text []byte) (*yaml.Node, error) {
	parse := parseYAML
	if strings.EqualFold(filepath.Ext(path), ".json") {
		parse = parseJSON
	}
	root, line, err := parse(text)
	switch {
	case err != nil && line > 0:
		return nil, fmt.Errorf("%s:%d: %w", path, line, err)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", path, err)
	case root == nil:
		return nil, nil
	case root.Kind != yaml.MappingNode:
		return nil, fmt.Errorf("%s:%d: want flags without their dashes, such as dtype: int8", path, root.Line)
	}
	return root, nil
}

// recipe is a recipe that is being applied.
type recipe struct {
	path        string
	flags       *pflag.FlagSet
	fingerprint string
}

func (r *recipe) errorf(n *yaml.Node, format string, args ...any) error {
	return fmt.Errorf("%s:%d: %w", r.path, n.Line, fmt.Errorf(format, args...))
}

// apply sets flags in the order of the file's keys.
func (r *recipe) apply(root *yaml.Node) error {
	given := map[string]bool{} // flags on the command line
	r.flags.VisitAll(func(f *pflag.Flag) { given[f.Name] = f.Changed })
	lines := map[string]int{}
	for i := 0; i < len(root.Content); i += 2 {
		key, value := root.Content[i], resolve(root.Content[i+1])
		if key.Value == lockedKey {
			if err := r.locked(value); err != nil {
				return err
			}
			continue
		}
		f := r.flags.Lookup(key.Value)
		if f == nil || slices.Contains([]string{"recipe", "outputs", "help", "version"}, f.Name) {
			return r.errorf(key, "%s", r.unknown(key.Value))
		}
		if line := lines[f.Name]; line > 0 {
			return r.errorf(key, "%s is said on line %d already", f.Name, line)
		}
		lines[f.Name] = key.Line
		if err := r.take(f, value, given[f.Name]); err != nil {
			return err
		}
	}
	return nil
}

// lockedKey is the key of what a lock says beside its flags.
const lockedKey = "locked"

// locked takes the fingerprint of the source for which a choice was made. The rest says
// why it was made.
func (r *recipe) locked(n *yaml.Node) error {
	if n.Kind != yaml.MappingNode {
		return r.errorf(n, "%s: %s, want what --lock writes", lockedKey, describe(n))
	}
	for i := 0; i < len(n.Content); i += 2 {
		if key, value := n.Content[i], resolve(n.Content[i+1]); key.Value == "fingerprint" {
			if !isText(value) {
				return r.errorf(value, "fingerprint: %s, want text", describe(value))
			}
			r.fingerprint = value.Value
			return nil
		}
	}
	return r.errorf(n, "%s: no fingerprint", lockedKey)
}

func (r *recipe) unknown(key string) string {
	switch key {
	case "source", "dest":
		return key + " is no key of a recipe: give it on the command line"
	case "recipe":
		return "a recipe cannot name another"
	case "outputs":
		return "a recipe with outputs is for --outputs, not for --recipe"
	}
	return fmt.Sprintf("unknown key %q%s", key, suggest.Hint(strings.Trim(key, "- "), flagNames(r.flags)))
}

// take checks a value and sets the flag to it, unless the command line sets it.
func (r *recipe) take(f *pflag.Flag, value *yaml.Node, given bool) error {
	list, isList := f.Value.(pflag.SliceValue)
	if isList {
		texts, err := r.list(f.Name, value)
		if err != nil {
			return err
		}
		for i, text := range texts {
			texts[i] = r.beside(f.Name, text)
		}
		return r.extend(f, list, texts, given)
	}
	text, err := r.scalar(f, value)
	if err != nil {
		return err
	}
	if given {
		return nil
	}
	text = r.beside(f.Name, text)
	if err := r.flags.Set(f.Name, text); err != nil {
		return r.errorf(value, "%s %s: %w", f.Name, text, reason(err))
	}
	return nil
}

// beside makes a path that is relative to the recipe.
func (r *recipe) beside(flag, text string) string {
	if !slices.Contains(recipePaths, flag) {
		return text
	}
	return relativeTo(r.path, text)
}

// reason returns what is wrong with a value, without the flag's name.
func reason(err error) error {
	var invalid *pflag.InvalidValueError
	if errors.As(err, &invalid) {
		return errors.New(wanted(invalid))
	}
	return err
}

// extend adds the recipe's entries after those of the command line, so that --set
// entries of the command line match first. It adds none to a given --only or --lora.
func (r *recipe) extend(f *pflag.Flag, list pflag.SliceValue, texts []string, given bool) error {
	if given && (f.Name == "only" || f.Name == "lora") {
		return nil
	}
	if given {
		texts = append(list.GetSlice(), texts...)
	}
	f.Changed = true
	return list.Replace(texts)
}

// scalar returns a value in the text form of a flag.
func (r *recipe) scalar(f *pflag.Flag, n *yaml.Node) (string, error) {
	want, ok := "text", n.Kind == yaml.ScalarNode
	switch tag := n.ShortTag(); f.Value.Type() {
	case "bool":
		want, ok = "true or false", ok && tag == "!!bool"
	case "int", "int64", "uint", "uint64":
		want, ok = "a whole number", ok && tag == "!!int"
	case "float64":
		want, ok = "a number", ok && (tag == "!!int" || tag == "!!float")
	default:
		isNumber := (tag == "!!int" || tag == "!!float") && slices.Contains(recipeNumbers, f.Name)
		ok = ok && (tag == "!!str" && n.Value != "" || isNumber)
	}
	if !ok {
		return "", r.errorf(n, "%s: %s, want %s", f.Name, describe(n), want)
	}
	return n.Value, nil
}

// list returns the entries of a repeatable flag.
func (r *recipe) list(name string, n *yaml.Node) ([]string, error) {
	if n.Kind == yaml.MappingNode && name == "set" {
		return r.rules(n)
	}
	entries := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		entries = n.Content
	}
	var texts []string
	for _, entry := range entries {
		entry = resolve(entry)
		if entry.Kind == yaml.MappingNode && name == "set" {
			rules, err := r.rules(entry)
			if err != nil {
				return nil, err
			}
			texts = append(texts, rules...)
			continue
		}
		if !isText(entry) {
			return nil, r.errorf(entry, "%s: %s, want text or a list of texts", name, describe(entry))
		}
		if err := checkEntry(name, entry.Value); err != nil {
			return nil, r.errorf(entry, "%w", err)
		}
		texts = append(texts, entry.Value)
	}
	return texts, nil
}

func checkEntry(name, text string) error {
	switch name {
	case "set":
		_, err := plan.ParseRule(text)
		return err
	case "lora":
		return nil // it is a path
	}
	if _, err := pattern.Compile(text); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// rules turns a mapping from patterns to settings into a list of PATTERN=SETTINGS.
func (r *recipe) rules(n *yaml.Node) ([]string, error) {
	var texts []string
	for i := 0; i < len(n.Content); i += 2 {
		key := resolve(n.Content[i])
		if !isText(key) {
			return nil, r.errorf(key, "set: %s, want a pattern in quotes", describe(key))
		}
		expr, err := quoted(key.Value)
		if err != nil {
			return nil, r.errorf(key, "set %s: %w", key.Value, err)
		}
		settings, err := r.settings(resolve(n.Content[i+1]))
		if err != nil {
			return nil, err
		}
		text := expr + "=" + settings
		if _, err := plan.ParseRule(text); err != nil {
			return nil, r.errorf(key, "%w", err)
		}
		texts = append(texts, text)
	}
	return texts, nil
}

// quoted puts a pattern that contains = into a group, so that the = does not end it.
func quoted(expr string) (string, error) {
	if !strings.Contains(expr, "=") {
		return expr, nil
	}
	_, err := pattern.Compile(expr)
	return "(?:" + expr + ")", err
}

// settings returns settings as text, such as uint8,group-size=64; they may be written
// as text or as a mapping.
func (r *recipe) settings(n *yaml.Node) (string, error) {
	if isText(n) {
		return n.Value, nil
	}
	if n.Kind != yaml.MappingNode || len(n.Content) == 0 {
		return "", r.errorf(n, "set: %s, want settings such as uint8 or {dtype: uint8, group-size: 64}", describe(n))
	}
	var items []string
	for i := 0; i < len(n.Content); i += 2 {
		key, value := n.Content[i], resolve(n.Content[i+1])
		if value.Kind != yaml.ScalarNode || value.ShortTag() == "!!null" || strings.Contains(value.Value, ",") {
			return "", r.errorf(value, "set: %s: %s, want one value", key.Value, describe(value))
		}
		items = append(items, key.Value+"="+value.Value)
	}
	return strings.Join(items, ","), nil
}

func isText(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str" && n.Value != ""
}

// resolve returns the node to which an alias refers, or n itself.
func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// describe names the kind of a value for a message.
func describe(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.ShortTag() == "!!null":
		return "nothing"
	case n.ShortTag() == "!!str":
		return fmt.Sprintf("the text %q", n.Value)
	}
	return n.Value
}

// before applies the recipe before the arguments are checked, because a recipe may ask
// for a dry run, which needs no destination.
func (r *recipeFlag) before(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := r.apply(cmd.Flags()); err != nil {
			return err
		}
		return check(cmd, args)
	}
}
