package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/report"
)

type diffFlags struct {
	o      tensorpress.DiffOptions
	all    bool
	report reportFlag
	runFlags
}

// errDiffer says that two checkpoints are not the same.
var errDiffer = errors.New("are not the same")

func newDiff() *cobra.Command {
	d := &diffFlags{}
	cmd := command(&cobra.Command{
		Use:   "diff A B",
		Short: "Compare two checkpoints, tensor by tensor",
		Long: `Compare two checkpoints, tensor by tensor, be they quantized or not.

A and B are files, weight indexes, folders or diffusers pipelines. They are the
same where both have the same tensors with the same values, in whatever format,
dtype and number of files; with --bytes, where all is stored in the same bytes
and the headers say the same. What differs is listed, with the error of B's
values: rel_mse is the sum of squared differences over that of A's squares.
Numbered blocks in which the same is found are one line, with their count.`,
		Example: `  tensorpress diff model.safetensors other.safetensors
  tensorpress diff models/big models/big-nvfp4 --all
  tensorpress diff a.safetensors b.safetensors --bytes --json`,
		Args: wants(2, 2),
	}, "0 1 2 3 4 130", d.run)
	f := cmd.Flags()
	f.BoolVar(&d.o.Bytes, "bytes", false, "the same only where bytes and header entries are the same")
	f.Float64Var(&d.o.MaxRelMSE, "max-rel-mse", 0, "take values for the same up to a rel_mse of `X`")
	group(f, "What is the same")
	f.BoolVar(&d.all, "all", false, "list every tensor by itself, also those that are the same")
	d.report.add(cmd)
	group(f, "Output")
	d.add(cmd)
	cmd.PreRunE = func(_ *cobra.Command, args []string) error { return d.check(args) }
	return cmd
}

func (d *diffFlags) check(args []string) error {
	if !(d.o.MaxRelMSE >= 0) { // NaN too
		return fmt.Errorf("--max-rel-mse %g: want 0 or more", d.o.MaxRelMSE)
	}
	if d.o.Bytes && d.o.MaxRelMSE > 0 {
		return errors.New("--bytes and --max-rel-mse: want one of them")
	}
	if err := d.runFlags.check(); err != nil {
		return err
	}
	return d.report.check(args)
}

func (d *diffFlags) run(cmd *cobra.Command, args []string) error {
	o := d.o
	at := d.places(cmd.ErrOrStderr())
	a, err := at.source(args[0])
	if err != nil {
		return err
	}
	b, err := at.source(args[1])
	if err != nil {
		return err
	}
	follow := d.start(cmd.ErrOrStderr())
	o.Threads, o.Memory, o.Progress = d.threads, at.left(d.memory.bytes), follow.update
	found, err := reading(cmd.Context(), func() (*report.Difference, error) {
		return tensorpress.Diff(cmd.Context(), a, b, o)
	})
	follow.end(err == nil)
	if err != nil {
		return err
	}
	speak(found)
	if !d.all {
		found.Tensors = slices.DeleteFunc(found.Tensors, func(p report.Pair) bool {
			return p.Finding == report.SameBytes || p.Finding == report.SameValues && !o.Bytes
		})
	}
	if err := d.report.write(found, func() *page { return differencePage(found) }); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	if err := output(cmd.OutOrStdout(), d.json, found, func(w io.Writer) { printDifference(w, found, d.all) }); err != nil {
		return err
	}
	if !found.Same {
		return fmt.Errorf("%s and %s %w", args[0], args[1], errDiffer)
	}
	return nil
}

func printDifference(w io.Writer, d *report.Difference, all bool) {
	t := newTable()
	for _, s := range []struct {
		name string
		report.Side
	}{{"a", d.A}, {"b", d.B}} {
		t.add(s.name, s.Path, cmp.Or(s.Layout, "plain"), count(s.Tensors, "tensor"), report.Size(s.Bytes))
	}
	t.print(w)
	if len(d.Tensors) > 0 {
		fmt.Fprintln(w)
		printPairs(w, d.Tensors, all)
	}
	if len(d.Metadata) > 0 {
		fmt.Fprintln(w)
		printMetadata(w, d.Metadata)
	}
	fmt.Fprintln(w)
	for _, note := range d.Notes {
		fmt.Fprintf(w, "note: %s\n", oneLine(note))
	}
	var counts []string
	for _, c := range d.Counts {
		counts = append(counts, fmt.Sprintf("%d %s", c.Tensors, c.Finding))
	}
	fmt.Fprintln(w, cmp.Or(strings.Join(counts, ", "), "no tensors"))
	if d.Total.RelMSE != nil {
		fmt.Fprintf(w, "rel_mse %s, %s dB, over what has other values\n", figure(d.Total.RelMSE, "%.3e"), figure(d.Total.SQNR, "%.1f"))
	}
	fmt.Fprintln(w, verdict(d))
}

