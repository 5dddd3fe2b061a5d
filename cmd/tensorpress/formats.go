package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/internal/app"
)

func newFormats() *cobra.Command {
	var asJSON bool
	cmd := command(&cobra.Command{
		Use:   "formats",
		Short: "List every dtype and which applications load it",
		Long: `List every dtype that --dtype takes: its range, how it is stored, in which
layouts, and which applications load it. SIZE is what a weight takes in bits
with its scales, ERROR the squared error beside the squared weights of a small
real model, with the defaults, and SEARCHED the same with --search where that is
less.

A name that is listed twice means ComfyUI's own format in the comfy layout, as
its aliases do; there, sdnq:NAME is SDNQ's.`,
		Example: `  tensorpress formats
  tensorpress formats --json`,
		Args: wants(0, 0),
	}, "0 1 2", func(cmd *cobra.Command, _ []string) error {
		rows := tensorpress.Formats()
		return output(cmd.OutOrStdout(), asJSON, rows, func(w io.Writer) { printFormats(w, rows) })
	})
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	return cmd
}

func printFormats(w io.Writer, rows []tensorpress.FormatRow) {
	t := newTable(1)
	t.add("NAME", "BITS", "RANGE", "STORAGE", "SIZE", "ERROR", "SEARCHED", "LAYOUTS", "LOADED BY", "ALIASES")
	for _, r := range rows {
		t.add(r.Name, fmt.Sprint(r.Bits), fmt.Sprintf("%.6g to %.6g", r.Min, r.Max), r.Storage,
			measured("%.2f", r.BitsPerWeight), measured("%.2g", r.Error), gains(r), strings.Join(r.Layouts, ", "), loadedBy(r), strings.Join(r.Aliases, ", "))
	}
	t.print(w)
}

// gains is the error with --search, where that loses less.
func gains(r tensorpress.FormatRow) string {
	if !r.Search || r.SearchedError >= r.Error {
		return ""
	}
	return measured("%.2g", r.SearchedError)
}

// measured is a number that was measured, or nothing.
func measured(format string, x float64) string {
	if x == 0 {
		return ""
	}
	return fmt.Sprintf(format, x)
}

// loadedBy lists the applications that load a format, with the layout if it depends on
// that.
func loadedBy(r tensorpress.FormatRow) string {
	var all []string
	for _, layout := range slices.Sorted(maps.Keys(r.Loads)) {
		all = append(all, r.Loads[layout]...)
	}
	return strings.Join(all, ", ")
}

// The values that shells offer for flags.

func dtypeNames() []string {
	var names []string
	for _, r := range tensorpress.Formats() {
		names = append(append(names, r.Name), r.Aliases...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func layoutNames() []string {
	var names []string
	for _, r := range tensorpress.Formats() {
		names = append(names, r.Layouts...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func appNames() []string { return app.Names() }

// appList lists the applications for a flag's help.
func appList() string { return strings.Join(app.Names(), ", ") }
