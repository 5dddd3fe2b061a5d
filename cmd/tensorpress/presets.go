package main

import (
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"
	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/internal/suggest"
	"github.com/tensorpress/tensorpress/internal/usage"
)

func newPresets() *cobra.Command {
	var asJSON bool
	cmd := command(&cobra.Command{
		Use:   "presets [NAME]",
		Short: "List model families and what they keep",
		Long: `List model families, for --preset, and what of each stays in high precision,
or NAME alone.

In the sdnq layout that is a list of SDNQ's, in the comfy layout parts of names
and the least sizes of a weight. Where convert_to_quant's preset quantizes what
spoils a model soonest, ours keeps it, and --preset ctq:NAME is theirs.`,
		Example: `  tensorpress presets
  tensorpress presets flux
  tensorpress presets --json`,
		Args: wants(0, 1), ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return presetNames(), cobra.ShellCompDirectiveNoFileComp
		},
	}, "0 1 2", func(cmd *cobra.Command, args []string) error {
		rows := tensorpress.Presets()
		if len(args) > 0 {
			i := slices.IndexFunc(rows, func(r tensorpress.PresetRow) bool { return r.Name == args[0] })
			if i < 0 {
				return usage.Errorf("unknown preset %q%s", args[0], suggest.HintOrAll(args[0], presetNames()))
			}
			rows = rows[i : i+1]
		}
		return output(cmd.OutOrStdout(), asJSON, rows, func(w io.Writer) {
			printPresets(w, rows)
			fmt.Fprint(w, "\nall but none and ctq:NAME keep layers of multi-token prediction, which few programs load:\n")
			for _, line := range tensorpress.PredictionLayers() {
				fmt.Fprintf(w, "  %s\n", line)
			}
		})
	})
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	return cmd
}

func printPresets(w io.Writer, rows []tensorpress.PresetRow) {
	for i, r := range rows {
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "%s: %s\n", r.Name, r.About)
		printWords(w, "sdnq layout keeps", r.SkipKeys)
		printWords(w, "comfy layout keeps", r.Keeps)
		if len(r.Safe) > 0 {
			printWords(w, "and, being input, time, text or output, which --preset ctq:"+r.Name+" quantizes as convert_to_quant does", r.Safe)
		}
		if r.MinNumel > 0 || r.MinChannels > 0 {
			fmt.Fprintf(w, "  comfy layout keeps weights of fewer than %d values or %d channels\n", r.MinNumel, r.MinChannels)
		}
	}
}

// printWords prints a list under a heading, in lines of bounded length.
func printWords(w io.Writer, heading string, words []string) {
	if len(words) == 0 {
		return
	}
	const width = 96
	line := "  " + heading + ":"
	for _, word := range words {
		if len(line)+1+len(word) > width {
			fmt.Fprintln(w, line)
			line = "   "
		}
		line += " " + word
	}
	fmt.Fprintln(w, line)
}

func presetNames() []string {
	var names []string
	for _, r := range tensorpress.Presets() {
		names = append(names, r.Name)
	}
	return names
}
