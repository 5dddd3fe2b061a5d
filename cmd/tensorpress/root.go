package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/usage"
)

func newRoot() *cobra.Command {
	root := command(&cobra.Command{
		Use:   "tensorpress",
		Short: "Quantize safetensors checkpoints",
		Long: `tensorpress turns safetensors checkpoints into quantized ones, in bounded memory
and with the bytes of the reference programs.`,
		Example: `  tensorpress quantize model.safetensors small.safetensors
  tensorpress plan model.safetensors --dtype uint4 --layout sdnq
  tensorpress verify small.safetensors --source model.safetensors`,
		Args: unknownCommand,
	}, "0 1 2 3 4 130", func(cmd *cobra.Command, _ []string) error { return cmd.Help() })
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SuggestionsMinimumDistance = 2
	cobra.EnableCommandSorting = false // help lists the most important commands first
	root.AddCommand(newQuantize(), newPlan(), newFinish(), newMeasure(), newInspect(), newVerify(), newDiff(), newDequantize(), newTranscode(), newMigrate(), newSplit(), newJoin(), newCTQ(), newFormats(), newPresets(), newDoctor())
	root.SetHelpFunc(func(cmd *cobra.Command, _ []string) { printHelp(cmd.OutOrStdout(), cmd) })
	root.SetHelpCommand(newHelp(root))
	return root
}

// refuseOtherShells makes an error of a shell that completion does not know, for which it
// would print its help: a profile that evaluates what it prints would run that.
func refuseOtherShells(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		if cmd.Name() == "completion" {
			cmd.Args = unknownCommand
			cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
		}
	}
}

// describePlainly takes the backquotes, which name a flag's value in help, out of what
// shells show of flags.
func describePlainly(root *cobra.Command) {
	for _, cmd := range root.Commands() {
		cmd.Flags().VisitAll(func(f *pflag.Flag) { f.Usage = strings.ReplaceAll(f.Usage, "`", "") })
	}
}

// command adds to a command what all have in common.
func command(c *cobra.Command, statuses string, run func(cmd *cobra.Command, args []string) error) *cobra.Command {
	c.Version = versionLine()
	c.Annotations = map[string]string{
		cobra.CommandDisplayNameAnnotation: "tensorpress", // the name that --version prints
		"statuses":                         statuses,
	}
	c.DisableFlagsInUseLine = true
	c.Flags().SortFlags = false
	c.RunE = func(cmd *cobra.Command, args []string) error {
		err := usage.Wrap(kernel.Refused()) // TENSORPRESS_CPU names an instruction set that this machine lacks
		if err == nil {
			err = run(cmd, args)
		}
		if err != nil {
			return &runError{err}
		}
		return nil
	}
	return c
}

func unknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	text := fmt.Sprintf("unknown command %q", args[0])
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		text += ", did you mean " + strings.Join(near, " or ") + "?"
	}
	return fmt.Errorf("%s", text)
}

// refuseUnknown refuses a command that does not exist where its help is asked for, or its
// version: those of the program would be printed, as if all were well.
func refuseUnknown(root *cobra.Command, args []string) error {
	asks := func(arg string) bool { return slices.Contains([]string{"-h", "--help", "--version"}, arg) }
	at := slices.IndexFunc(args, func(arg string) bool { return !asks(arg) })
	if at < 0 || strings.HasPrefix(args[at], "-") || !slices.ContainsFunc(args, asks) {
		return nil
	}
	if strings.HasPrefix(args[at], cobra.ShellCompRequestCmd) { // what shells ask
		return nil
	}
	root.InitDefaultHelpCmd()
	if cmd, _, err := root.Find(args[at : at+1]); err != nil || cmd != root {
		return nil
	}
	return unknownCommand(root, args[at:at+1])
}

func newHelp(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Help about any command",
		RunE: func(_ *cobra.Command, args []string) error {
			cmd, rest, err := root.Find(args)
			if err == nil && cmd == root {
				err = unknownCommand(root, rest)
			}
			if err != nil {
				return err
			}
			cmd.InitDefaultHelpFlag()
			cmd.InitDefaultVersionFlag()
			return cmd.Help()
		},
	}
}

// wants checks the number of arguments; their names come from Use. It refuses an empty
// argument, which is usually a script's variable that was not set.
func wants(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		_, names, _ := strings.Cut(cmd.Use, " ")
		switch {
		case len(args) < least || len(args) > most:
			return fmt.Errorf("want %s, got %s", cmp.Or(names, "no arguments"), count(len(args), "argument"))
		case slices.Contains(args, ""):
			return fmt.Errorf("want %s, got an empty one", names)
		}
		return nil
	}
}

// groupKey is the annotation of a flag with its heading in help.
const groupKey = "tensorpress_group"

// group puts all flags that have no heading yet under heading.
func group(f *pflag.FlagSet, heading string) {
	f.VisitAll(func(one *pflag.Flag) {
		if one.Annotations == nil {
			one.Annotations = map[string][]string{groupKey: {heading}}
		}
	})
}

// printHelp prints what a command does, how to call it, and its exit statuses.
func printHelp(w io.Writer, cmd *cobra.Command) {
	text := cmd.Long
	if text == "" {
		text = cmd.Short
	}
	fmt.Fprintf(w, "%s\nUsage:\n  %s\n", fold(strings.TrimSpace(text)+"\n"), useLine(cmd))
	if cmd.Example != "" {
		fmt.Fprintf(w, "\nExamples:\n%s\n", cmd.Example)
	}
	if cmd.HasAvailableSubCommands() {
		fmt.Fprint(w, "\nCommands:\n")
		for _, sub := range cmd.Commands() {
			if sub.IsAvailableCommand() {
				fmt.Fprintf(w, "  %-11s %s\n", sub.Name(), sub.Short)
			}
		}
	}
	printFlags(w, cmd.LocalFlags())
	if statuses := cmd.Annotations["statuses"]; statuses != "" {
		fmt.Fprintf(w, "\nExit status:\n%s", statusHelp(statuses))
	}
}

func useLine(cmd *cobra.Command) string {
	if cmd.HasAvailableSubCommands() {
		return cmd.CommandPath() + " COMMAND"
	}
	if cmd.HasParent() {
		return cmd.Parent().CommandPath() + " " + cmd.Use + " [flags]"
	}
	return cmd.Use
}

// printFlags prints flags by heading, in the order in which they were added.
func printFlags(w io.Writer, flags *pflag.FlagSet) {
	for _, g := range flagGroups(flags) {
		fmt.Fprintf(w, "\n%s:\n%s", g.heading, g.flags.FlagUsagesWrapped(helpWidth))
	}
}

// flagGroup are flags under one heading.
type flagGroup struct {
	heading string
	flags   *pflag.FlagSet
}

func flagGroups(flags *pflag.FlagSet) (groups []flagGroup) {
	flags.SortFlags = false
	flags.VisitAll(func(f *pflag.Flag) {
		heading := "Flags"
		if g := f.Annotations[groupKey]; len(g) > 0 {
			heading = g[0]
		}
		at := slices.IndexFunc(groups, func(g flagGroup) bool { return g.heading == heading })
		if at < 0 {
			at = len(groups)
			groups = append(groups, flagGroup{heading, pflag.NewFlagSet(heading, pflag.ContinueOnError)})
			groups[at].flags.SortFlags = false
		}
		groups[at].flags.AddFlag(f)
	})
	return groups
}
