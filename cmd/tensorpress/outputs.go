package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/remote"
	"github.com/tensorpress/tensorpress/report"
	"go.yaml.in/yaml/v3"
)

// outputsFlag is --outputs: a recipe with a list of outputs, for which the source is read
// once.
type outputsFlag struct {
	path      string
	keepGoing bool
	each      []*oneOutput
}

// oneOutput is an output of the list, with flags of its own.
type oneOutput struct {
	*quantizeFlags
	cmd  *cobra.Command // as if it alone had been asked for
	dest string
	line int
}

func (o *outputsFlag) add(f *pflag.FlagSet) {
	f.StringVar(&o.path, "outputs", "", "make all outputs that a recipe `FILE` lists, and read SOURCE once for all; DEST is then the folder that they lie in")
	f.BoolVar(&o.keepGoing, "keep-going", false, "with --outputs: keep those that succeed where others fail")
}

// ofRun are the flags of a whole run, which no output has for itself.
var ofRun = []string{"outputs", "keep-going", "threads", "memory", "progress", "metrics", "quiet", "json", "dry-run", "help", "version"}

// ofOne are those that an output does not take over from the others: what they name is one
// file.
var ofOne = []string{"report", "lock", "recipe"}

// before applies recipes before the arguments are checked.
func (q *quantizeFlags) before(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		apply := q.recipe.apply
		if cmd.Flags().Changed("outputs") {
			apply = func(*pflag.FlagSet) error { return q.readOutputs(cmd, args) }
		}
		if err := apply(cmd.Flags()); err != nil {
			return err
		}
		return check(cmd, args)
	}
}

// readOutputs reads the list, and gives each output its flags: its own, then those of its
// recipe, of the command line, of the top of the file, and of --recipe. What comes first
// wins.
func (q *quantizeFlags) readOutputs(cmd *cobra.Command, args []string) error {
	path := q.many.path
	root, err := readRecipe("outputs", path)
	if errors.Is(err, fs.ErrNotExist) {
		return &runError{fmt.Errorf("--outputs %s: there is no such file: name a recipe with a list of outputs, as docs/many.md has one", path)}
	}
	if err != nil {
		return err
	}
	r := &recipe{path: path, flags: cmd.Flags()}
	top, list, err := r.listed(root)
	if err != nil {
		return err
	}
	given := commandLine(cmd.Flags())
	var general *yaml.Node
	if q.recipe.path != "" {
		if general, err = readRecipe("recipe", q.recipe.path); err != nil {
			return err
		}
	}
	for _, n := range list.Content {
		x, err := q.oneOf(r, resolve(n), args)
		if err == nil {
			err = x.inherit(given)
		}
		if err == nil {
			err = x.take(path, without(top, slices.Concat(ofRun, ofOne)...))
		}
		if err == nil && general != nil {
			err = x.take(q.recipe.path, without(general, slices.Concat(ofRun, ofOne)...))
		}
		if err != nil {
			return err
		}
		q.many.each = append(q.many.each, x)
	}
	if err := r.apply(top); err != nil { // the run's own
		return err
	}
	return q.recipe.apply(cmd.Flags())
}

// listOfOutputs is what a recipe of outputs is to have.
const listOfOutputs = "a list of outputs, each with its dest, such as `- dest: small.safetensors`"

// listed returns what stands at the top of the file, and the list of outputs.
func (r *recipe) listed(root *yaml.Node) (top, list *yaml.Node, err error) {
	if root != nil {
		list = valueOf(root, "outputs")
	}
	switch {
	case list == nil:
		return nil, nil, fmt.Errorf("%s: no outputs: want %s", r.path, listOfOutputs)
	case list.Kind == yaml.SequenceNode && len(list.Content) == 0:
		return nil, nil, r.errorf(list, "outputs: the list is empty: want %s", listOfOutputs)
	case list.Kind != yaml.SequenceNode:
		return nil, nil, r.errorf(list, "outputs: %s, want %s", describe(list), listOfOutputs)
	}
	for i := 0; i < len(root.Content); i += 2 {
		switch key := root.Content[i]; key.Value {
		case "dest":
			return nil, nil, r.errorf(key, "dest is of one output: say it in the list")
		case "lock":
			return nil, nil, r.errorf(key, "lock is of one output: say it in the list")
		}
	}
	return without(root, "outputs"), list, nil
}

