package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/spf13/cobra"
	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/report"
)

type inspectFlags struct {
	all, hash bool
	page      htmlFlag
	runFlags
}

func newInspect() *cobra.Command {
	i := &inspectFlags{}
	cmd := command(&cobra.Command{
		Use:   "inspect PATH",
		Short: "List what is in a checkpoint",
		Long: `List what is in a checkpoint: quantized layers, other tensors, metadata.

PATH is a file, a weight index, a folder or a diffusers pipeline. It reads
headers and no weights, but with --hash, which lists every tensor with the
sha256 of its bytes.

Names that differ in numbers alone share a row, such as blocks.[0-56].attn.to_q
with COUNT ×57, where everything else is the same. BYTES are those of all of
them. A layer that cannot be read has a row of its own. --all lists each layer
and each tensor after that, as --json does.`,
		Example: `  tensorpress inspect small.safetensors
  tensorpress inspect small.safetensors --all
  tensorpress inspect small.safetensors --html small.html
  tensorpress inspect models/small --json`,
		Args: wants(1, 1),
	}, "0 1 2 3 130", i.run)
	f := cmd.Flags()
	f.BoolVar(&i.all, "all", false, "also list every layer and tensor by itself")
	i.page.add(cmd)
	f.BoolVar(&i.hash, "hash", false, "read all, and list the sha256 of each tensor's bytes")
	group(f, "Output")
	i.add(cmd)
	cmd.PreRunE = func(_ *cobra.Command, args []string) error {
		if err := i.check(); err != nil {
			return err
		}
		return i.page.check(args)
	}
	return cmd
}

func (i *inspectFlags) run(cmd *cobra.Command, args []string) error {
	at := i.places(cmd.ErrOrStderr())
	what, err := at.source(args[0])
	if err != nil {
		return err
	}
	v, err := reading(cmd.Context(), func() (*report.Inspection, error) {
		return i.inspected(cmd, what, at)
	})
	if err != nil {
		return err
	}
	speak(v)
	if err := i.page.write(v); err != nil {
		return err
	}
	return output(cmd.OutOrStdout(), i.json, v, func(w io.Writer) { printInspection(w, v, i.all) })
}

// inspected is what is in a checkpoint, with the hashes of its tensors if they are wanted.
func (i *inspectFlags) inspected(cmd *cobra.Command, what files.Source, at *places) (*report.Inspection, error) {
	if !i.hash { // it reads so little that nobody waits
		return tensorpress.Inspect(cmd.Context(), what)
	}
	follow := i.start(cmd.ErrOrStderr())
	v, err := tensorpress.Hash(cmd.Context(), what, tensorpress.HashOptions{Threads: i.threads, Memory: at.left(i.memory.bytes), Progress: follow.update})
	follow.end(err == nil)
	return v, err
}

func printInspection(w io.Writer, v *report.Inspection, all bool) {
	plain := plainTensors(v)
	t := newTable()
	t.add("path", v.Path)
	if v.Part != "" {
		t.add("part", v.Part+" alone: its folder or index is the whole model")
	}
	t.add("layout", cmp.Or(v.Layout, "plain"))
	t.add("layers", fmt.Sprintf("%d quantized", len(v.Layers)))
	t.add("tensors", fmt.Sprintf("%d, of which %d belong to no quantized layer", len(v.Tensors), len(plain)))
	t.add("bytes", report.Size(v.Bytes))
	for _, key := range slices.Sorted(maps.Keys(v.Metadata)) {
		t.add("metadata", fmt.Sprintf("%s = %s", key, shortened(v.Metadata[key])))
	}
	t.print(w)
	if len(v.Tensors) > 0 && v.Tensors[0].SHA256 != "" {
		fmt.Fprintln(w)
		printTensors(w, v.Tensors)
		return
	}
	if rows := tree(v); len(rows) > 0 {
		fmt.Fprintln(w)
		printTree(w, rows)
	}
	if !all {
		return
	}
	if len(v.Layers) > 0 {
		fmt.Fprintln(w)
		printLayers(w, v.Layers)
	}
	if len(plain) > 0 {
		fmt.Fprintln(w)
		printTensors(w, plain)
	}
}

func shortened(text string) string {
	const most = 60
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return text
}

// plainTensors returns the tensors that belong to no quantized layer.
func plainTensors(v *report.Inspection) []report.Tensor {
	taken := map[string]bool{}
	for _, l := range v.Layers {
		for _, t := range l.Tensors {
			taken[t.Name] = true
		}
	}
	if len(taken) == 0 {
		return v.Tensors
	}
	var plain []report.Tensor
	for _, t := range v.Tensors {
		if !taken[t.Name] {
			plain = append(plain, t)
		}
	}
	return plain
}

func printLayers(w io.Writer, layers []report.StoredLayer) {
	t := newTable(6)
	t.grow(1+len(layers), 8)
	t.add("LAYER", "FORMAT", "DTYPE", "SCALE", "WITH", "SHAPE", "BYTES", "PROBLEM")
	var made texts
	for _, l := range layers {
		shape := "unknown"
		if l.Problem == "" {
			shape = made.of(l.Shape)
		}
		t.add(l.Name, l.Format, l.Dtype, scaleText(l.Options), partsText(l.Options), shape, made.size(l.Bytes), l.Problem)
	}
	t.print(w)
}

func printTensors(w io.Writer, tensors []report.Tensor) {
	t := newTable(3)
	t.grow(1+len(tensors), 4)
	heads := []string{"TENSOR", "DTYPE", "SHAPE", "BYTES"}
	if len(tensors) > 0 && tensors[0].SHA256 != "" {
		heads = append(heads, "SHA256")
	}
	t.add(heads...)
	var made texts
	for _, one := range tensors {
		t.add([]string{one.Name, one.Dtype, made.of(one.Shape), made.size(one.Bytes), one.SHA256}[:len(heads)]...)
	}
	t.print(w)
}