// verdict says in words whether both are the same.
func verdict(d *report.Difference) string {
	what := "values"
	if d.Bytes {
		what = "bytes"
	}
	if d.Same {
		return "the same " + what
	}
	return "not the same " + what
}

func printPairs(w io.Writer, pairs []report.Pair, all bool) {
	t := newTable(1, 5, 6, 7)
	t.add("TENSOR", "COUNT", "FOUND", "A", "B", "REL_MSE", "SQNR_DB", "MAX_ABS", "DETAIL")
	for _, g := range groupsOf(pairs, all) {
		p := g.worst
		f := p.Figures
		if f == nil {
			f = &report.Figures{}
		}
		texts := []string{g.name, fmt.Sprint(g.count), string(p.Finding), sideText(p.A, p.B), sideText(p.B, p.A), "", "", "", p.Detail}
		if p.Figures != nil {
			texts[5], texts[6], texts[7] = figure(f.RelMSE, "%.3e"), figure(f.SQNR, "%.1f"), figure(f.MaxAbs, "%.3g")
		}
		t.add(texts...)
	}
	t.print(w)
}

// sideText says how a weight is stored, with its shape where the other one has another.
func sideText(s, other *report.Stored) string {
	if s == nil {
		return "-"
	}
	text := s.Dtype
	if s.Format == "sdnq" {
		text = "sdnq " + s.Dtype
	}
	if other == nil || !slices.Equal(s.Shape, other.Shape) {
		text += " " + shapeText(s.Shape)
	}
	return text
}

// pairGroup is several tensors, called the same but for numbers, of which the same is
// found.
type pairGroup struct {
	name  string
	count int
	worst report.Pair // the one with the greatest error
}

var numbersInNames = regexp.MustCompile(`(^|\.)\d+(\.|$)`)

// groupsOf folds tensors of numbered blocks into one line, unless all are wanted.
func groupsOf(pairs []report.Pair, all bool) []*pairGroup {
	var groups []*pairGroup
	known := map[string]*pairGroup{}
	for _, p := range pairs {
		key, name := p.Name, p.Name
		if !all {
			name = numbersInNames.ReplaceAllString(numbersInNames.ReplaceAllString(p.Name, "${1}*${2}"), "${1}*${2}")
			key = fmt.Sprint(name, "\x00", p.Finding, "\x00", sideText(p.A, nil), "\x00", sideText(p.B, nil), "\x00", p.Detail)
		}
		g := known[key]
		if g == nil {
			g = &pairGroup{name: p.Name, worst: p}
			known[key] = g
			groups = append(groups, g)
		} else {
			g.name = name
		}
		g.count++
		if p.Figures != nil && orInfinity(p.RelMSE) > orInfinity(g.worst.RelMSE) {
			g.worst = p
		}
	}
	return groups
}

func printMetadata(w io.Writer, pairs []report.MetadataPair) {
	t := newTable()
	t.add("METADATA", "A", "B")
	for _, p := range pairs {
		t.add(p.Key, metadataText(p.A), metadataText(p.B))
	}
	t.print(w)
}

func metadataText(text *string) string {
	if text == nil {
		return "-"
	}
	return shortened(*text)
}

// differencePage returns the page for the result of diff.
func differencePage(d *report.Difference) *page {
	p := &page{title: d.A.Path + " and " + d.B.Path, notes: d.Notes}
	p.fact("a", d.A.Path)
	p.fact("b", d.B.Path)
	p.fact("result", verdict(d))
	for _, c := range d.Counts {
		p.fact(string(c.Finding), fmt.Sprint(c.Tensors))
	}
	if d.Total.RelMSE != nil {
		p.total = &d.Total
	}
	for _, one := range d.Metadata {
		p.notes = append(p.notes, fmt.Sprintf("header entry %s: A %s, B %s", one.Key, metadataText(one.A), metadataText(one.B)))
	}
	for i := range d.Tensors {
		one := &d.Tensors[i]
		r := row{name: one.Name, action: string(one.Finding), dtype: sideText(one.A, nil) + ", " + sideText(one.B, nil), reason: one.Detail, error: one.Figures}
		if one.A != nil {
			r.in, r.shape = one.A.Bytes, shapeText(one.A.Shape)
		}
		if one.B != nil {
			r.out = one.B.Bytes
			r.shape = cmp.Or(r.shape, shapeText(one.B.Shape))
		}
		p.rows = append(p.rows, r)
	}
	return p
}