// without is a mapping without some keys.
func without(n *yaml.Node, keys ...string) *yaml.Node {
	if n == nil {
		return &yaml.Node{Kind: yaml.MappingNode}
	}
	rest := *n
	rest.Content = nil
	for i := 0; i < len(n.Content); i += 2 {
		if !slices.Contains(keys, n.Content[i].Value) {
			rest.Content = append(rest.Content, n.Content[i], n.Content[i+1])
		}
	}
	return &rest
}

// oneOf reads one output of the list: its own flags, and those of the recipe that it
// names.
func (q *quantizeFlags) oneOf(r *recipe, n *yaml.Node, args []string) (*oneOutput, error) {
	if n.Kind != yaml.MappingNode {
		return nil, r.errorf(n, "outputs: %s, want a mapping with a dest", describe(n))
	}
	x := &oneOutput{quantizeFlags: &quantizeFlags{planned: q.planned}, cmd: &cobra.Command{Use: cmp.Or(map[bool]string{true: "plan"}[q.planned], "quantize")}, line: n.Line}
	x.add(x.cmd)
	dest := valueOf(n, "dest")
	switch {
	case dest == nil:
		return nil, r.errorf(n, "an output without a dest")
	case !isText(dest):
		return nil, r.errorf(dest, "dest: %s, want a path or an address", describe(dest))
	}
	x.dest = destOf(r.path, dest.Value, args)
	seen := map[string]bool{}
	for i := 0; i < len(n.Content); i += 2 {
		switch key := n.Content[i]; {
		case slices.Contains(ofRun, key.Value):
			return nil, r.errorf(key, "%s is of the whole run: say it at the top of the file, or on the command line", key.Value)
		case seen[key.Value]:
			return nil, r.errorf(key, "%s is said twice of this output", key.Value)
		default:
			seen[key.Value] = true
		}
	}
	if err := x.take(r.path, without(n, "dest", "recipe")); err != nil {
		return nil, err
	}
	named := valueOf(n, "recipe")
	if named == nil {
		return x, nil
	}
	if !isText(named) {
		return nil, r.errorf(named, "recipe: %s, want a path", describe(named))
	}
	path := relativeTo(r.path, named.Value)
	root, err := readRecipe("recipe", path)
	if err != nil || root == nil {
		return x, err
	}
	return x, x.take(path, root)
}

// destOf is where an output goes: to the folder that the command line names, or else to
// one beside the recipe.
func destOf(recipe, dest string, args []string) string {
	switch {
	case isAddress(dest) || filepath.IsAbs(dest):
		return dest
	case len(args) < 2:
		return relativeTo(recipe, dest)
	case isAddress(args[1]):
		return strings.TrimSuffix(args[1], "/") + "/" + filepath.ToSlash(filepath.Clean(dest))
	}
	return filepath.Join(args[1], dest)
}

func isAddress(text string) bool { return strings.Contains(text, "://") }

// relativeTo is a path that is relative to a recipe.
func relativeTo(recipe, path string) string {
	if filepath.IsAbs(path) || isAddress(path) {
		return path
	}
	return filepath.Join(filepath.Dir(recipe), path)
}

// take applies what a recipe says where nothing was said before.
func (x *oneOutput) take(path string, root *yaml.Node) error {
	root, err := settingsOf(path, root)
	if err != nil {
		return err
	}
	one := &recipe{path: path, flags: x.cmd.Flags()}
	err = one.apply(root)
	x.recipe.fingerprint = cmp.Or(x.recipe.fingerprint, one.fingerprint)
	return err
}

// flagValueText is a flag of the command line: its value, or its entries.
type flagValueText struct {
	name  string
	value string
	list  []string
}

// commandLine are the flags that were given.
func commandLine(f *pflag.FlagSet) (given []flagValueText) {
	f.Visit(func(one *pflag.Flag) {
		if slices.Contains(slices.Concat(ofRun, ofOne), one.Name) {
			return
		}
		text := flagValueText{name: one.Name, value: one.Value.String()}
		if list, ok := one.Value.(pflag.SliceValue); ok {
			text.list = slices.Clone(list.GetSlice())
		}
		given = append(given, text)
	})
	return given
}

