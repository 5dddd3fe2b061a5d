package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/report"
)

type transcodeFlags struct {
	o tensorpress.TranscodeOptions
	rewriteFlags
}

func newTranscode() *cobra.Command {
	t := &transcodeFlags{}
	cmd := command(&cobra.Command{
		Use:   "transcode SOURCE DEST --layout LAYOUT",
		Short: "Move quantized layers to another layout without rounding again",
		Long: `Move quantized layers to another layout without rounding their codes again.

--layout comfy moves SDNQ's layers to the formats of ComfyUI that have the same
arithmetic: int8 with a scale a row or one scale, rotated or not, to
int8_tensorwise; uint4 in groups to awq_w4a16, whose scales are BF16; float8
with one scale to its namesake. --layout sdnq is the way back. Layers that
cannot move are listed, and nothing is written, unless --requantize quantizes
them again, from the values that they restore to.

--names comfyui makes one file for ComfyUI of a folder of diffusers': tensors
are renamed, and those that become one are joined, without rounding. Layers of
SDNQ's that no format of ComfyUI's holds stay SDNQ's then. --names diffusers is
the way back.`,
		Example: `  tensorpress transcode models/sdnq-int8 model.safetensors --layout comfy
  tensorpress transcode model.safetensors back.safetensors --layout sdnq
  tensorpress transcode flux-sdnq f.safetensors --layout comfy --names comfyui`,
		Args: t.wants,
	}, "0 1 2 3 130", t.run)
	t.add(cmd)
	return cmd
}

func (t *transcodeFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&t.o.Layout, "layout", "", "`sdnq or comfy`, where the layers are to go")
	addNames(f, &t.o.Names)
	f.BoolVar(&t.o.Rename, "rename", false, "comfy: keep SDNQ's layers, which then describe themselves; stock ComfyUI does not load them")
	f.BoolVar(&t.o.Requantize, "requantize", false, "quantize layers that cannot move again, in the nearest dtype")
	f.StringVar(&t.o.Scale, "scale", "", "`row` lets float8 with a scale a row become float8_e4m3fn_rowwise, which stock ComfyUI does not load")
	f.StringVar(&t.o.ScaleDtype, "scale-dtype", "", "of awq_w4a16's scales: `bf16, f16 or f32` (default bf16)")
	f.StringVar(&t.o.For, "for", "", "refuse what `APP` would not load: "+appList())
	group(f, "How weights are stored")
	t.addOutput(cmd)
	complete(cmd, "layout", layoutNames)
	complete(cmd, "names", sideNames)
	complete(cmd, "for", appNames)
	complete(cmd, "scale", func() []string { return []string{"row"} })
	complete(cmd, "scale-dtype", plainNames)
	cmd.PreRunE = func(_ *cobra.Command, args []string) error { return t.check(args) }
}

func (t *transcodeFlags) check(args []string) error {
	if t.o.Layout == "" {
		return fmt.Errorf("--layout is missing: where are the layers to go, sdnq or comfy")
	}
	return t.rewriteFlags.check(args)
}

func (t *transcodeFlags) run(cmd *cobra.Command, args []string) error {
	o := t.o
	at := t.places(cmd.ErrOrStderr())
	from, to, err := at.both(args[0], t.dest(args))
	if err != nil {
		return err
	}
	follow := t.start(cmd.ErrOrStderr())
	o.Threads, o.Memory, o.Progress = t.threads, at.left(t.memory.bytes), follow.update
	o.ShardSize, o.Force, o.CopyWeights, o.Hash = t.shardSize.bytes, t.force, t.copyWeights, t.report.path != ""
	if t.dryRun {
		r, err := reading(cmd.Context(), func() (*report.Report, error) {
			return tensorpress.PlanTranscode(cmd.Context(), from, to, o)
		})
		return t.finish(cmd, &t.report, r, err, printPlan)
	}
	r, err := tensorpress.Transcode(cmd.Context(), from, to, o)
	follow.end(err == nil)
	return t.finish(cmd, &t.report, r, err, printMoved)
}

// printMoved prints what was done, and the error added to each layer whose scales were
// rounded or that was quantized again.
func printMoved(w io.Writer, r *report.Report) {
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
