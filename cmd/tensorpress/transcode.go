package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"github.com/tensorpress/tensorpress"
)

type transcodeFlags struct {
	o         tensorpress.TranscodeOptions
	dryRun    bool
	shardSize size
	report    reportFlag
	runFlags
}

func newTranscode() *cobra.Command {
	t := &transcodeFlags{}
	cmd := command(&cobra.Command{
		Use:   "transcode SOURCE DEST --layout LAYOUT",
		Short: "Move quantized layers to another layout without rounding again",
		Long: `Move quantized layers to another layout without rounding their codes again.

--layout comfy moves SDNQ's layers to the formats of ComfyUI that have the same
arithmetic: int8 with a scale a row or one scale, rotated or not, to
int8_tensorwise; uint4 in groups to awq_w4a16, whose scales are BF16; float8 with
one scale to its namesake. --layout sdnq is the way back. Layers that cannot move
are listed, and nothing is written, unless --requantize quantizes them again, from
the values that they restore to.`,
		Example: `  tensorpress transcode models/sdnq-int8 model.safetensors --layout comfy --for comfyui
  tensorpress transcode model.safetensors back.safetensors --layout sdnq`,
		Args: func(cmd *cobra.Command, args []string) error {
			if t.dryRun {
				return wants(1, 2)(cmd, args)
			}
			return wants(2, 2)(cmd, args)
		},
	}, "0 1 2 3 130", t.run)
	t.add(cmd)
	return cmd
}

func (t *transcodeFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&t.o.Layout, "layout", "", "`sdnq or comfy`, where the layers are to go")
	f.BoolVar(&t.o.Rename, "rename", false, "comfy: keep SDNQ's layers, which then describe themselves; stock ComfyUI does not load them")
	f.BoolVar(&t.o.Requantize, "requantize", false, "quantize layers that cannot move again, in the nearest dtype")
	f.StringVar(&t.o.Scale, "scale", "", "`row` lets float8 with a scale a row become float8_e4m3fn_rowwise, which stock ComfyUI does not load")
	f.StringVar(&t.o.ScaleDtype, "scale-dtype", "", "of awq_w4a16's scales: `bf16, f16 or f32` (default bf16)")
	f.StringVar(&t.o.For, "for", "", "refuse what `APP` would not load: comfyui, sdnext, diffusers, transformers, invokeai")
	group(f, "How weights are stored")
	t.shardSize.least = 1
	f.Var(&t.shardSize, "shard-size", "most bytes of weights in a file of a folder (default 5GB)")
	f.BoolVar(&t.o.Force, "force", false, "replace DEST if it exists")
	f.BoolVar(&t.dryRun, "dry-run", false, "print what would be done; write nothing")
	t.report.add(cmd)
	group(f, "Output")
	t.runFlags.add(cmd)
	complete(cmd, "layout", layoutNames)
	complete(cmd, "for", appNames)
	complete(cmd, "scale", func() []string { return []string{"row"} })
	complete(cmd, "scale-dtype", plainNames)
	cmd.PreRunE = func(_ *cobra.Command, args []string) error { return t.check(args) }
}

func (t *transcodeFlags) check(args []string) error {
	if t.o.Layout == "" {
		return fmt.Errorf("--layout is missing: where are the layers to go, sdnq or comfy")
	}
	if err := t.runFlags.check(); err != nil {
		return err
	}
	return t.report.check(args)
}

func (t *transcodeFlags) run(cmd *cobra.Command, args []string) error {
	o := t.o
	o.ShardSize = t.shardSize.bytes
	var follow meter
	o.Resources, follow = t.start(cmd.ErrOrStderr())
	if t.dryRun {
		dest := ""
		if len(args) == 2 {
			dest = args[1]
		}
		r, err := tensorpress.PlanTranscode(args[0], dest, o)
		return t.finish(cmd, r, err, printPlan)
	}
	r, err := tensorpress.Transcode(cmd.Context(), args[0], args[1], o)
	follow.end(err == nil)
	return t.finish(cmd, r, err, printMoved)
}

func (t *transcodeFlags) finish(cmd *cobra.Command, r *tensorpress.Report, err error, show func(io.Writer, *tensorpress.Report)) error {
	if err != nil {
		return err
	}
	t.notes(cmd.ErrOrStderr(), r.Notes)
	if err := t.report.write(r, func() *page { return reportPage(r) }); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return output(cmd.OutOrStdout(), t.json, r, func(w io.Writer) { show(w, r) })
}

// printMoved says what was done, and of each layer whose scales were rounded,
// or that was quantized again, what that costs.
func printMoved(w io.Writer, r *tensorpress.Report) {
	t := newTable(3)
	t.add("LAYER", "ACTION", "DTYPE", "REL_MSE")
	for _, l := range r.Layers {
		if l.Figures != nil {
			t.add(l.Name, done(l.Action), l.Dtype, figure(l.RelMSE, "%.3g"))
		}
	}
	if len(t.rows) > 1 {
		t.print(w)
		fmt.Fprintln(w)
	}
	printDone(w, r)
}