// inherit takes over flags of the command line, as a recipe's are.
func (x *oneOutput) inherit(given []flagValueText) error {
	r := &recipe{flags: x.cmd.Flags()}
	for _, text := range given {
		f := r.flags.Lookup(text.name)
		if list, ok := f.Value.(pflag.SliceValue); ok {
			if err := r.extend(f, list, text.list, f.Changed); err != nil {
				return err
			}
			continue
		}
		if f.Changed {
			continue
		}
		if err := r.flags.Set(text.name, text.value); err != nil {
			return fmt.Errorf("--%s %s: %w", text.name, text.value, reason(err))
		}
	}
	return nil
}

// checkMany refuses what would fail, or do harm, only after all the work is done.
func (q *quantizeFlags) checkMany(args []string) error {
	if q.budget.lock.path != "" {
		return errors.New("--lock is of one output: say it in the list of --outputs")
	}
	if q.report.isHTML() {
		return fmt.Errorf("--report %s: that of several outputs is JSON: name it so, or say report in each output for a page", q.report.path)
	}
	paths := []string{args[0]}
	for _, x := range q.many.each {
		if !isAddress(x.dest) {
			paths = append(paths, x.dest)
		}
	}
	if err := q.report.check(paths); err != nil {
		return err
	}
	taken := map[string]bool{}
	if q.report.path != "" {
		taken[real(q.report.path)] = true
	}
	for _, x := range q.many.each {
		err := errors.Join(x.budget.check(paths), x.report.check(paths))
		for _, path := range []string{x.report.path, x.budget.lock.path} {
			if path == "" {
				continue
			}
			if taken[real(path)] && err == nil {
				err = fmt.Errorf("%s is written twice: name another file", path)
			}
			taken[real(path)] = true
		}
		if err != nil {
			return fmt.Errorf("%s:%d: %w", q.many.path, x.line, err)
		}
	}
	return nil
}

// runMany makes all outputs of the list, or says what would be made.
func (q *quantizeFlags) runMany(cmd *cobra.Command, args []string) error {
	at := q.places(cmd.ErrOrStderr())
	from, err := at.source(args[0])
	if err != nil {
		return err
	}
	var outputs []tensorpress.Output
	for _, x := range q.many.each {
		one, err := x.output(at, args[0])
		if err != nil {
			return fmt.Errorf("%s:%d: %w", q.many.path, x.line, err)
		}
		one.Hash = one.Hash || q.report.path != ""
		outputs = append(outputs, one)
	}
	follow := q.start(cmd.ErrOrStderr())
	o := tensorpress.ManyOptions{KeepGoing: q.many.keepGoing, Threads: q.threads, Memory: at.left(q.memory.bytes), Progress: follow.update}
	r, err := q.makeMany(cmd, from, outputs, o)
	follow.end(err == nil)
	if r == nil {
		return err
	}
	if failure := q.finishMany(cmd, r); failure != nil {
		return failure
	}
	if err != nil {
		return &someFailed{err}
	}
	return nil
}

func (q *quantizeFlags) makeMany(cmd *cobra.Command, from files.Source, outputs []tensorpress.Output, o tensorpress.ManyOptions) (*report.Outputs, error) {
	if !q.planned && !q.dryRun {
		return tensorpress.QuantizeMany(cmd.Context(), from, outputs, o)
	}
	return reading(cmd.Context(), func() (*report.Outputs, error) {
		return tensorpress.PlanMany(cmd.Context(), from, outputs, o)
	})
}

// output is what is asked for of one output.
func (x *oneOutput) output(at *places, source string) (one tensorpress.Output, err error) {
	if one.Options, err = x.options(x.cmd.Flags()); err != nil {
		return one, err
	}
	if one.Dest, err = at.dest(x.dest); err != nil {
		return one, err
	}
	if err := remote.Apart(source, x.dest); err != nil {
		return one, err
	}
	if x.like != "" {
		one.Like, err = at.source(x.like)
	}
	return one, err
}

