package main

import (
	"github.com/spf13/cobra"
	"github.com/tensorpress/tensorpress"
)

type dequantizeFlags struct {
	o         tensorpress.DequantizeOptions
	shardSize size
	report    reportFlag
	runFlags
}

func newDequantize() *cobra.Command {
	d := &dequantizeFlags{}
	cmd := command(&cobra.Command{
		Use:   "dequantize SOURCE DEST",
		Short: "Turn a quantized checkpoint back into plain tensors",
		Long: `Turn a quantized checkpoint back into plain tensors.

It takes what tensorpress or the reference programs wrote, in either layout: a
file, a folder, or a diffusers pipeline.
Kept tensors stay as they are; no quantization_config remains.`,
		Example: `  tensorpress dequantize small.safetensors plain.safetensors
  tensorpress dequantize models/small models/plain --dtype bf16
  tensorpress dequantize small.safetensors plain.safetensors --lora mine`,
		Args: wants(2, 2),
	}, "0 1 2 3 130", d.run)
	f := cmd.Flags()
	f.StringVar(&d.o.Dtype, "dtype", "", "`bf16, f16 or f32` for the weights that were quantized (default theirs before)")
	addNames(f, &d.o.Names)
	addLora(f, &d.o.Lora, &d.o.LoraPartial, "merge an adapter into the weights as they are restored: `FILE[=STRENGTH]`; repeatable; see docs/lora.md")
	d.shardSize.least = 1
	f.Var(&d.shardSize, "shard-size", "most bytes of weights in a file of a folder (default 5GB)")
	f.BoolVar(&d.o.Force, "force", false, "replace DEST if it is an output and holds nothing else")
	f.BoolVar(&d.o.CopyWeights, "copy-weights", false, "also copy weight files that the output does not describe")
	d.report.add(cmd)
	group(f, "Output")
	d.add(cmd)
	complete(cmd, "dtype", plainNames)
	complete(cmd, "names", sideNames)
	cmd.PreRunE = func(_ *cobra.Command, args []string) error { return d.check(args) }
	return cmd
}

func (d *dequantizeFlags) check(args []string) error {
	if err := d.runFlags.check(); err != nil {
		return err
	}
	return d.report.check(args)
}

func (d *dequantizeFlags) run(cmd *cobra.Command, args []string) error {
	o := d.o
	o.ShardSize, o.Hash = d.shardSize.bytes, d.report.path != ""
	at := d.places(cmd.ErrOrStderr())
	from, to, err := at.both(args[0], args[1])
	if err != nil {
		return err
	}
	follow := d.start(cmd.ErrOrStderr())
	o.Threads, o.Memory, o.Progress = d.threads, at.left(d.memory.bytes), follow.update
	r, err := tensorpress.Dequantize(cmd.Context(), from, to, o)
	follow.end(err == nil)
	return d.finish(cmd, &d.report, r, err, printDone)
}

func plainNames() []string { return []string{"bf16", "f16", "f32"} }