// finishMany writes the reports and prints the table.
func (q *quantizeFlags) finishMany(cmd *cobra.Command, all *report.Outputs) error {
	for i := range all.Failed {
		all.Failed[i].Error = withoutSecrets(inFlags(all.Failed[i].Error))
	}
	for _, r := range all.Outputs {
		speak(r)
	}
	failed := 0
	for _, x := range q.many.each {
		i := slices.IndexFunc(all.Outputs, func(r *report.Report) bool { return r.Dest == x.dest })
		if i < 0 {
			failed++
			continue
		}
		if err := x.writeFiles(all.Outputs[i], q.report.path != ""); err != nil {
			return err
		}
	}
	defer func() {
		q.notes(cmd.ErrOrStderr(), notesOf(all))
		for _, r := range all.Outputs {
			q.next(cmd.ErrOrStderr(), r.Next)
		}
	}()
	if err := q.report.write(all, nil); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	show := func(w io.Writer) { printMany(w, all, q.planned || q.dryRun) }
	return output(cmd.OutOrStdout(), q.json, all, show)
}

// writeFiles writes what an output's flags ask for beside it.
func (x *oneOutput) writeFiles(r *report.Report, provenance bool) error {
	if err := x.budget.write(x.cmd.Flags(), r); err != nil {
		return err
	}
	if provenance || x.report.path != "" {
		addProvenance(r, x.cmd)
	}
	if err := x.report.write(r, func() *page { return reportPage(r) }); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}

// notesOf are the notes of all outputs: one that all have is said once, any other with the
// output that has it.
func notesOf(all *report.Outputs) (notes []string) {
	for i, r := range all.Outputs {
		for _, note := range r.Notes {
			shared := !slices.ContainsFunc(all.Outputs, func(other *report.Report) bool { return !slices.Contains(other.Notes, note) })
			switch {
			case !shared && !strings.Contains(note, r.Dest):
				notes = append(notes, r.Dest+": "+note)
			case !shared || i == 0:
				notes = append(notes, note)
			}
		}
	}
	return notes
}

// printMany compares outputs, a row for each.
func printMany(w io.Writer, all *report.Outputs, planned bool) {
	t := newTable(3, 4, 5)
	t.add("DEST", "LAYOUT", "DTYPES", "BYTES", "SHARE", "REL_MSE", "NEEDS")
	for _, r := range all.Outputs {
		share, errors := "", ""
		if r.BytesIn > 0 {
			share = fmt.Sprintf("%.1f%%", 100*float64(r.BytesOut)/float64(r.BytesIn))
		}
		switch {
		case r.Total != nil:
			errors = figure(r.Total.RelMSE, "%.3e")
		case r.Budget != nil:
			errors = fmt.Sprintf("%.3e", r.Budget.Chosen.RelMSE)
		}
		var needs []string
		for _, n := range r.Needs {
			if !slices.Contains(needs, n.Release) {
				needs = append(needs, n.Release)
			}
		}
		t.add(r.Dest, r.Layout, tally(r.Layers, writtenDtype(r.Layout)), report.Size(r.BytesOut), share, errors, strings.Join(needs, ", "))
	}
	for _, f := range all.Failed {
		t.add(f.Dest, "failed")
	}
	t.print(w)
	if !planned && len(all.Outputs) > 0 {
		fmt.Fprintf(w, "%s of %s in %.2f s\n", count(len(all.Outputs), "output"), report.Size(all.Outputs[0].BytesIn), all.Seconds)
	}
}

// someFailed says that some outputs failed and others are there.
type someFailed struct{ error }

func (e *someFailed) Unwrap() error { return e.error }

// status is that of all outputs that failed, 1 where they differ.
func (e *someFailed) status() int {
	many, ok := e.error.(interface{ Unwrap() []error })
	if !ok {
		return statusOf(&runError{e.error})
	}
	status := 0
	for _, one := range many.Unwrap() {
		of := statusOf(&runError{one})
		if nested, ok := one.(interface{ Unwrap() []error }); ok {
			of = (&someFailed{nested.(error)}).status()
		}
		if status != 0 && of != status {
			return 1
		}
		status = of
	}
	return status
}
